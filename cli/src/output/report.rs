//! What an evaluation leaves behind: tables for people and programs, pictures,
//! files for other programs.

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

/// Stands in every output.
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
    /// How long the walks took.
    pub timing: Timing,
    /// Mean over scans and landmarks of the consensus error.
    pub mean_error_mm: Option<f64>,
    pub mean_error_voxels: Option<f64>,
    /// Mean over single walks.
    pub mean_walk_error_mm: Option<f64>,
    /// The constant guess (mean of the training landmarks) on the same scans.
    pub constant_guess_mm: Option<f64>,
    /// Where the constant guess comes from.
    pub constant_guess_from: Option<String>,
    pub landmarks: Vec<actor::evaluation::summary::LandmarkSummary>,
    pub all: actor::evaluation::summary::LandmarkSummary,
    /// Whether the spread of the walks tells the error.
    pub confidence: Option<actor::evaluation::summary::Confidence>,
    /// Answers farther off than `failure_mm`.
    pub failure_mm: f64,
    pub failures: Vec<Failure>,
}

/// How long walks took: rendering and networks, not reading scans.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    pub walk_s: f64,
    /// Steps of all agents.
    pub steps: u64,
}

/// One answer that is far off.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    pub scan: String,
    pub landmark: String,
    pub error_mm: f64,
    pub spread_mm: f64,
}
