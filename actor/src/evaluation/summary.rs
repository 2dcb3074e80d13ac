//! Summary of many trajectories: one consensus per scan and landmark, errors per
//! landmark, and those of the mean-position baseline.

use std::sync::Arc;

use common::environment::End;
use common::imaging::scan::Scan;
use common::report::consensus::{consensus, median};
use common::report::statistics::{
    mean_interval, percentile, share_within, spearman, spearman_interval,
};
use serde::{Deserialize, Serialize};

use crate::evaluation::evaluate::{WalkResult, distance_voxels};

/// Errors of several predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorStats {
    pub count: usize,
    pub mean: f64,
    pub median: f64,
    /// Standard deviation over `count − 1`, as published tables have it; 0 for one error.
    pub std: f64,
    /// 95th percentile.
    pub p95: f64,
    pub max: f64,
    /// Shares of those that are at most 1, 2, 3 and 4.
    pub within: [f64; 4],
}

impl ErrorStats {
    /// `None` without errors.
    #[must_use]
    pub fn of(errors: &[f64]) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 walks")]
        let (n, degrees) = (
            errors.len() as f64,
            errors.len().saturating_sub(1).max(1) as f64,
        );
        let mean = errors.iter().sum::<f64>() / n;
        let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / degrees;
        Some(Self {
            count: errors.len(),
            mean,
            median: median(errors.to_vec()),
            std: variance.sqrt(),
            p95: percentile(errors, 0.95),
            max: errors.iter().copied().fold(0.0, f64::max),
            within: [1.0, 2.0, 3.0, 4.0].map(|limit| share_within(errors, limit)),
        })
    }
}

/// The same errors in mm and in voxels of our grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Millimetres.
    pub mm: ErrorStats,
    /// Voxels (Euclidean distance in voxel units).
    pub voxels: ErrorStats,
    /// Where 95 % of the means in mm lie when scans are drawn anew (bootstrap).
    pub mean_interval_mm: Option<[f64; 2]>,
}

/// An error in mm and in voxels, and the scan that it was made in.
type Known = (usize, f64, f64);

impl Errors {
    fn of(known: &[Known]) -> Option<Self> {
        let (mm, voxels): (Vec<f64>, Vec<f64>) = known.iter().map(|k| (k.1, k.2)).unzip();
        Some(Self {
            mm: ErrorStats::of(&mm)?,
            voxels: ErrorStats::of(&voxels)?,
            mean_interval_mm: mean_interval(&by_scan(known.iter().map(|k| (k.0, k.1)))),
        })
    }
}

/// The values of each scan.
fn by_scan<T>(all: impl Iterator<Item = (usize, T)>) -> Vec<Vec<T>> {
    let mut groups = std::collections::BTreeMap::<usize, Vec<T>>::new();
    for (scan, value) in all {
        groups.entry(scan).or_default().push(value);
    }
    groups.into_values().collect()
}

/// How well the spread of a consensus's trajectories predicts its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Spearman's rank correlation of spread and error: 1 where the spread ranks
    /// the errors, 0 where it is uninformative.
    pub spearman: f64,
    /// Its 95 % interval over scans drawn anew.
    pub interval: Option<[f64; 2]>,
    /// Answers that it was computed from.
    pub answers: usize,
}

impl Confidence {
    /// `None` with too few answers, or where spreads or errors are all alike.
    fn of(answers: &[ScanAnswer]) -> Option<Self> {
        let known = answers.iter().filter(|a| a.walks > 1);
        let known: Vec<(usize, (f64, f64))> = known
            .filter_map(|a| Some((a.scan, (a.spread_mm, a.error_mm?))))
            .collect();
        let pairs: Vec<(f64, f64)> = known.iter().map(|k| k.1).collect();
        Some(Self {
            spearman: spearman(&pairs)?,
            interval: spearman_interval(&by_scan(known.into_iter())),
            answers: pairs.len(),
        })
    }
}

/// One landmark in one scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanAnswer {
    /// Index into the evaluated scans.
    pub scan: usize,
    pub scan_name: String,
    /// The agent (landmark index).
    pub agent: u16,
    /// The consensus of its trajectories (voxel).
    pub position: [f64; 3],
    /// Mean distance (mm) between it and the trajectories' endpoints at all scales.
    pub spread_mm: f64,
    /// Walks that it was averaged from …
    pub inliers: usize,
    /// … of so many.
    pub walks: usize,
    /// Its distance to the landmark in mm, where that is known.
    pub error_mm: Option<f64>,
    /// The same in voxels.
    pub error_voxels: Option<f64>,
    /// The mean-position baseline in this scan (voxel), where there is one.
    pub guess: Option<[f64; 3]>,
    /// The baseline's distance to the landmark in mm.
    pub guess_error_mm: Option<f64>,
    /// The same in voxels.
    pub guess_error_voxels: Option<f64>,
}

/// One landmark over all scans that show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LandmarkSummary {
    /// The agent (landmark index); `None` for all landmarks together.
    pub agent: Option<u16>,
    pub name: String,
    /// Over single trajectories.
    pub walks: Option<Errors>,
    /// Over the consensus of each scan's trajectories.
    pub consensus: Option<Errors>,
    /// Of the mean-position baseline.
    pub guess: Option<Errors>,
    /// Share of the trajectories that ended by oscillation, not at the step limit.
    pub converged: f64,
    /// Mean steps per trajectory.
    pub steps: f64,
}

/// Everything about one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Per scan and landmark.
    pub answers: Vec<ScanAnswer>,
    pub landmarks: Vec<LandmarkSummary>,
    /// Over all landmarks.
    pub all: LandmarkSummary,
    /// Whether spreads predict errors.
    pub confidence: Option<Confidence>,
}

/// Summarises trajectories in `scans`; `names` per agent index, `guess` the
/// mean-position baseline in RAS mm per agent, as [`common::imaging::dataset::mean_landmarks`]
/// gives it (empty where no training scans are known).
#[must_use]
pub fn summarise(
    walks: &[WalkResult],
    scans: &[Arc<Scan>],
    names: &[String],
    guess: &[Option<[f64; 3]>],
) -> Summary {
    let mut pairs: Vec<(usize, u16)> = walks.iter().map(|w| (w.scan, w.agent)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let answers: Vec<ScanAnswer> = pairs
        .into_iter()
        .filter_map(|(scan, agent)| {
            let world = guess.get(usize::from(agent)).copied().flatten();
            answer(walks, scan, &scans[scan], agent, world)
        })
        .collect();
    let mut agents: Vec<u16> = walks.iter().map(|w| w.agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let landmarks = agents
        .into_iter()
        .map(|agent| {
            let name = names
                .get(usize::from(agent))
                .cloned()
                .unwrap_or_else(|| agent.to_string());
            landmark(walks, &answers, Some(agent), name)
        })
        .collect();
    let all = landmark(walks, &answers, None, "all".into());
    Summary {
        confidence: Confidence::of(&answers),
        answers,
        landmarks,
        all,
    }
}

fn answer(
    walks: &[WalkResult],
    index: usize,
    scan: &Scan,
    agent: u16,
    guess: Option<[f64; 3]>,
) -> Option<ScanAnswer> {
    let own = walks.iter().filter(|w| w.scan == index && w.agent == agent);
    let said: Vec<[f64; 3]> = own.clone().map(|w| w.answer).collect();
    let stops: Vec<[f64; 3]> = own.flat_map(|w| w.stops.iter().copied()).collect();
    let agreed = consensus(&said, &stops, scan.geometry.spacing_mm)?;
    let target = scan.landmarks.get(usize::from(agent)).copied().flatten();
    let guess = guess.and_then(|world| scan.geometry.affine.to_voxel(world));
    let mm = |p| target.map(|t| scan.geometry.distance_mm(p, t));
    let voxels = |p| target.map(|t| distance_voxels(p, t));
    Some(ScanAnswer {
        scan: index,
        scan_name: scan.name.clone(),
        agent,
        position: agreed.position,
        spread_mm: agreed.spread_mm,
        inliers: agreed.inliers,
        walks: said.len(),
        error_mm: mm(agreed.position),
        error_voxels: voxels(agreed.position),
        guess,
        guess_error_mm: guess.and_then(mm),
        guess_error_voxels: guess.and_then(voxels),
    })
}

fn landmark(
    walks: &[WalkResult],
    answers: &[ScanAnswer],
    agent: Option<u16>,
    name: String,
) -> LandmarkSummary {
    let mine = |a: u16| agent.is_none_or(|only| only == a);
    let walks: Vec<&WalkResult> = walks.iter().filter(|w| mine(w.agent)).collect();
    let answers: Vec<&ScanAnswer> = answers.iter().filter(|a| mine(a.agent)).collect();
    let errors = |all: Vec<(usize, Option<f64>, Option<f64>)>| {
        let known: Vec<Known> = all
            .into_iter()
            .filter_map(|(scan, mm, voxels)| Some((scan, mm?, voxels?)))
            .collect();
        Errors::of(&known)
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 walks")]
    let share = |sum: usize| sum as f64 / walks.len().max(1) as f64;
    LandmarkSummary {
        agent,
        name,
        walks: errors(
            walks
                .iter()
                .map(|w| (w.scan, w.error_mm, w.error_voxels))
                .collect(),
        ),
        consensus: errors(
            answers
                .iter()
                .map(|a| (a.scan, a.error_mm, a.error_voxels))
                .collect(),
        ),
        guess: errors(
            answers
                .iter()
                .map(|a| (a.scan, a.guess_error_mm, a.guess_error_voxels))
                .collect(),
        ),
        converged: share(walks.iter().filter(|w| w.end == End::Oscillation).count()),
        steps: share(walks.iter().map(|w| usize::from(w.steps)).sum()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::scan_with;
    use common::imaging::dataset::mean_landmarks;

    fn walk(scan: usize, answer: [f64; 3], truth: [f64; 3]) -> WalkResult {
        let error = distance_voxels(answer, truth);
        WalkResult {
            scan,
            agent: 0,
            start_index: 0,
            start: [0; 3],
            answer,
            stops: Vec::new(),
            end: End::Oscillation,
            steps: 10,
            error_mm: Some(error * 2.0),
            error_voxels: Some(error),
            trajectory: None,
        }
    }

    #[test]
    fn statistics_of_known_errors() {
        let s = ErrorStats::of(&[1.0, 2.0, 3.0, 10.0]).unwrap();
        assert_eq!((s.count, s.mean, s.median, s.max), (4, 4.0, 2.5, 10.0));
        assert!((s.std - (50.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(ErrorStats::of(&[2.0]).unwrap().std, 0.0);
        assert!(ErrorStats::of(&[]).is_none());
    }

    #[test]
    fn consensus_and_guess_stand_beside_the_walks() {
        let truth = [[10.0, 10.0, 10.0], [14.0, 10.0, 10.0]];
        let scan = |p, dims_mm| {
            let mut scan = (*scan_with(&[Some(p)])).clone();
            scan.geometry.spacing_mm = [dims_mm; 3];
            for (axis, row) in scan.geometry.affine.rows.iter_mut().enumerate() {
                row[axis] = dims_mm;
            }
            Arc::new(scan)
        };
        let scans = [scan(truth[0], 2.0), scan(truth[1], 2.0)];
        // One outlier among the trajectories of the first scan.
        let mut walks = vec![walk(0, truth[0], truth[0]); 3];
        walks.push(walk(0, [20.0, 10.0, 10.0], truth[0]));
        walks.push(walk(1, [14.0, 11.0, 10.0], truth[1]));
        let guess = mean_landmarks(&scans);
        assert_eq!(guess, [Some([2.0 * 12.0 - 3.0, 2.0 * 10.0 + 5.0, 20.0])]);
        let s = summarise(&walks, &scans, &["AC".into()], &guess);
        assert_eq!(s.answers[0].position, truth[0]);
        assert_eq!(
            (
                s.answers[0].inliers,
                s.answers[0].walks,
                s.answers[0].error_mm
            ),
            (3, 4, Some(0.0))
        );
        assert_eq!(
            (s.answers[1].error_mm, s.answers[1].error_voxels),
            (Some(2.0), Some(1.0))
        );
        let l = &s.landmarks[0];
        assert_eq!(l.name, "AC");
        assert_eq!(l.walks.unwrap().mm.mean, (20.0 + 2.0) / 5.0);
        assert_eq!(l.consensus.unwrap().voxels.mean, 0.5);
        assert_eq!(
            l.guess.unwrap().mm.mean,
            4.0,
            "two voxels of 2 mm in both scans"
        );
        assert_eq!((l.converged, l.steps), (1.0, 10.0));
        assert_eq!(s.all.consensus, l.consensus);
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), s);
    }
}
