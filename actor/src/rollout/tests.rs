//! Rows, ends and shares of whole rollouts.

mod parts;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::fixture::{self, Oracle, scan_with};
use crate::rollout::policy::{QValues, RandomPolicy, ZeroPolicy};
use common::environment::End;
use common::environment::rules::{Coupling, TruncationRule};
use common::transition::row::{AgentStep, FrameRef};

const WRITER: Writer = Writer {
    actor: 3,
    incarnation: 2,
};
const TARGET: [f64; 3] = [15.0, 12.0, 10.0];

/// Plays given actions one after another; the chosen action is worth 2.
#[derive(Debug)]
struct Script(std::iter::Cycle<std::vec::IntoIter<usize>>);

impl Script {
    fn new(actions: &[usize]) -> Self {
        Self(Vec::from(actions).into_iter().cycle())
    }
}

impl Policy for Script {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let mut q = [0.0; 6];
        q[self.0.next().unwrap()] = 2.0;
        Ok(vec![q; views.iter().map(|v| v.agents.len()).sum()])
    }

    fn weights_version(&self) -> u64 {
        41
    }
}

fn rollout(config: &Config, scans: &[Arc<Scan>], epsilon: f32) -> Rollout {
    Rollout::new(config, scans, &vec![epsilon; config.actor.slots], WRITER).unwrap()
}

fn run(rollout: &mut Rollout, policy: &mut impl Policy, steps: usize) -> StepReport {
    let mut all = StepReport::default();
    for _ in 0..steps {
        let one = rollout.step(policy, 1.0).unwrap();
        all.rows.extend(one.rows);
        all.episodes.extend(one.episodes);
        all.env_steps += one.env_steps;
        all.ended += one.ended;
    }
    all
}

/// Two scans that show both landmarks.
fn two_scans() -> [Arc<Scan>; 2] {
    let others = [Some([3.0; 3]), Some([8.0; 3])];
    [[Some(TARGET), others[0]], [others[1], Some(TARGET)]].map(|l| scan_with(&l))
}

/// One agent, one slot, one scale, starting on its target.
fn single() -> Config {
    let mut config = fixture::config();
    config.data.landmarks = vec!["A".into()];
    config.rules.scales = vec![(1, 1).into()];
    config.rules.history = 2;
    config.rules.max_steps = 3;
    config.actor.slots = 1;
    config.actor.start_near = 1.0;
    config.actor.start_near_radius = vec![0.0];
    config
}

fn frame(x: i16, z: i16) -> FrameRef {
    FrameRef {
        position: [x, 12, z],
        stride: 1,
        valid: true,
    }
}

fn row(
    step: u16,
    action: u8,
    reward: f32,
    discount: f32,
    state: [FrameRef; 2],
    next: [FrameRef; 2],
) -> Row {
    Row {
        header: RowHeader {
            scan: 0,
            pose: 0,
            actor: 3,
            incarnation: 2,
            slot: 0,
            episode: 0,
            step,
            weights_version: 41,
        },
        agents: vec![AgentStep {
            agent: 0,
            scale: 0,
            next_scale: 0,
            action,
            active: true,
            reward,
            discount,
            state: state.to_vec(),
            next: next.to_vec(),
        }],
    }
}

/// Rows of three steps (right, right, up) from the target, where the step limit truncates.
fn scripted(n_step: usize, rule: TruncationRule) -> Vec<(Row, f32)> {
    let mut config = single();
    config.learner.n_step = n_step;
    config.rules.episode_end = rule;
    let mut r = rollout(&config, &[scan_with(&[Some(TARGET)])], 0.0);
    run(&mut r, &mut Script::new(&[2, 2, 0, 0]), 4).rows
}

#[test]
fn one_step_rows_equal_those_made_by_hand() {
    let up = (2.0 - 5.0_f64.sqrt()) as f32;
    let invalid = FrameRef::default();
    let (a, b, c, d) = (frame(15, 10), frame(16, 10), frame(17, 10), frame(17, 11));
    let expected = [
        row(0, 2, -1.0, 0.9, [invalid, a], [a, b]),
        row(1, 2, -1.0, 0.9, [a, b], [b, c]),
        row(2, 0, up, 0.9, [b, c], [c, d]),
    ];
    let rows = scripted(1, TruncationRule::Truncate);
    assert!(rows.iter().map(|r| &r.0).eq(&expected), "{rows:?}");
    for (row, priority) in &rows {
        // Chosen and bootstrap value are 2 throughout.
        let td = (row.agents[0].reward + 0.9 * 2.0 - 2.0).abs();
        assert!((priority - td).abs() < 1e-6, "{priority} for {td}");
    }
    let terminal = scripted(1, TruncationRule::Terminal);
    let discounts: Vec<f32> = terminal.iter().map(|r| r.0.agents[0].discount).collect();
    assert_eq!(discounts, [0.9, 0.9, 0.0]);
}

#[test]
fn three_step_rows_equal_those_made_by_hand() {
    let up = (2.0 - 5.0_f64.sqrt()) as f32;
    let invalid = FrameRef::default();
    let (a, b, c, d) = (frame(15, 10), frame(16, 10), frame(17, 10), frame(17, 11));
    let g = 0.9_f32;
    let expected = [
        row(0, 2, -1.0 - g + g * g * up, g * g * g, [invalid, a], [c, d]),
        row(1, 2, -1.0 + g * up, g * g, [a, b], [c, d]),
        row(2, 0, up, g, [b, c], [c, d]),
    ];
    let rows = scripted(3, TruncationRule::Truncate);
    assert_eq!(rows.len(), 3);
    for ((found, _), expected) in rows.iter().zip(&expected) {
        let (f, e) = (&found.agents[0], &expected.agents[0]);
        assert!((f.reward - e.reward).abs() < 1e-6, "{f:?} {e:?}");
        assert!((f.discount - e.discount).abs() < 1e-6, "{f:?} {e:?}");
        let same = AgentStep {
            reward: e.reward,
            discount: e.discount,
            ..f.clone()
        };
        assert_eq!((&found.header, &same), (&expected.header, e));
    }
}

#[test]
fn the_next_state_after_a_scale_switch_is_at_the_new_scale() {
    let mut config = fixture::config();
    config.data.landmarks = vec!["A".into()];
    config.actor.slots = 1;
    config.actor.start_margin = 0.45;
    let mut r = rollout(&config, &[scan_with(&[Some(TARGET)])], 0.0);
    let rows = run(&mut r, &mut Script::new(&[2, 3]), 9).rows;
    let start = rows[0].0.agents[0].state[0].position;
    // Right and left by 3 until the right end was seen four times: seven moves.
    let switch = &rows[6].0.agents[0];
    assert_eq!((switch.scale, switch.next_scale), (0, 1));
    assert_eq!(switch.state[0].stride, 2);
    // Whole periods average to 1.5 voxels right of the start, rounded to 2.
    let expected = FrameRef {
        position: [start[0] + 2, start[1], start[2]],
        stride: 1,
        valid: true,
    };
    assert_eq!(switch.next, [expected]);
    assert_eq!(switch.discount, 0.9, "bootstrapping goes across the switch");
    assert_eq!(rows[7].0.agents[0].state, [expected]);
    assert!(rows[..6].iter().all(|(r, _)| r.agents[0].next_scale == 0));
}

#[test]
fn equal_inputs_give_equal_rows_and_another_incarnation_gives_others() {
    let config = fixture::config();
    let scans = two_scans();
    let rows = |writer| {
        let mut r = Rollout::new(&config, &scans, &[0.5, 0.1, 0.2, 0.9], writer).unwrap();
        run(&mut r, &mut RandomPolicy::new(5), 300).rows
    };
    let first = rows(WRITER);
    assert!(first.len() > 500, "{}", first.len());
    assert_eq!(first, rows(WRITER));
    let (actor, incarnation) = (WRITER.actor, 3);
    let other = rows(Writer { actor, incarnation });
    let start = |row: &(Row, f32)| row.0.agents[0].state.clone();
    let starts = first.iter().take(4).map(start);
    assert!(!starts.eq(other.iter().take(4).map(start)));
    let slots: BTreeSet<u16> = first.iter().map(|r| r.0.header.slot).collect();
    assert_eq!(slots.len(), 4);
}

#[test]
fn every_move_becomes_exactly_one_row() {
    for n_step in [1, 3] {
        let mut config = fixture::config();
        config.learner.n_step = n_step;
        let scans = [scan_with(&[Some(TARGET), Some([3.0; 3])])];
        let mut r = rollout(&config, &scans, 0.3);
        let report = run(&mut r, &mut RandomPolicy::new(1), 500);
        let headers = report.rows.iter().map(|(r, _)| r.header);
        let steps: BTreeSet<_> = headers.map(|h| (h.slot, h.episode, h.step)).collect();
        let count = report.rows.len();
        assert_eq!(steps.len(), count);
        // Missing are only those that still wait for their return or their priority.
        let open = report.env_steps - count as u64;
        assert!(open <= 4 * (n_step as u64), "{open}");
        assert_eq!(report.ended, report.episodes.len() as u64);
        for (_, priority) in &report.rows {
            assert!((0.0..=10.0).contains(priority), "{priority}");
        }
    }
}

#[test]
fn an_oracle_reaches_every_landmark_and_landmarks_share_episodes_equally() {
    let config = fixture::config();
    let scans = [
        scan_with(&[Some(TARGET), Some([3.0, 20.0, 17.0])]),
        scan_with(&[Some([22.0, 5.0, 9.0]), None]),
    ];
    let mut r = rollout(&config, &scans, 0.0);
    let episodes = run(&mut r, &mut Oracle::new(&config), 600).episodes;
    assert!(episodes.len() > 40);
    for e in &episodes {
        assert_eq!(e.end, End::Oscillation, "{e:?}");
        // A cycle of two positions around the landmark has its mean half a voxel off.
        assert!(e.error_mm <= 0.75, "{e:?}");
        assert!((e.error_mm - e.error_finest_steps).abs() < 1e-9, "{e:?}");
    }
    let first = episodes.iter().filter(|e| e.agent == 0).count();
    let count = episodes.len();
    assert!(first.abs_diff(count - first) <= 4, "{first} of {count}");
    // Landmark 1 is missing in scan 1.
    assert!(episodes.iter().all(|e| e.agent == 0 || e.scan == 0));
}

#[test]
fn random_actions_follow_the_schedule() {
    let mut config = fixture::config();
    config.actor.epsilon_start = 1.0;
    let scans = [scan_with(&[Some(TARGET), Some(TARGET)])];
    let share = |progress: f64| {
        let mut r = rollout(&config, &scans, 0.2);
        let rows: Vec<_> = (0..400)
            .flat_map(|_| r.step(&mut ZeroPolicy, progress).unwrap().rows)
            .collect();
        // Greedy is action 0: a random action is another one in five of six cases.
        let others = rows.iter().filter(|(r, _)| r.agents[0].action != 0).count();
        others as f64 / rows.len() as f64
    };
    for (progress, epsilon) in [(0.0, 1.0), (0.5, 0.6), (1.0, 0.2)] {
        let expected = epsilon * 5.0 / 6.0;
        assert!((share(progress) - expected).abs() < 0.05, "{progress}");
    }
}

#[test]
fn a_commnet_group_shares_a_row_in_which_missing_agents_are_inactive() {
    let mut config = fixture::config();
    config.network.kind = NetworkKind::Commnet;
    let scans = [
        scan_with(&[Some(TARGET), None]),
        scan_with(&[Some([4.0; 3]), Some(TARGET)]),
    ];
    let mut r = rollout(&config, &scans, 0.1);
    let report = run(&mut r, &mut RandomPolicy::new(2), 200);
    let rows = report.rows.iter();
    let (first, second): (Vec<_>, Vec<_>) = rows.partition(|(row, _)| row.header.scan == 0);
    assert!(!first.is_empty() && !second.is_empty());
    for (row, _) in first {
        let active: Vec<bool> = row.agents.iter().map(|a| a.active).collect();
        assert_eq!(active, [true, false]);
        // A frozen agent keeps its window.
        assert_eq!(row.agents[1].state, row.agents[1].next);
    }
    for (row, _) in second {
        assert!(row.agents.iter().any(|a| a.active));
    }
    assert!(report.episodes.iter().all(|e| e.scan == 1 || e.agent == 0));
    assert!(report.episodes.iter().any(|e| e.agent == 1));
}

#[test]
fn agents_that_share_a_scale_begin_at_one_and_have_rows_of_their_own() {
    let mut config = fixture::config();
    config.rules.coupling = Coupling::Shared;
    config.actor.start_near = 1.0;
    let scans = [scan_with(&[Some(TARGET), Some([3.0, 4.0, 5.0])])];
    let mut r = rollout(&config, &scans, 0.0);
    let rows = run(&mut r, &mut ZeroPolicy, 400).rows;
    let mut scales = BTreeMap::new();
    let mut agents = [0, 0];
    for (row, _) in &rows {
        let a = &row.agents[0];
        assert_eq!(row.agents.len(), 1);
        agents[usize::from(a.agent)] += 1;
        let key = (row.header.slot, row.header.episode, row.header.step);
        assert_eq!(*scales.entry(key).or_insert(a.scale), a.scale);
    }
    assert_eq!(agents[0], agents[1]);
    assert!(scales.values().any(|s| *s == 0) && scales.iter().any(|(k, s)| k.2 == 0 && *s == 1));
}

#[test]
fn a_policy_that_fails_moves_nothing() {
    struct Failing;
    impl Policy for Failing {
        fn q_values(&mut self, _: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
            Err(PolicyError::NoWeights)
        }
    }
    let config = fixture::config();
    let scans = [scan_with(&[Some(TARGET), Some(TARGET)])];
    let mut r = rollout(&config, &scans, 0.0);
    let mut same = rollout(&config, &scans, 0.0);
    assert!(r.step(&mut Failing, 1.0).is_err());
    let [a, b] = [&mut r, &mut same].map(|r| run(r, &mut ZeroPolicy, 20).rows);
    assert_eq!(a, b);
    let error = Rollout::new(&config, &scans, &[0.1], WRITER).unwrap_err();
    assert_eq!(error.to_string(), "exploration has 1 values for 4 slots");
}

#[test]
fn posed_episodes_lead_to_where_the_landmark_is_in_the_pose() {
    let mut config = fixture::config();
    (config.pose.share, config.pose.flip) = (1.0, 0.5);
    config.pose.rotation_degrees = 25.0;
    let scans = [scan_with(&[Some(TARGET), Some([20.0, 9.0, 12.0])])];
    let mut r = rollout(&config, &scans, 0.0);
    let report = run(&mut r, &mut Oracle::new(&config), 400);
    let poses: BTreeSet<u32> = report.rows.iter().map(|r| r.0.header.pose).collect();
    assert!(poses.len() > 8 && !poses.contains(&0), "{poses:?}");
    assert!(report.episodes.len() > 8);
    for end in &report.episodes {
        assert!(end.error_mm < 1.0, "{end:?}");
    }
    // Equal configurations, equal poses: a row's number is all that is needed.
    let mut again = rollout(&config, &scans, 0.0);
    let again = run(&mut again, &mut Oracle::new(&config), 400);
    assert_eq!(again.rows, report.rows);
}

#[test]
fn a_scan_has_no_pose_where_each_pose_takes_the_landmark_out_of_the_volume() {
    let mut config = fixture::config();
    (config.pose.share, config.pose.rotation_degrees) = (1.0, 0.0);
    // Mirrored or not, 2.5 times as large about the centre would put it outside.
    (config.pose.scaling, config.data.landmarks) = (0.5, vec!["A".into()]);
    let corner = [29.0, 23.0, 19.0];
    let scans = [scan_with(&[Some(corner)])];
    let mut r = rollout(&config, &scans, 0.0);
    let report = run(&mut r, &mut Oracle::new(&config), 400);
    assert!(!report.episodes.is_empty());
    for (row, _) in &report.rows {
        assert!(row.agents[0].active);
    }
    for end in &report.episodes {
        assert!(end.error_mm < 1.0, "{end:?}");
    }
}

#[test]
fn a_restored_rollout_continues_as_if_it_had_never_stopped() {
    let mut config = fixture::config();
    (config.pose.share, config.pose.flip) = (0.5, 0.5);
    config.learner.n_step = 3;
    let scans = two_scans();
    let fresh = || rollout(&config, &scans, 0.4);
    for stop in [0, 1, 2, 17, 60] {
        let mut never_stopped = fresh();
        run(&mut never_stopped, &mut Oracle::new(&config), stop);
        let bytes = postcard::to_stdvec(&never_stopped.state()).unwrap();
        let mut again = fresh();
        run(&mut again, &mut Oracle::new(&config), 5);
        let state = postcard::from_bytes(&bytes).unwrap();
        again.restore(state).unwrap();
        let [a, b] = [never_stopped, again].map(|mut r| run(&mut r, &mut Oracle::new(&config), 80));
        assert!(a.rows.len() > 100, "{}", a.rows.len());
        assert_eq!(a.rows, b.rows, "stopped after {stop} steps");
        assert_eq!(a.episodes, b.episodes);
    }
}

#[test]
fn a_state_of_another_run_is_refused() {
    let config = fixture::config();
    let scans = [scan_with(&[Some(TARGET), Some([3.0; 3])])];
    let state = rollout(&config, &scans, 0.1).state();
    let refused = |config: &Config, scans: &[Arc<Scan>], writer| {
        let exploration = vec![0.1; config.actor.slots];
        let mut other = Rollout::new(config, scans, &exploration, writer).unwrap();
        other.restore(state.clone()).unwrap_err().to_string()
    };
    let mut fewer = config.clone();
    fewer.actor.slots -= 1;
    assert!(refused(&fewer, &scans, WRITER).contains("slots were saved"));
    let two = [Arc::clone(&scans[0]), Arc::clone(&scans[0])];
    assert!(refused(&config, &two, WRITER).contains("other landmarks or scans"));
    let mut short = config.clone();
    short.rules.history += 1;
    assert!(refused(&short, &scans, WRITER).contains("slot 0 does not fit"));
    let other = Writer { actor: 4, ..WRITER };
    assert!(refused(&config, &scans, other).contains("slot 0 does not fit"));
}
