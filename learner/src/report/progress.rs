//! What a run tells about itself while it goes on.

use serde::Serialize;

/// A moment of a run. Docs and formulas: docs/metrics.md.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// Updates done.
    pub updates: u64,
    /// Updates to do.
    pub updates_total: u64,
    /// Seconds since the run began.
    pub elapsed_s: f64,
    /// Loss of the last update.
    pub loss: f64,
    /// Mean |TD error| of the last batch's active agents.
    pub td_mean: f64,
    /// Mean Q-value of the last batch's actions.
    pub q_mean: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Exponent of the importance weights.
    pub beta: f64,
    /// Environment steps, all actors and lives.
    pub env_steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Mean error (finest steps) of the episodes that ended lately.
    pub episode_error: Option<f64>,
    /// Rows in the living shards.
    pub rows: u64,
    /// Rows inserted and sampled so far.
    pub inserted: u64,
    /// Rows sampled so far.
    pub sampled: u64,
    /// Their ratio.
    pub samples_per_insert: f64,
    /// Why a side waits, or "open".
    pub limiter: String,
    /// Sampling, inserting: whether the limiter or missing rows hold it back now.
    #[serde(skip)]
    pub blocked: (bool, bool),
    /// Actors whose lease holds.
    pub actors_alive: usize,
    /// Actor ids whose lease has expired and that nobody has taken again.
    pub actors_lost: usize,
    /// Actors that there should be.
    #[serde(skip)]
    pub actors_expected: usize,
    /// Shards that answer.
    pub shards_alive: usize,
    /// Shards of the run.
    pub shards: usize,
    /// Whether each of them answers, in the order of their numbers.
    #[serde(skip)]
    pub shards_up: Vec<bool>,
    /// Version of the newest weights.
    pub weights_version: u64,
    /// Seconds that the train thread waited for batches.
    pub train_wait_s: f64,
    /// Seconds that batches were held back by the limiter, summed over batches.
    pub limited_s: f64,
    /// Seconds of decoding and rendering.
    pub collate_busy_s: f64,
    /// Updates per second lately.
    pub updates_per_s: f64,
    /// Environment steps per second lately.
    pub env_steps_per_s: f64,
    /// New priorities that reached their row.
    #[serde(skip)]
    pub applied_priorities: u64,
    /// Part of the time, lately, that the train thread waited for batches.
    pub train_wait_share: f64,
    /// Part of the time, lately, that requests for batches were held back by the limiter.
    pub limited_share: f64,
    /// Part of the time, lately, that the collate thread worked.
    pub collate_share: f64,
    /// Part of the time, lately, that living actors waited for the shards.
    pub actors_blocked_share: f64,
    /// Seconds since the first update of this process.
    pub training_s: Option<f64>,
    /// Rows that actors sent, by how many versions their weights were behind
    /// the newest: at most 1, 3, 10, 30, and more.
    pub rows_by_weights_age: [u64; 5],
    /// New priorities that came too late for their row.
    pub stale_priorities: u64,
    /// New priorities dropped on the way.
    pub dropped_priorities: u64,
    /// Rows refused as broken.
    pub refused_rows: u64,
    /// Rows that actors gave up because a shard was away.
    pub dropped_rows: u64,
    /// Checkpoints that could not be written.
    pub failed_checkpoints: u64,
    /// Resident memory of this process in bytes; 0 where unknown.
    pub resident_bytes: u64,
    /// The run is over.
    pub over: bool,
}
