//! The client of all replay shards: their state, priority sums and the rate limiter,
//! behind one lock that is never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::run::throttle::Throttle;
use proto::messages::status::{ShardLink, ShardSummary};
use serde::Serialize;
use tokio::sync::Notify;

use crate::replay::limiter::{RateLimiter, Report};

/// Interval between warnings about a shard that does not respond.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// The last known state of one shard.
#[derive(Debug, Clone)]
struct ShardConnection {
    address: String,
    alive: bool,
    /// Whether it has ever responded: the first response is not a recovery.
    met: bool,
    /// When it last responded; until then, when the learner started.
    last_response: Instant,
    /// Throttles warnings while it does not respond.
    warnings: Throttle,
    /// Why the last call failed.
    why: String,
    restarts: u32,
    summary: Option<ShardSummary>,
}

#[derive(Debug)]
struct State {
    shards: Vec<ShardConnection>,
    limiter: RateLimiter,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardTotals {
    pub shards_alive: usize,
    pub shards: usize,
    /// Whether each of them responds, in shard order.
    #[serde(skip)]
    pub shards_up: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// Rows to draw per shard; 0 for skipped ones.
    pub rows: Vec<usize>,
    /// Each shard's share of the priority sum: part of the proposal.
    pub shares: Vec<f64>,
    /// Rows in the live shards.
    pub total_rows: u64,
}

/// The client of all replay shards.
#[derive(Debug)]
pub struct ReplayClient {
    state: Mutex<State>,
    /// Signals a change to waiting samplers.
    changed: Notify,
}

impl ReplayClient {
    /// Shards at these addresses; none has responded yet.
    pub fn new(addresses: &[String], limiter: RateLimiter) -> Self {
        let shard = |address: &String| ShardConnection {
            address: address.clone(),
            alive: false,
            met: false,
            last_response: Instant::now(),
            warnings: Throttle::new(WARN_INTERVAL),
            why: String::new(),
            restarts: 0,
            summary: None,
        };
        let shards = addresses.iter().map(shard).collect();
        Self {
            state: Mutex::new(State { shards, limiter }),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the numbers half-updated.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn is_alive(&self, shard: usize) -> bool {
        self.lock().shards.get(shard).is_some_and(|s| s.alive)
    }

    pub fn totals(&self) -> ShardTotals {
        let shards_up: Vec<bool> = self.lock().shards.iter().map(|s| s.alive).collect();
        ShardTotals {
            shards_alive: shards_up.iter().filter(|up| **up).count(),
            shards: shards_up.len(),
            shards_up,
        }
    }

    /// The newest incarnation of any actor that a shard reported; 0 for none.
    pub fn newest_writer(&self) -> u32 {
        let state = self.lock();
        let summaries = state.shards.iter().filter_map(|s| s.summary);
        summaries.map(|s| s.newest_writer).max().unwrap_or(0)
    }

    /// Address, state and last summary of each shard.
    pub fn links(&self) -> Vec<ShardLink> {
        let link = |s: &ShardConnection| ShardLink {
            address: s.address.clone(),
            alive: s.alive,
            summary: s.summary,
            silent_s: s.last_response.elapsed().as_secs_f64(),
            why: s.why.clone(),
            restarts: s.restarts,
        };
        self.lock().shards.iter().map(link).collect()
    }

    /// Reads or changes the rate limiter.
    pub fn with_limiter<T>(&self, f: impl FnOnce(&mut RateLimiter) -> T) -> T {
        f(&mut self.lock().limiter)
    }

    /// (incarnation, insert limit) to send to a shard with the next request.
    pub fn grant(&self, shard: usize) -> (u64, u64) {
        self.lock().limiter.grant(shard)
    }

    /// Records a response. Logs once when an unreachable shard responds again, or
    /// when a shard responds in a new incarnation.
    pub fn record_response(&self, shard: usize, summary: ShardSummary) {
        {
            let mut state = self.lock();
            let Some(connection) = state.shards.get_mut(shard) else {
                return;
            };
            let (incarnation, rows) = (summary.shard_incarnation, summary.rows);
            let before = connection.summary;
            let renewed = before.is_some_and(|s| s.shard_incarnation != incarnation);
            let address = &connection.address;
            if !connection.met {
                tracing::info!(shard, address, rows, "shard found");
            } else if renewed || !connection.alive {
                tracing::info!(shard, address, rows, renewed, "shard is back");
            }
            connection.restarts += u32::from(renewed);
            (connection.alive, connection.met) = (true, true);
            connection.warnings.reset();
            connection.last_response = Instant::now();
            connection.why.clear();
            connection.summary = Some(summary);
            let report = Report {
                incarnation,
                rows,
                inserted: summary.inserted,
            };
            state.limiter.observe(shard, report);
        }
        self.changed.notify_waiters();
    }

    /// Records a failed call; warns at once, and then at intervals until the shard
    /// responds again.
    pub fn lost(&self, shard: usize, why: &str) {
        let mut state = self.lock();
        let Some(connection) = state.shards.get_mut(shard) else {
            return;
        };
        why.clone_into(&mut connection.why);
        if let Some(warning) = connection.warnings.warning(Instant::now()) {
            let silent_s = connection.last_response.elapsed().as_secs();
            let address = &connection.address;
            let message = match (connection.met, warning.lasted) {
                (false, _) => "shard not found yet; trying again",
                (true, None) => "shard lost: training goes on with the others",
                (true, Some(_)) => "shard still unreachable; trying again",
            };
            tracing::warn!(shard, address, silent_s, why, "{message}");
        }
        if std::mem::take(&mut connection.alive) {
            state.limiter.lost(shard);
        }
    }

    /// Takes `batch` samples from the rate limiter and distributes them over the live
    /// shards by priority sum, if there are any and the limiter allows it.
    ///
    /// `point` in 0..1 places the first of `batch` equidistant marks on the line
    /// of priority sums (systematic sampling): each shard's expected count is exactly
    /// its share, with less variance than independent draws.
    pub fn allocate(&self, batch: usize, point: f64) -> Option<Allocation> {
        let mut state = self.lock();
        let priority_sum = |c: &ShardConnection| match c.summary {
            Some(s) if c.alive && s.rows > 0 => s.priority_sum,
            _ => 0.0,
        };
        let priority_sums: Vec<f64> = state.shards.iter().map(priority_sum).collect();
        let total: f64 = priority_sums.iter().sum();
        if total <= 0.0 || !state.limiter.try_sample(batch as u64) {
            return None;
        }
        Some(Allocation {
            rows: systematic(&priority_sums, batch, point),
            shares: priority_sums.iter().map(|sum| sum / total).collect(),
            total_rows: state.limiter.rows(),
        })
    }

    /// Returns samples that were taken and not delivered.
    pub fn unsample(&self, rows: usize) {
        self.lock().limiter.unsample(rows as u64);
    }
}

/// How many of `count` equidistant marks fall on each priority sum.
fn systematic(priority_sums: &[f64], count: usize, point: f64) -> Vec<usize> {
    let total: f64 = priority_sums.iter().sum();
    let mut rows = vec![0; priority_sums.len()];
    let last = priority_sums.iter().rposition(|sum| *sum > 0.0);
    let (mut shard, mut end) = (0, priority_sums.first().copied().unwrap_or(0.0));
    for i in 0..count {
        let mark = (i as f64 + point) / count as f64 * total;
        while mark >= end && Some(shard) < last {
            shard += 1;
            end += priority_sums[shard];
        }
        rows[shard] += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::limiter::Limits;

    fn summary(shard: u32, incarnation: u64, rows: u64, priority_sum: f64) -> ShardSummary {
        ShardSummary {
            shard,
            shard_incarnation: incarnation,
            rows,
            priority_sum,
            inserted: rows,
            ..ShardSummary::default()
        }
    }

    fn client() -> ReplayClient {
        let limits = Limits {
            samples_per_insert: 4.0,
            tolerance: 1000,
            min_rows: 100,
            batch: 32,
            batch_rows: 32,
            shards: 3,
        };
        let addresses = ["a", "b", "c"].map(String::from);
        ReplayClient::new(&addresses, RateLimiter::new(limits).unwrap())
    }

    #[test]
    fn marks_are_proportional_and_never_on_empty_shards() {
        assert_eq!(systematic(&[1.0, 0.0, 3.0], 8, 0.5), [2, 0, 6]);
        assert_eq!(systematic(&[0.0, 2.0, 0.0], 5, 0.999_999), [0, 5, 0]);
        // Averaged over many points, each shard gets its share.
        let mut sum = [0; 3];
        for i in 0..1000 {
            let marks = systematic(&[0.5, 0.2, 0.3], 7, f64::from(i) / 1000.0);
            (0..3).for_each(|k| sum[k] += marks[k]);
        }
        for (s, share) in sum.into_iter().zip([0.5, 0.2, 0.3]) {
            assert!((s as f64 / 7000.0 - share).abs() < 0.002, "{sum:?}");
        }
    }

    #[test]
    fn only_live_shards_are_sampled_within_the_rate_limit() {
        let client = client();
        assert!(client.allocate(32, 0.5).is_none(), "no shard has responded");
        client.record_response(0, summary(0, 1, 60, 10.0));
        assert!(client.allocate(32, 0.5).is_none(), "60 rows are not 100");
        client.record_response(1, summary(1, 1, 60, 30.0));
        let a = client.allocate(32, 0.5).unwrap();
        assert_eq!((a.rows, a.total_rows), (vec![8, 24, 0], 120));
        assert_eq!(a.shares, [0.25, 0.75, 0.0]);
        client.lost(1, "test");
        let a = client.allocate(32, 0.5).unwrap();
        assert_eq!(
            (a.rows, a.shares, a.total_rows),
            (vec![32, 0, 0], vec![1.0, 0.0, 0.0], 60)
        );
        assert_eq!(
            (client.totals().shards_alive, client.is_alive(1)),
            (1, false)
        );
        assert_eq!(client.with_limiter(|l| l.sampled()), 64);
        client.unsample(32);
        assert_eq!(client.with_limiter(|l| l.sampled()), 32);
        client.record_response(1, summary(1, 2, 0, 0.0));
        let rows = client.allocate(32, 0.5).unwrap().rows;
        assert_eq!(rows, [32, 0, 0], "back, and empty");
    }
}
