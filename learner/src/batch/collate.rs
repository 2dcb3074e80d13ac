//! The collate thread: sampled columns → batches, between the sampler's tasks
//! and the train thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::ReplayConfig;
use common::run::throttle::Throttle;
use common::transition::columns::read_rows;
use common::transition::row::RowShape;
use crossbeam_channel::{Receiver, Sender};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;

use crate::batch::sampler::SampledRows;
use crate::batch::{Batch, Collator, SampledRow};
use crate::training::schedule;

/// Between two warnings about refused rows.
pub const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// Batches that lie ready for the train thread, at most.
pub const READY: usize = 2;

/// A batch ready for training.
#[derive(Debug)]
pub struct Ready {
    /// The batch; its buffers come back over the `free` channel.
    pub batch: Batch,
    /// How long the limiter held it back.
    pub limited: Duration,
}

/// What the collate thread met so far.
#[derive(Debug, Default)]
pub struct CollateCounts {
    /// Rows that no actor of this run can have made; left out.
    pub refused_rows: AtomicU64,
    /// Microseconds spent decoding and rendering.
    pub busy_us: AtomicU64,
}

/// Everything that the thread needs.
#[derive(Debug)]
pub struct Collate {
    /// Renders.
    pub collator: Collator,
    /// Shape of all rows.
    pub shape: RowShape,
    /// The importance weights' exponent.
    pub replay: ReplayConfig,
    /// Updates done and to do, for that exponent.
    pub updates: Arc<AtomicU64>,
    /// Updates to do.
    pub updates_total: u64,
    /// Looks of the augmentation.
    pub rng: ChaCha8Rng,
    /// Counters.
    pub counts: Arc<CollateCounts>,
    /// Warnings about refused rows.
    pub refusals: Throttle,
}

impl Collate {
    /// Runs until either side is gone.
    pub fn run(
        mut self,
        mut sampled: mpsc::Receiver<SampledRows>,
        free: &Receiver<Batch>,
        ready: &Sender<Ready>,
    ) {
        while let Some(rows) = sampled.blocking_recv() {
            let Ok(mut batch) = free.recv() else { return };
            let begin = Instant::now();
            let limited = rows.waited;
            let rows = self.decode(rows);
            if let Err(error) = self.collator.fill(&rows, &mut batch, &mut self.rng) {
                // Every row was checked; this is our own fault.
                tracing::error!(%error, "batch cannot be rendered");
                return;
            }
            let spent = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.counts.busy_us.fetch_add(spent, Ordering::Relaxed);
            if ready.send(Ready { batch, limited }).is_err() {
                return;
            }
        }
    }

    /// Rows with their importance weights (N·q)^−β over the largest of the
    /// batch; broken ones are left out, counted, and logged at intervals.
    fn decode(&mut self, sampled: SampledRows) -> Vec<SampledRow> {
        let beta = schedule::beta(
            &self.replay,
            self.updates.load(Ordering::Relaxed),
            self.updates_total,
        );
        let weights = importance_weights(&sampled.scaled, beta);
        let mut weights = weights.into_iter();
        let mut rows = Vec::with_capacity(sampled.rows());
        for part in sampled.parts {
            let part_weights: Vec<f32> = weights.by_ref().take(part.rows).collect();
            let decoded = match read_rows(&part.columns, part.rows, self.shape) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.refuse(part.rows, &error.to_string());
                    continue;
                }
            };
            for ((row, key), weight) in decoded.into_iter().zip(part.keys).zip(part_weights) {
                let row = SampledRow { row, key, weight };
                match self.collator.check(&row) {
                    Ok(()) => rows.push(row),
                    Err(error) => self.refuse(1, &error.to_string()),
                }
            }
        }
        rows
    }

    fn refuse(&mut self, rows: usize, why: &str) {
        let rows = rows as u64;
        let before = self.counts.refused_rows.fetch_add(rows, Ordering::Relaxed);
        if self.refusals.warning(Instant::now()).is_some() {
            tracing::warn!(refused_so_far = before + rows, why, "rows refused");
        }
    }
}

/// (N·q)^−β, divided by the largest of the batch (Schaul et al. 2016, §3.4).
#[must_use]
pub fn importance_weights(scaled: &[f64], beta: f64) -> Vec<f32> {
    let smallest = scaled.iter().copied().fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_possible_truncation, reason = "a weight in 0..=1")]
    scaled
        .iter()
        .map(|s| (s / smallest).powf(-beta) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_hand() {
        // N·q of 4, 1 and 0.25; the rarest row weighs 1.
        let w = importance_weights(&[4.0, 1.0, 0.25], 0.5);
        assert_eq!(w, [0.25, 0.5, 1.0]);
        assert_eq!(importance_weights(&[4.0, 1.0], 0.0), [1.0, 1.0]);
        assert_eq!(importance_weights(&[], 1.0), Vec::<f32>::new());
    }

    /// With weights 1/(N·q) the mean over samples is the mean over rows,
    /// whatever the priorities and however the shards differ: the estimator
    /// Σ w·x / n is unbiased.
    #[test]
    fn full_correction_gives_the_plain_mean() {
        // Two shards with masses 6 and 2; values x of their rows.
        let rows = [(4.0, 0, 1.0), (2.0, 0, 5.0), (1.0, 1, 9.0), (1.0, 1, 3.0)];
        let (masses, total) = ([6.0, 2.0], 8.0);
        let expected: f64 = rows.iter().map(|r| r.2).sum::<f64>() / 4.0;
        // Expectation of w·x under q, with shares from stale masses too.
        for shares in [[6.0 / total, 2.0 / total], [0.5, 0.5], [0.1, 0.9]] {
            let mean: f64 = rows
                .iter()
                .map(|&(p, shard, x)| {
                    let q = shares[shard] * p / masses[shard];
                    q * x / (4.0 * q)
                })
                .sum();
            assert!((mean - expected).abs() < 1e-12);
        }
    }
}
