//! The collate thread, between the sampler's tasks and the train thread: turns
//! sampled rows into batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::ReplayConfig;
use common::run::throttle::Throttle;
use common::transition::row::{Row, RowShape};
use crossbeam_channel::{Receiver, Sender};
use proto::messages::sample::RowKey;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::batch::sampler::SampledRows;
use crate::batch::{Batch, Collator, FillError, SampledRow};
use crate::training::schedule;

/// Interval between warnings about refused rows.
pub const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum number of batches that wait for the train thread.
pub const READY: usize = 2;

#[derive(Debug)]
pub struct Ready {
    /// The batch; its buffers return over the `free` channel.
    pub batch: Batch,
    /// How long the limiter delayed it.
    pub limited: Duration,
}

/// Counters of the collate thread.
#[derive(Debug, Default)]
pub struct CollateCounts {
    /// Rows that no actor of this run can have produced; skipped.
    pub refused_rows: AtomicU64,
    /// Microseconds spent decoding and rendering.
    pub busy_us: AtomicU64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct CollateTotals {
    /// Rows that no actor of this run can have produced.
    pub refused_rows: u64,
    /// Seconds spent decoding and rendering.
    pub collate_busy_s: f64,
}

impl CollateCounts {
    /// The current totals.
    pub fn totals(&self) -> CollateTotals {
        let busy = Duration::from_micros(self.busy_us.load(Ordering::Relaxed));
        CollateTotals {
            refused_rows: self.refused_rows.load(Ordering::Relaxed),
            collate_busy_s: busy.as_secs_f64(),
        }
    }
}

#[derive(Debug)]
pub struct Collate {
    pub collator: Collator,
    pub shape: RowShape,
    /// Settings of the importance weights.
    pub replay: ReplayConfig,
    /// Updates done, for the exponent's schedule.
    pub updates: Arc<AtomicU64>,
    pub updates_total: u64,
    /// Random generator of the augmentation.
    pub rng: ChaCha8Rng,
    pub counts: Arc<CollateCounts>,
    /// Throttles warnings about refused rows.
    pub refusals: Throttle,
}

impl Collate {
    /// Runs until either channel closes, or a batch cannot be filled.
    pub fn run(
        mut self,
        mut sampled: mpsc::Receiver<SampledRows>,
        free: &Receiver<Batch>,
        ready: &Sender<Result<Ready, FillError>>,
    ) {
        while let Some(rows) = sampled.blocking_recv() {
            let Ok(mut batch) = free.recv() else { return };
            let begin = Instant::now();
            let limited = rows.waited;
            let rows = self.decode(rows);
            if let Err(error) = self.collator.fill(&rows, &mut batch, &mut self.rng) {
                let _ = ready.send(Err(error));
                return;
            }
            let spent = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.counts.busy_us.fetch_add(spent, Ordering::Relaxed);
            if ready.send(Ok(Ready { batch, limited })).is_err() {
                return;
            }
        }
    }

    /// Rows with their importance weights (N·q)^−β, divided by the largest of the
    /// batch; invalid rows are skipped, counted, and logged at intervals.
    fn decode(&mut self, sampled: SampledRows) -> Vec<SampledRow> {
        let updates = self.updates.load(Ordering::Relaxed);
        let beta = schedule::beta(&self.replay, updates, self.updates_total);
        let mut weights = importance_weights(&sampled.scaled, beta).into_iter();
        let mut rows = Vec::with_capacity(sampled.rows());
        for part in sampled.parts {
            let part_weights: Vec<f32> = weights.by_ref().take(part.rows()).collect();
            let packed = match self.shape.split(&part.packed, part.rows()) {
                Ok(packed) => packed,
                Err(error) => {
                    self.refuse(part.rows(), &error.to_string());
                    continue;
                }
            };
            for ((bytes, &key), weight) in packed.zip(&part.keys).zip(part_weights) {
                match self.read(bytes, key, weight) {
                    Ok(row) => rows.push(row),
                    Err(why) => self.refuse(1, &why),
                }
            }
        }
        rows
    }

    fn read(&self, bytes: &[u8], key: RowKey, weight: f32) -> Result<SampledRow, String> {
        let row = Row::read(bytes, self.shape)
            .map_err(|error| format!("row {} of shard {}: {error}", key.slot, key.shard))?;
        let row = SampledRow { row, key, weight };
        let checked = self.collator.check(&row);
        checked.map(|()| row).map_err(|error| error.to_string())
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
pub fn importance_weights(scaled: &[f64], beta: f64) -> Vec<f32> {
    let smallest = scaled.iter().copied().fold(f64::INFINITY, f64::min);
    let weight = |s: &f64| (s / smallest).powf(-beta) as f32;
    scaled.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::augment::Augmenter;
    use crate::testing::{config, key, row, sampled, scans};
    use common::config::NetworkKind;
    use common::transition::row::HEADER_BYTES;
    use proto::messages::sample::SampledBatch;
    use proto::messages::status::ShardSummary;
    use rand_chacha::rand_core::SeedableRng as _;

    const SHAPE: RowShape = RowShape {
        agents: 1,
        history: 1,
    };

    fn collate() -> Collate {
        let config = config(NetworkKind::Collab, 2);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let augmenter = Augmenter::new(&config.augment, 512, &mut rng);
        Collate {
            collator: Collator::new(scans(3), &config, 1, augmenter, 1),
            shape: SHAPE,
            replay: config.replay.clone(),
            updates: Arc::default(),
            updates_total: 1000,
            rng,
            counts: Arc::default(),
            refusals: Throttle::new(Duration::ZERO),
        }
    }

    /// Rows `first` to `first + rows` as a shard sends them.
    fn part(first: u32, rows: u32) -> SampledBatch {
        let numbers = first..first + rows;
        let mut packed = Vec::new();
        for i in numbers.clone() {
            row(i, SHAPE.agents, 1).write_to(&mut packed);
        }
        SampledBatch {
            packed: packed.into(),
            keys: numbers.map(key).collect(),
            probabilities: vec![0.25; rows as usize],
            summary: ShardSummary::default(),
        }
    }

    #[test]
    fn invalid_rows_are_skipped_and_the_others_keep_key_and_weight() {
        let mut collate = collate();
        let mut broken = part(0, 4);
        let mut bytes = broken.packed.to_vec();
        // An invalid action, and a scan that this learner does not hold.
        bytes[SHAPE.bytes() + HEADER_BYTES + 4] = 6;
        bytes[2 * SHAPE.bytes()..][..2].copy_from_slice(&3_u16.to_le_bytes());
        broken.packed = bytes.into();
        let mut torn = part(4, 3);
        torn.packed.truncate(3 * SHAPE.bytes() - 1);
        let scaled = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let rows = collate.decode(SampledRows {
            parts: vec![broken, torn, part(7, 2)],
            scaled: scaled.clone(),
            waited: Duration::ZERO,
        });
        let weights = importance_weights(&scaled, schedule::beta(&collate.replay, 0, 1000));
        let expected = [0, 3, 7, 8].map(|i| sampled(i, 1, 1, weights[i as usize]));
        assert_eq!(rows, expected);
        assert_eq!(collate.counts.refused_rows.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn weights_by_hand() {
        // N·q of 4, 1 and 0.25; the rarest row has weight 1.
        let w = importance_weights(&[4.0, 1.0, 0.25], 0.5);
        assert_eq!(w, [0.25, 0.5, 1.0]);
        assert_eq!(importance_weights(&[4.0, 1.0], 0.0), [1.0, 1.0]);
        assert_eq!(importance_weights(&[], 1.0), Vec::<f32>::new());
    }

    /// With weights 1/(N·q) the mean over samples is the mean over rows,
    /// for any priorities and any split over shards: the estimator Σ w·x / n is
    /// unbiased.
    #[test]
    fn full_correction_gives_the_plain_mean() {
        // Two shards with priority sums 6 and 2; values x of their rows.
        let rows = [(4.0, 0, 1.0), (2.0, 0, 5.0), (1.0, 1, 9.0), (1.0, 1, 3.0)];
        let (priority_sums, total) = ([6.0, 2.0], 8.0);
        let expected: f64 = rows.iter().map(|r| r.2).sum::<f64>() / 4.0;
        // Expectation of w·x under q, also with shares from stale sums.
        for shares in [[6.0 / total, 2.0 / total], [0.5, 0.5], [0.1, 0.9]] {
            let mean: f64 = rows
                .iter()
                .map(|&(p, shard, x)| {
                    let q = shares[shard] * p / priority_sums[shard];
                    q * x / (4.0 * q)
                })
                .sum();
            assert!((mean - expected).abs() < 1e-12);
        }
    }
}
