//! Training's report after each update.

use std::time::{Duration, Instant};

use common::config::Config;
use serde::Serialize;

use crate::training::schedule;
use crate::training::trainer::StepReport;

/// The last update, and totals of this process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainStats {
    pub updates: u64,
    /// Loss of the last update.
    pub loss: f64,
    /// Mean |TD error| of the last update.
    pub td_mean: f64,
    /// Mean Q-value of the last update.
    pub q_mean: f64,
    /// Largest absolute Q-value that the rules allow.
    #[serde(skip)]
    pub q_max: f64,
    /// Gradient norm of the last update, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last update.
    pub lr: f64,
    /// Exponent of the importance weights.
    pub beta: f64,
    pub train_wait_s: f64,
    /// Seconds that batches were held back by the limiter, summed over batches.
    pub limited_s: f64,
    pub weights_version: u64,
    pub failed_checkpoints: u64,
    /// When the first update of this process began.
    #[serde(skip)]
    pub first_update: Option<Instant>,
}

impl TrainStats {
    /// Records the report of the update that made the total `updates`.
    pub fn updated(&mut self, updates: u64, report: &StepReport, config: &Config) {
        self.updates = updates;
        self.loss = report.loss;
        self.td_mean = report.td_mean();
        self.q_mean = report.q_mean;
        self.q_max = config.q_max();
        self.grad_norm = report.grad_norm;
        self.lr = report.lr;
        self.beta = schedule::beta(&config.replay, updates, config.learner.updates);
    }

    /// Time since the first update of this process began.
    pub fn trained(&self) -> Duration {
        self.first_update.map_or(Duration::ZERO, |at| at.elapsed())
    }
}
