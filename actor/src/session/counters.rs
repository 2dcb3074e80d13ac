//! An actor's counters, for heartbeats, logs and metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::messages::status::{ActorReport, ActorState};

use crate::rollout::EpisodeEnd;
use crate::rollout::network_policy::PolicyTimes;

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
    blocked: Wait,
    starved: Wait,
    weights_at: Option<Instant>,
    weights_latency: Option<Duration>,
    stale: bool,
    exploration: f64,
    error_sum: f64,
    errors: u64,
    policy: PolicyTimes,
}

/// Time spent waiting for one peer, including the current wait.
#[derive(Debug, Default)]
struct Wait {
    total: Duration,
    since: Option<Instant>,
}

impl Wait {
    fn until_now(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// One reading of [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Environment steps: one per group that moved.
    pub env_steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Rows made by the rollout.
    pub rows_made: u64,
    /// Rows that shards acknowledged.
    pub rows_acked: u64,
    /// Rows dropped because their shard was unreachable for too long, or because
    /// their incarnation ended.
    pub rows_dropped: u64,
    /// Version of the weights in use.
    pub weights_version: u64,
    /// Time since those arrived; `None` before the first.
    pub weights_age: Option<Duration>,
    /// Time from the publication of the newest weights in use to the end of the
    /// first step with them, by the learner's clock and ours.
    pub weights_latency: Option<Duration>,
    /// The rollout's state.
    pub state: ActorState,
    /// Mean probability of a random action over the slots now.
    pub exploration: f64,
    /// The learner's updates as last reported.
    pub updates: u64,
    /// Time that the rollout waited for shards.
    pub blocked: Duration,
    /// Time that the rollout waited for its learner: for weights, or to rejoin.
    pub starved: Duration,
    /// Sum of the errors (finest steps) of `errors` ended episodes.
    pub error_sum: f64,
    /// Episodes in that sum: one per agent with a target.
    pub errors: u64,
    pub policy: PolicyTimes,
}

impl Reading {
    /// What the learner shows in its status; counts since `begin`.
    pub(crate) fn report(&self, begin: &Self) -> ActorReport {
        ActorReport {
            env_steps: self.env_steps - begin.env_steps,
            rows_dropped: self.rows_dropped - begin.rows_dropped,
            weights_version: self.weights_version,
            weights_age_s: self.weights_age.unwrap_or_default().as_secs_f64(),
            state: self.state.into(),
            exploration: self.exploration,
            weights_latency_s: self.weights_latency.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Gauges {
    fn state(&self) -> ActorState {
        if self.weights_at.is_none() {
            ActorState::Starting
        } else if self.stale {
            ActorState::Stale
        } else if self.blocked.since.is_some() {
            ActorState::Blocked
        } else {
            ActorState::Acting
        }
    }
}

impl Counters {
    fn gauges(&self) -> MutexGuard<'_, Gauges> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything at once.
    #[must_use]
    pub fn read(&self) -> Reading {
        let g = self.gauges();
        Reading {
            env_steps: self.env_steps.load(Relaxed),
            episodes: self.episodes.load(Relaxed),
            rows_made: self.rows_made.load(Relaxed),
            rows_acked: self.rows_acked.load(Relaxed),
            rows_dropped: self.rows_dropped.load(Relaxed),
            weights_version: self.weights_version.load(Relaxed),
            weights_age: g.weights_at.map(|at| at.elapsed()),
            weights_latency: g.weights_latency,
            state: g.state(),
            exploration: g.exploration,
            updates: self.updates.load(Relaxed),
            blocked: g.blocked.until_now(),
            starved: g.starved.until_now(),
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
        let mut g = self.gauges();
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
        self.gauges().weights_at = Some(Instant::now());
    }

    /// The first step with new weights ended.
    pub(crate) fn acted(&self, latency: Duration) {
        self.gauges().weights_latency = Some(latency);
    }

    /// Whether the rollout waits for newer weights.
    pub(crate) fn set_stale(&self, stale: bool) {
        self.gauges().stale = stale;
    }

    /// Mean probability of a random action now.
    pub(crate) fn set_exploration(&self, mean: f64) {
        self.gauges().exploration = mean;
    }

    pub(crate) fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// Sets the learner's updates. A learner that resumed may report fewer than
    /// before.
    pub(crate) fn set_updates(&self, updates: u64) {
        self.updates.store(updates, Relaxed);
    }

    /// Runs `wait` as time spent waiting for shards.
    pub(crate) fn blocked<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting(|g| &mut g.blocked, wait)
    }

    /// Runs `wait` as time spent waiting for the learner.
    pub(crate) fn starved<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting(|g| &mut g.starved, wait)
    }

    fn waiting<T>(&self, of: fn(&mut Gauges) -> &mut Wait, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        of(&mut self.gauges()).since = Some(start);
        let result = wait();
        let mut g = self.gauges();
        let wait = of(&mut g);
        wait.total += start.elapsed();
        wait.since = None;
        result
    }
}
