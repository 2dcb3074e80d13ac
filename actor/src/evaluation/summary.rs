//! Summary of many trajectories: one consensus per scan and landmark, errors per
//! landmark, and those of the mean-position baseline.

use std::sync::Arc;

use common::environment::End;
use common::imaging::scan::Scan;
use common::report::consensus::{consensus, median};
use common::report::statistics::{
    CORRELATION_MIN, mean_interval, percentile, share_within, spearman, spearman_interval,
};
use serde::{Deserialize, Serialize};

use crate::evaluation::evaluate::{StartResult, distance_voxels};
use crate::rollout::group::landmark;

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
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 results")]
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

/// A scan, and an error there in mm and in voxels, where they are known.
type ScanError = (usize, Option<f64>, Option<f64>);

impl Errors {
    /// `None` without known errors.
    fn of(all: impl Iterator<Item = ScanError>) -> Option<Self> {
        let known = all.filter_map(|(scan, mm, voxels)| Some((scan, mm?, voxels?)));
        let known: Vec<(usize, f64, f64)> = known.collect();
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

/// How well the dispersion of a consensus's trajectories predicts its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Spearman's rank correlation of dispersion and error: 1 where the dispersion
    /// ranks the errors, 0 where it is uninformative.
    pub spearman: f64,
    /// Its 95 % interval over scans drawn anew.
    pub interval: Option<[f64; 2]>,
    /// Predictions that it was computed from.
    pub predictions: usize,
}

impl Confidence {
    /// `None` with fewer than [`CORRELATION_MIN`] predictions, or where dispersions or errors
    /// are all alike.
    fn of(predictions: &[ScanPrediction]) -> Option<Self> {
        let known = predictions.iter().filter(|a| a.trajectories > 1);
        let known: Vec<(usize, (f64, f64))> = known
            .filter_map(|a| Some((a.scan, (a.dispersion_mm, a.error_mm?))))
            .collect();
        let pairs: Vec<(f64, f64)> = known.iter().map(|k| k.1).collect();
        if pairs.len() < CORRELATION_MIN {
            return None;
        }
        Some(Self {
            spearman: spearman(&pairs)?,
            interval: spearman_interval(&by_scan(known.into_iter())),
            predictions: pairs.len(),
        })
    }
}

/// One landmark in one scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanPrediction {
    /// Index into the evaluated scans.
    pub scan: usize,
    pub scan_name: String,
    /// The agent (landmark index).
    pub agent: u16,
    /// The consensus of its trajectories (voxel).
    pub position: [f64; 3],
    /// Mean distance (mm) between it and the trajectories' endpoints at all scales.
    pub dispersion_mm: f64,
    /// Trajectories that it was averaged from. This is not agreement: where all end far from
    /// one another, all count.
    pub inliers: usize,
    /// All trajectories.
    pub trajectories: usize,
    /// Its distance to the landmark in mm, where that is known.
    pub error_mm: Option<f64>,
    /// The same in voxels.
    pub error_voxels: Option<f64>,
    /// The mean-position baseline in this scan (voxel), where there is one.
    pub baseline: Option<[f64; 3]>,
    /// The baseline's distance to the landmark in mm.
    pub baseline_error_mm: Option<f64>,
    /// The same in voxels.
    pub baseline_error_voxels: Option<f64>,
}

/// One landmark over all scans that show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LandmarkSummary {
    /// The agent (landmark index); `None` for all landmarks together.
    pub agent: Option<u16>,
    pub name: String,
    /// Over single starts.
    #[serde(alias = "walks")]
    pub starts: Option<Errors>,
    /// Over the consensus of each scan's trajectories.
    pub consensus: Option<Errors>,
    /// Of the mean-position baseline.
    #[serde(alias = "guess")]
    pub baseline: Option<Errors>,
    /// Share of the trajectories that ended by oscillation, not at the step limit; it says
    /// nothing about where they ended.
    pub converged: f64,
    /// Mean steps per trajectory.
    pub steps: f64,
}

/// Everything about one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Per scan and landmark.
    pub predictions: Vec<ScanPrediction>,
    pub landmarks: Vec<LandmarkSummary>,
    /// Over all landmarks.
    pub all: LandmarkSummary,
    /// Whether dispersions predict errors.
    pub confidence: Option<Confidence>,
}

/// Summarises trajectories in `scans`; `names` per agent index, `baseline` the
/// mean-position baseline in RAS mm per agent, as [`common::imaging::dataset::mean_landmarks`]
/// gives it (empty where no training scans are known).
#[must_use]
pub fn summarise(
    results: &[StartResult],
    scans: &[Arc<Scan>],
    names: &[String],
    baseline: &[Option<[f64; 3]>],
) -> Summary {
    let mut pairs: Vec<(usize, u16)> = results.iter().map(|r| (r.scan, r.agent)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let predictions: Vec<ScanPrediction> = pairs
        .into_iter()
        .filter_map(|(scan, agent)| {
            let world = baseline.get(usize::from(agent)).copied().flatten();
            prediction(results, scan, &scans[scan], agent, world)
        })
        .collect();
    let mut agents: Vec<u16> = results.iter().map(|r| r.agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let landmarks = agents
        .into_iter()
        .map(|agent| {
            let name = names.get(usize::from(agent)).cloned();
            let name = name.unwrap_or_else(|| agent.to_string());
            landmark_summary(results, &predictions, Some(agent), name)
        })
        .collect();
    let all = landmark_summary(results, &predictions, None, "all".into());
    Summary {
        confidence: Confidence::of(&predictions),
        predictions,
        landmarks,
        all,
    }
}

fn prediction(
    results: &[StartResult],
    index: usize,
    scan: &Scan,
    agent: u16,
    baseline: Option<[f64; 3]>,
) -> Option<ScanPrediction> {
    let own = results.iter();
    let own = own.filter(|r| r.scan == index && r.agent == agent);
    let predicted: Vec<[f64; 3]> = own.clone().map(|r| r.prediction).collect();
    let endpoints: Vec<[f64; 3]> = own.flat_map(|r| r.scale_endpoints.clone()).collect();
    let agreed = consensus(&predicted, &endpoints, scan.geometry.spacing_mm)?;
    let target = landmark(scan, agent);
    let baseline = baseline.and_then(|world| scan.geometry.affine.to_voxel(world));
    let mm = |p| target.map(|t| scan.geometry.distance_mm(p, t));
    let voxels = |p| target.map(|t| distance_voxels(p, t));
    Some(ScanPrediction {
        scan: index,
        scan_name: scan.name.clone(),
        agent,
        position: agreed.position,
        dispersion_mm: agreed.dispersion_mm,
        inliers: agreed.inliers,
        trajectories: predicted.len(),
        error_mm: mm(agreed.position),
        error_voxels: voxels(agreed.position),
        baseline,
        baseline_error_mm: baseline.and_then(mm),
        baseline_error_voxels: baseline.and_then(voxels),
    })
}

fn landmark_summary(
    results: &[StartResult],
    predictions: &[ScanPrediction],
    agent: Option<u16>,
    name: String,
) -> LandmarkSummary {
    let mine = |a: u16| agent.is_none_or(|only| only == a);
    let results: Vec<&StartResult> = results.iter().filter(|r| mine(r.agent)).collect();
    let predictions = predictions.iter().filter(|p| mine(p.agent));
    let single = results.iter().map(|r| (r.scan, r.error_mm, r.error_voxels));
    let agreed = predictions.clone();
    let agreed = agreed.map(|p| (p.scan, p.error_mm, p.error_voxels));
    let baseline = predictions.map(|p| (p.scan, p.baseline_error_mm, p.baseline_error_voxels));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 results")]
    let share = |sum: usize| sum as f64 / results.len().max(1) as f64;
    LandmarkSummary {
        agent,
        name,
        starts: Errors::of(single),
        consensus: Errors::of(agreed),
        baseline: Errors::of(baseline),
        converged: share(results.iter().filter(|r| r.end == End::Oscillation).count()),
        steps: share(results.iter().map(|r| usize::from(r.steps)).sum()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::scan_with;
    use common::imaging::dataset::mean_landmarks;

    fn result(scan: usize, prediction: [f64; 3], truth: [f64; 3]) -> StartResult {
        let error = distance_voxels(prediction, truth);
        StartResult {
            scan,
            agent: 0,
            start_index: 0,
            start: [0; 3],
            prediction,
            scale_endpoints: Vec::new(),
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

    /// Four predictions without any relation give a correlation of 1 or −1 in two of 24 orders.
    #[test]
    fn no_correlation_is_reported_for_fewer_than_twenty_predictions() {
        let prediction = |number: u32| ScanPrediction {
            scan: number as usize,
            scan_name: number.to_string(),
            agent: 0,
            position: [0.0; 3],
            dispersion_mm: f64::from(number),
            inliers: 2,
            trajectories: 2,
            error_mm: Some(f64::from(number)),
            error_voxels: None,
            baseline: None,
            baseline_error_mm: None,
            baseline_error_voxels: None,
        };
        for (count, expected) in [(4, None), (19, None), (20, Some(1.0))] {
            let predictions: Vec<_> = (0..count).map(prediction).collect();
            let found = Confidence::of(&predictions);
            assert_eq!(found.map(|c| c.spearman), expected, "{count} predictions");
        }
    }

    #[test]
    fn a_summary_has_single_starts_consensus_and_baseline() {
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
        let mut results = vec![result(0, truth[0], truth[0]); 3];
        results.push(result(0, [20.0, 10.0, 10.0], truth[0]));
        results.push(result(1, [14.0, 11.0, 10.0], truth[1]));
        let baseline = mean_landmarks(&scans);
        assert_eq!(baseline, [Some([2.0 * 12.0 - 3.0, 2.0 * 10.0 + 5.0, 20.0])]);
        let s = summarise(&results, &scans, &["AC".into()], &baseline);
        assert_eq!(s.predictions[0].position, truth[0]);
        let [first, second] = [&s.predictions[0], &s.predictions[1]];
        assert_eq!((first.inliers, first.trajectories), (3, 4));
        assert_eq!(first.error_mm, Some(0.0));
        assert_eq!(second.error_mm, Some(2.0));
        assert_eq!(second.error_voxels, Some(1.0));
        let l = &s.landmarks[0];
        assert_eq!(l.name, "AC");
        assert_eq!(l.starts.unwrap().mm.mean, (20.0 + 2.0) / 5.0);
        assert_eq!(l.consensus.unwrap().voxels.mean, 0.5);
        // Two voxels of 2 mm in both scans.
        assert_eq!(l.baseline.unwrap().mm.mean, 4.0);
        assert_eq!((l.converged, l.steps), (1.0, 10.0));
        assert_eq!(s.all.consensus, l.consensus);
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), s);
    }
}
