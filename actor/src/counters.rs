//! What an actor did, for heartbeats, logs and whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::network_policy::PolicyTimes;
use crate::rollout::EpisodeEnd;

/// Counts since the actor started; read at any time from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    env_steps: AtomicU64,
    episodes: AtomicU64,
    rows_made: AtomicU64,
    rows_acked: AtomicU64,
    rows_dropped: AtomicU64,
    weights_version: AtomicU64,
    updates: AtomicU64,
    gauges: Mutex<Gauges>,
}

#[derive(Debug, Default)]
struct Gauges {
    blocked: Duration,
    blocked_since: Option<Instant>,
    weights_at: Option<Instant>,
    error_sum: f64,
    errors: u64,
    policy: PolicyTimes,
}

/// One reading of [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Environment steps: one per group that moved.
    pub env_steps: u64,
    /// Walks that ended.
    pub episodes: u64,
    /// Rows made by the rollout.
    pub rows_made: u64,
    /// Rows that shards acknowledged.
    pub rows_acked: u64,
    /// Rows given up because their shard was away for too long, or with an
    /// old life of this actor.
    pub rows_dropped: u64,
    /// The weights acted with.
    pub weights_version: u64,
    /// Time since those arrived; `None` before the first.
    pub weights_age: Option<Duration>,
    /// The learner's updates as last heard.
    pub updates: u64,
    /// Time that the rollout waited for shards.
    pub blocked: Duration,
    /// Sum of the errors (finest steps) of `errors` ended episodes.
    pub error_sum: f64,
    /// Episodes in that sum: one per agent with a target.
    pub errors: u64,
    /// Time of the policy.
    pub policy: PolicyTimes,
}

impl Counters {
    /// Everything at once.
    #[must_use]
    pub fn read(&self) -> Reading {
        let g = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            env_steps: self.env_steps.load(Relaxed),
            episodes: self.episodes.load(Relaxed),
            rows_made: self.rows_made.load(Relaxed),
            rows_acked: self.rows_acked.load(Relaxed),
            rows_dropped: self.rows_dropped.load(Relaxed),
            weights_version: self.weights_version.load(Relaxed),
            weights_age: g.weights_at.map(|at| at.elapsed()),
            updates: self.updates.load(Relaxed),
            blocked: g.blocked
                + g.blocked_since
                    .map_or(Duration::ZERO, |since| since.elapsed()),
            error_sum: g.error_sum,
            errors: g.errors,
            policy: g.policy,
        }
    }

    pub(crate) fn stepped(
        &self,
        env_steps: u64,
        walks: u64,
        rows: usize,
        ends: &[EpisodeEnd],
        times: PolicyTimes,
    ) {
        self.env_steps.fetch_add(env_steps, Relaxed);
        self.episodes.fetch_add(walks, Relaxed);
        self.rows_made.fetch_add(rows as u64, Relaxed);
        let mut g = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        g.error_sum += ends.iter().map(|e| e.error_finest_steps).sum::<f64>();
        g.errors += ends.len() as u64;
        g.policy.render += times.render;
        g.policy.forward += times.forward;
        g.policy.batches += times.batches;
        g.policy.observations += times.observations;
    }

    pub(crate) fn acked(&self, rows: usize) {
        self.rows_acked.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn dropped(&self, rows: usize) {
        self.rows_dropped.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn new_weights(&self, version: u64) {
        self.weights_version.store(version, Relaxed);
        self.gauges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .weights_at = Some(Instant::now());
    }

    pub(crate) fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// The learner told how far it is. A learner that resumed may be behind
    /// what was heard before.
    pub(crate) fn set_updates(&self, updates: u64) {
        self.updates.store(updates, Relaxed);
    }

    /// Runs `wait` as time spent waiting for shards.
    pub(crate) fn blocked<T>(&self, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.gauges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocked_since = Some(start);
        let result = wait();
        let mut g = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        g.blocked += start.elapsed();
        g.blocked_since = None;
        result
    }
}
