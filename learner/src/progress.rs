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
    /// Actors whose lease holds.
    pub actors_alive: usize,
    /// Shards that answer.
    pub shards_alive: usize,
    /// Shards of the run.
    pub shards: usize,
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

/// Resident memory of this process in bytes, from the kernel; 0 where it does
/// not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
