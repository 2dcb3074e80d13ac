//! Results of an evaluation: tables for people and programs, pictures, and files
//! for other programs.

mod curve;
mod exports;
mod files;
mod html;
mod pictures;
mod results;
mod stem;
mod tables;
mod trajectories;

pub use exports::{ExportArgs, write_exports};
pub use files::{Prediction, predictions, write_predictions, write_summary};
pub use html::write_report;
pub use pictures::write_pictures;
pub use results::write_results;
pub use stem::stem;
pub use tables::{error_table, failure_lines, prediction_table};
pub use trajectories::write_trajectories;

use serde::Serialize;

use crate::input::weights::Origin;

/// Printed in every output.
pub const NOTICE: &str = "not a medical device: for research only";

/// `summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub notice: &'static str,
    pub landmarl: &'static str,
    pub weights: Origin,
    pub scans: Vec<String>,
    pub starts: String,
    pub seed: u64,
    pub timing: Timing,
    /// Mean over scans and landmarks of the consensus error.
    pub mean_error_mm: Option<f64>,
    pub mean_error_voxels: Option<f64>,
    /// Mean over single walks.
    pub mean_walk_error_mm: Option<f64>,
    /// The mean-position baseline on the same scans.
    pub constant_guess_mm: Option<f64>,
    /// The source of the baseline.
    pub constant_guess_from: Option<String>,
    pub landmarks: Vec<actor::evaluation::summary::LandmarkSummary>,
    pub all: actor::evaluation::summary::LandmarkSummary,
    /// Whether the dispersion of the trajectories predicts the error.
    pub confidence: Option<actor::evaluation::summary::Confidence>,
    /// Threshold for `failures`.
    pub failure_mm: f64,
    pub failures: Vec<Failure>,
}

/// Duration of the episodes: observations and networks, without reading scans.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    pub walk_s: f64,
    /// Steps of all agents in total.
    pub steps: u64,
}

/// A prediction with an error above the threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub scan: String,
    pub landmark: String,
    pub error_mm: f64,
    pub spread_mm: f64,
}
