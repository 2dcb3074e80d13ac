//! Greedy episodes.

use super::*;
use crate::fixture::{self, Oracle, scan_with};
use crate::rollout::policy::RandomPolicy;

fn evaluation<'a>(
    scans: &'a [Arc<Scan>],
    rules: &'a Arc<Rules>,
    starts: &'a EvaluationStarts,
) -> Evaluation<'a> {
    Evaluation {
        scans,
        agents: &[0, 1],
        starts,
        rules,
        together: false,
        seed: 4,
        batch: 5,
        trajectories: true,
    }
}

#[test]
fn an_oracle_reaches_every_landmark_from_every_start() {
    let config = fixture::config();
    let rules = Arc::new(config.rules.clone());
    let scans = [
        scan_with(&[Some([15.0, 12.0, 10.0]), Some([3.0, 20.0, 17.0])]),
        scan_with(&[Some([22.0, 5.0, 9.0]), None]),
    ];
    let starts = EvaluationStarts::Nineteen;
    let mut seen = Vec::new();
    let mut oracle = Oracle::new(&config);
    let results = evaluate(&mut oracle, &evaluation(&scans, &rules, &starts), |p| {
        seen.push(p.done);
    })
    .unwrap();
    assert_eq!(results.len(), 2 * 19 * 2);
    assert_eq!(seen.last(), Some(&76));
    for r in &results {
        let known = scans[r.scan].landmarks[usize::from(r.agent)].is_some();
        assert_eq!(r.error_mm.is_some(), known);
        assert_eq!(r.error_mm, r.error_voxels, "1 mm voxels");
        assert_eq!(r.end, End::Oscillation);
        let path = r.trajectory.as_ref().unwrap();
        assert_eq!(path.len(), usize::from(r.steps));
        assert_eq!(path[0].position, r.start);
        for step in path {
            let chosen = step.q[usize::from(step.action)];
            assert!(step.q.iter().all(|q| *q <= chosen), "{step:?}");
        }
        if let Some(e) = r.error_mm {
            assert!(e <= 0.75, "{r:?}");
        }
    }
    assert!(results.is_sorted_by_key(|r| (r.scan, r.start_index, r.agent)));
}

/// A policy of the observation alone, so that neither batch nor order matters.
struct ByPosition;
impl Policy for ByPosition {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let q = |o: &common::environment::Observation| {
            let p = o.frames[0].position.map(i32::from);
            [0, 1, 2, 3, 4, 5].map(|a| ((p[0] * 7 + p[1] * 3 + p[2] + a * 5) % 11) as f32)
        };
        Ok(views.iter().flat_map(|v| v.observations).map(q).collect())
    }
}

#[test]
fn neither_the_batch_nor_the_other_scans_change_a_trajectory() {
    let config = fixture::config();
    let rules = Arc::new(config.rules.clone());
    let with_hash = |n: u8| {
        let mut scan = (*scan_with(&[Some([15.0, 12.0, 10.0]), Some([3.0; 3])])).clone();
        scan.hash = [n; 32];
        Arc::new(scan)
    };
    let scans = [with_hash(1), with_hash(2)];
    let starts = EvaluationStarts::Random {
        count: 6,
        margin: 0.25,
    };
    let results = |scans: &[Arc<Scan>], batch, together| {
        let e = Evaluation {
            batch,
            together,
            ..evaluation(scans, &rules, &starts)
        };
        evaluate(&mut ByPosition, &e, |_| ()).unwrap()
    };
    let all = results(&scans, 100, false);
    assert_eq!(all, results(&scans, 1, false));
    let second = all.iter().filter(|r| r.scan == 1);
    let second: Vec<_> = second.map(|r| (r.start, r.prediction)).collect();
    let alone = results(&scans[1..], 3, false);
    let alone: Vec<_> = alone.iter().map(|r| (r.start, r.prediction)).collect();
    assert_eq!(second, alone);
    assert_ne!(all[0].start, second[0].0, "another scan has other starts");
    // With independent agents, moving together only changes the batching.
    assert_eq!(all, results(&scans, 4, true));
}

#[test]
fn an_evaluation_without_scans_is_empty() {
    let config = fixture::config();
    let rules = Arc::new(config.rules);
    let starts = EvaluationStarts::TwentySeven;
    let nothing = evaluation(&[], &rules, &starts);
    let none = evaluate(&mut RandomPolicy::new(1), &nothing, |_| ());
    assert_eq!(none.unwrap(), []);
}

/// Counts the observations that are requested.
#[derive(Default)]
struct Counting {
    computed: usize,
    largest: usize,
}
impl Policy for Counting {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let observations: usize = views.iter().map(|v| v.observations.len()).sum();
        self.computed += observations;
        self.largest = self.largest.max(observations);
        ByPosition.q_values(views)
    }
    fn weights_version(&self) -> u64 {
        1
    }
}

#[test]
fn repeated_observations_are_computed_once() {
    let rules = Arc::new(fixture::config().rules.clone());
    let scans = [scan_with(&[Some([20.0; 3])]), scan_with(&[Some([9.0; 3])])];
    let starts = EvaluationStarts::Nineteen;
    let mut policy = Counting::default();
    let all = evaluation(&scans, &rules, &starts);
    let results = evaluate(&mut policy, &all, |_| {}).unwrap();
    let steps: usize = results.iter().map(|r| usize::from(r.steps)).sum();
    let Counting { computed, largest } = policy;
    assert!(computed * 2 < steps, "{computed} of {steps}");
    assert!(largest <= all.batch, "{largest}");
}
