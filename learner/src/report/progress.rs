//! A run's progress report: a line of `metrics.jsonl`, assembled from the counters of
//! its parts. A field added to a part appears in the line;
//! `metrics.rs` exports it to Prometheus.

use std::time::Instant;

use common::run::machine::resident_bytes;
use serde::Serialize;

use crate::actors::registry::ActorTotals;
use crate::batch::collate::CollateTotals;
use crate::replay::limiter::RowTotals;
use crate::replay::priorities::PriorityTotals;
use crate::replay::shards::ShardTotals;
use crate::report::rates::Rates;
use crate::training::stats::TrainStats;
use crate::training::stop::{Reached, StopRules};

/// The progress at one moment. Docs and formulas: docs/metrics.md.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    pub updates_total: u64,
    /// Seconds since the run started.
    pub elapsed_s: f64,
    /// Seconds since the first update of this process.
    pub training_s: Option<f64>,
    /// Resident memory of this process in bytes; 0 where unknown.
    pub resident_bytes: u64,
    pub over: bool,
    /// Seconds to the end at the current rates or by the time limit, if known.
    pub left_s: Option<f64>,
    /// Training has ended; actors and evaluators may still be running.
    #[serde(skip)]
    pub trained: bool,
    /// The train thread.
    #[serde(flatten)]
    pub train: TrainStats,
    /// The collate thread.
    #[serde(flatten)]
    pub collate: CollateTotals,
    /// New priorities.
    #[serde(flatten)]
    pub priorities: PriorityTotals,
    #[serde(flatten)]
    pub actors: ActorTotals,
    /// Rows and the limiter.
    #[serde(flatten)]
    pub rows: RowTotals,
    #[serde(flatten)]
    pub shards: ShardTotals,
    /// Rates and shares.
    #[serde(flatten)]
    pub pace: Pace,
}

impl Progress {
    /// A report of training alone; `began` is when this process started it.
    pub fn of_training(stats: &TrainStats, rules: &StopRules, began: Instant) -> Self {
        Self {
            updates_total: rules.updates(),
            elapsed_s: began.elapsed().as_secs_f64(),
            training_s: stats.first_update.map(|at| at.elapsed().as_secs_f64()),
            resident_bytes: resident_bytes(),
            train: stats.clone(),
            ..Self::default()
        }
    }

    /// Completes a report whose totals are those at `now`: rates, and the time left.
    pub fn complete(&mut self, now: Instant, rates: &mut Rates, rules: &StopRules) {
        rates.fill(now, self);
        self.left_s = rules.left_s(Reached {
            updates: (self.train.updates, self.pace.updates_per_s),
            episodes: (self.actors.episodes, self.pace.episodes_per_s),
            trained_s: self.training_s,
        });
    }
}

/// Rates and shares over the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pace {
    /// Updates per second.
    pub updates_per_s: f64,
    /// Environment steps per second, all actors.
    pub env_steps_per_s: f64,
    /// Finished episodes per second, all actors.
    #[serde(skip)]
    pub episodes_per_s: f64,
    /// Share of the time, 0 to 1, that the train thread waited for batches.
    pub train_wait_share: f64,
    /// Share of the time that the limiter blocked requests for batches.
    pub limited_share: f64,
    /// Share of the time that the collate thread was busy.
    pub collate_share: f64,
}
