//! Results of an evaluation: tables for people and programs, pictures, and files
//! for other programs.

mod curve;
mod exports;
mod files;
mod html;
mod pictures;
mod results;
mod tables;
mod trajectories;
pub mod verdict;

pub use exports::{ExportArgs, LEGEND, export_endings, write_exports};
pub use files::{PREDICTIONS, Prediction, predictions_json, write_json, write_predictions};
pub use html::write_report;
pub use pictures::write_pictures;
pub use results::write_results;
pub use tables::{error_table, failure_lines, prediction_table};
pub use trajectories::write_trajectories;
pub use verdict::{baseline_verdict, validation_line, weights_line};

use std::sync::Arc;

use actor::evaluation::evaluate::StartResult;
use actor::evaluation::summary::{Confidence, LandmarkSummary, ScanPrediction};
use common::environment::starts::EvaluationStarts;
use common::imaging::scan::Scan;
use serde::Serialize;

use crate::input::weights::{Loaded, Origin};
use crate::output::outputs::FilePlan;

/// Printed in every output.
pub const NOTICE: &str = "not a medical device: for research only";

/// Printed wherever the agreement of starts is.
pub const AGREEMENT: &str = "agreement of starts is not accuracy: the dispersion is how far their \
    end positions lie from the prediction, and all of them can end at one wrong position";

/// The results of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Results<'a> {
    pub trajectories: &'a [StartResult],
    pub predictions: &'a [ScanPrediction],
    pub scans: &'a [Arc<Scan>],
    pub loaded: &'a Loaded,
    pub starts: &'a EvaluationStarts,
    pub files: &'a FilePlan,
}

impl<'a> Results<'a> {
    /// The trajectories, ordered by start, scan as given, and agent.
    pub fn ordered(&self) -> Vec<&'a StartResult> {
        let mut order: Vec<&StartResult> = self.trajectories.iter().collect();
        order.sort_by_key(|r| (r.start_index, r.scan, r.agent));
        order
    }
}

/// The position of an agent's landmark in a scan (voxel), if it is known.
pub fn landmark(scan: &Scan, agent: u16) -> Option<[f64; 3]> {
    scan.landmarks.get(usize::from(agent)).copied().flatten()
}

/// The name of an agent's landmark, or the agent's number.
pub fn name(names: &[String], agent: u16) -> String {
    let name = names.get(usize::from(agent));
    name.cloned().unwrap_or_else(|| agent.to_string())
}

/// `summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub notice: &'static str,
    /// What dispersions mean.
    pub agreement: &'static str,
    pub landmarl: &'static str,
    pub weights: Origin,
    pub scans: Vec<String>,
    pub starts: String,
    pub seed: u64,
    pub timing: Timing,
    /// Mean over scans and landmarks of the consensus error.
    pub mean_error_mm: Option<f64>,
    pub mean_error_voxels: Option<f64>,
    /// Mean over single starts.
    pub mean_start_error_mm: Option<f64>,
    /// The mean-position baseline on the same scans.
    pub baseline_error_mm: Option<f64>,
    /// The source of the baseline.
    pub baseline_from: Option<String>,
    pub landmarks: Vec<LandmarkSummary>,
    pub all: LandmarkSummary,
    /// How well the dispersion of the trajectories predicts the error; `None` with too few
    /// predictions.
    pub confidence: Option<Confidence>,
    /// Threshold for `failures`.
    pub failure_mm: f64,
    pub failures: Vec<Failure>,
}

/// Duration of the episodes: observations and networks, without reading scans.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    pub inference_s: f64,
    /// Steps of all agents in total.
    pub steps: u64,
}

/// A prediction with an error above the threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub scan: String,
    pub landmark: String,
    pub error_mm: f64,
    pub dispersion_mm: f64,
}
