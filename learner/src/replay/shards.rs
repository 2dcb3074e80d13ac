//! The learner's view of its shards: clients, priority sums and the rate limiter,
//! behind one lock that is never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::run::throttle::Throttle;
use proto::messages::status::{ShardLink, ShardSummary};
use serde::Serialize;
use tokio::sync::Notify;

use crate::replay::limiter::{Ledger, Report};

/// Interval between warnings about a shard that does not respond.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// The last known state of one shard.
#[derive(Debug, Clone)]
struct Link {
    address: String,
    alive: bool,
    /// Whether it has ever responded: the first response is not a recovery.
    met: bool,
    /// When it last responded; until then, when the learner started.
    last_response: Instant,
    /// Throttles warnings while it does not respond.
    silence: Throttle,
    /// Why the last call failed.
    why: String,
    restarts: u32,
    summary: Option<ShardSummary>,
}

#[derive(Debug)]
struct State {
    links: Vec<Link>,
    ledger: Ledger,
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

/// The learner's view of the store.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    /// Signals a change to waiting samplers.
    changed: Notify,
}

impl Store {
    /// Shards at these addresses; none has responded yet.
    #[must_use]
    pub fn new(addresses: &[String], ledger: Ledger) -> Self {
        let link = |address: &String| Link {
            address: address.clone(),
            alive: false,
            met: false,
            last_response: Instant::now(),
            silence: Throttle::new(WARN_INTERVAL),
            why: String::new(),
            restarts: 0,
            summary: None,
        };
        let links = addresses.iter().map(link).collect();
        Self {
            state: Mutex::new(State { links, ledger }),
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

    #[must_use]
    pub fn is_alive(&self, shard: usize) -> bool {
        self.lock().links.get(shard).is_some_and(|l| l.alive)
    }

    #[must_use]
    pub fn totals(&self) -> ShardTotals {
        let shards_up: Vec<bool> = self.lock().links.iter().map(|l| l.alive).collect();
        ShardTotals {
            shards_alive: shards_up.iter().filter(|up| **up).count(),
            shards: shards_up.len(),
            shards_up,
        }
    }

    /// Address, state and last summary of each shard.
    #[must_use]
    pub fn links(&self) -> Vec<ShardLink> {
        let state = self.lock();
        let link = |l: &Link| ShardLink {
            address: l.address.clone(),
            alive: l.alive,
            summary: l.summary,
            silent_s: l.last_response.elapsed().as_secs_f64(),
            why: l.why.clone(),
            restarts: l.restarts,
        };
        state.links.iter().map(link).collect()
    }

    /// Reads or changes the rate limiter.
    pub fn with_ledger<T>(&self, f: impl FnOnce(&mut Ledger) -> T) -> T {
        f(&mut self.lock().ledger)
    }

    /// (incarnation, insert limit) to send to a shard with the next request.
    pub fn grant(&self, shard: usize) -> (u64, u64) {
        self.lock().ledger.grant(shard)
    }

    /// Records a response. Logs once when an unreachable shard responds again, or
    /// when a shard responds in a new incarnation.
    pub fn record_response(&self, shard: usize, summary: ShardSummary) {
        {
            let mut state = self.lock();
            let Some(link) = state.links.get_mut(shard) else {
                return;
            };
            let renewed = link
                .summary
                .is_some_and(|s| s.shard_incarnation != summary.shard_incarnation);
            if link.met && (renewed || !link.alive) {
                let (address, rows) = (&link.address, summary.rows);
                tracing::info!(shard, address, rows, renewed, "shard is back");
            } else if !link.met {
                tracing::info!(
                    shard,
                    address = link.address,
                    rows = summary.rows,
                    "shard found"
                );
            }
            link.restarts += u32::from(renewed);
            (link.alive, link.met) = (true, true);
            link.silence.reset();
            link.last_response = Instant::now();
            link.why.clear();
            link.summary = Some(summary);
            state.ledger.observe(
                shard,
                Report {
                    incarnation: summary.shard_incarnation,
                    rows: summary.rows,
                    inserted: summary.inserted,
                },
            );
        }
        self.changed.notify_waiters();
    }

    /// Records a failed call; warns at once, and then at intervals until the shard
    /// responds again.
    pub fn lost(&self, shard: usize, why: &str) {
        let mut state = self.lock();
        let Some(link) = state.links.get_mut(shard) else {
            return;
        };
        why.clone_into(&mut link.why);
        if let Some(warning) = link.silence.warning(Instant::now()) {
            let (address, silent_s) = (&link.address, link.last_response.elapsed().as_secs());
            match (link.met, warning.lasted) {
                (false, _) => {
                    tracing::warn!(
                        shard,
                        address,
                        silent_s,
                        why,
                        "shard not found yet; trying again"
                    );
                }
                (true, None) => {
                    tracing::warn!(
                        shard,
                        address,
                        why,
                        "shard lost: training goes on with the others"
                    );
                }
                (true, Some(_)) => {
                    tracing::warn!(
                        shard,
                        address,
                        silent_s,
                        why,
                        "shard still away; trying again"
                    );
                }
            }
        }
        if link.alive {
            link.alive = false;
            state.ledger.lost(shard);
        }
    }

    /// Takes `batch` samples from the rate limiter and spreads them over the live
    /// shards by priority sum, if there are any and the limiter allows it.
    ///
    /// `point` in 0..1 places the first of `batch` equidistant marks on the line
    /// of priority sums (systematic sampling): each shard's expected count is exactly
    /// its share, with less variance than independent draws.
    pub fn allocate(&self, batch: usize, point: f64) -> Option<Allocation> {
        let mut state = self.lock();
        let masses: Vec<f64> = state
            .links
            .iter()
            .map(|l| match l.summary {
                Some(s) if l.alive && s.rows > 0 => s.mass,
                _ => 0.0,
            })
            .collect();
        let total: f64 = masses.iter().sum();
        if total <= 0.0 || !state.ledger.try_sample(batch as u64) {
            return None;
        }
        let total_rows = state.ledger.rows();
        Some(Allocation {
            rows: systematic(&masses, batch, point),
            shares: masses.iter().map(|m| m / total).collect(),
            total_rows,
        })
    }

    /// Returns samples that were taken and not delivered.
    pub fn unsample(&self, rows: usize) {
        self.lock().ledger.unsample(rows as u64);
    }
}

/// How many of `count` equidistant marks fall on each priority sum.
fn systematic(masses: &[f64], count: usize, point: f64) -> Vec<usize> {
    let total: f64 = masses.iter().sum();
    let mut rows = vec![0; masses.len()];
    let last = masses.iter().rposition(|m| *m > 0.0);
    let (mut shard, mut end) = (0, masses.first().copied().unwrap_or(0.0));
    #[expect(clippy::cast_precision_loss, reason = "a batch size")]
    for i in 0..count {
        let mark = (i as f64 + point) / count as f64 * total;
        while mark >= end && Some(shard) < last {
            shard += 1;
            end += masses[shard];
        }
        rows[shard] += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::limiter::Limits;

    fn summary(shard: u32, incarnation: u64, rows: u64, mass: f64) -> ShardSummary {
        ShardSummary {
            shard,
            shard_incarnation: incarnation,
            rows,
            mass,
            inserted: rows,
            sampled: 0,
            insert_blocked_s: 0.0,
            writers_waiting: 0,
        }
    }

    fn store() -> Store {
        let limits = Limits {
            samples_per_insert: 4.0,
            tolerance: 1000,
            min_rows: 100,
            batch: 32,
            batch_rows: 32,
            shards: 3,
        };
        let addresses = ["a", "b", "c"].map(String::from);
        Store::new(&addresses, Ledger::new(limits).unwrap())
    }

    #[test]
    fn marks_fall_in_proportion_and_never_on_nothing() {
        assert_eq!(systematic(&[1.0, 0.0, 3.0], 8, 0.5), [2, 0, 6]);
        assert_eq!(systematic(&[0.0, 2.0, 0.0], 5, 0.999_999), [0, 5, 0]);
        // Averaged over many points, each shard gets its share.
        let mut sum = [0; 3];
        for i in 0..1000 {
            for (s, n) in sum
                .iter_mut()
                .zip(systematic(&[0.5, 0.2, 0.3], 7, f64::from(i) / 1000.0))
            {
                *s += n;
            }
        }
        for (s, share) in sum.into_iter().zip([0.5, 0.2, 0.3]) {
            assert!(
                (f64::from(i32::try_from(s).unwrap()) / 7000.0 - share).abs() < 0.002,
                "{sum:?}"
            );
        }
    }

    #[test]
    fn only_living_shards_are_sampled_and_the_ledger_is_asked() {
        let store = store();
        assert!(store.allocate(32, 0.5).is_none(), "no shard has responded");
        store.record_response(0, summary(0, 1, 60, 10.0));
        assert!(store.allocate(32, 0.5).is_none(), "60 rows are not 100");
        store.record_response(1, summary(1, 1, 60, 30.0));
        let a = store.allocate(32, 0.5).unwrap();
        assert_eq!((a.rows, a.total_rows), (vec![8, 24, 0], 120));
        assert_eq!(a.shares, [0.25, 0.75, 0.0]);
        store.lost(1, "test");
        let a = store.allocate(32, 0.5).unwrap();
        assert_eq!(
            (a.rows, a.shares, a.total_rows),
            (vec![32, 0, 0], vec![1.0, 0.0, 0.0], 60)
        );
        assert_eq!((store.totals().shards_alive, store.is_alive(1)), (1, false));
        assert_eq!(store.with_ledger(|l| l.sampled()), 64);
        store.unsample(32);
        assert_eq!(store.with_ledger(|l| l.sampled()), 32);
        store.record_response(1, summary(1, 2, 0, 0.0));
        assert_eq!(
            store.allocate(32, 0.5).unwrap().rows,
            [32, 0, 0],
            "back, and empty"
        );
    }
}
