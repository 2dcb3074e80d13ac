//! An actor's counters, for heartbeats, logs and metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::messages::status::{ActorReport, ActorState};

use crate::rollout::StepReport;
use crate::rollout::network_policy::PolicyTimes;

/// Counts since the actor started; read at any time from any thread.
#[derive(Debug, Default)]
pub struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// All values but those that [`Counters::read`] computes from the fields below.
    reading: Reading,
    blocked: Wait,
    starved: Wait,
    weights_at: Option<Instant>,
    stale: bool,
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

impl State {
    fn actor_state(&self) -> ActorState {
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything at once.
    #[must_use]
    pub fn read(&self) -> Reading {
        let state = self.lock();
        Reading {
            weights_age: state.weights_at.map(|at| at.elapsed()),
            state: state.actor_state(),
            blocked: state.blocked.until_now(),
            starved: state.starved.until_now(),
            ..state.reading
        }
    }

    pub(crate) fn stepped(&self, report: &StepReport, times: PolicyTimes) {
        let mut state = self.lock();
        let all = &mut state.reading;
        all.env_steps += report.env_steps;
        all.episodes += report.ended;
        all.rows_made += report.rows.len() as u64;
        let errors = report.episodes.iter().map(|e| e.error_finest_steps);
        all.error_sum += errors.sum::<f64>();
        all.errors += report.episodes.len() as u64;
        all.policy.render += times.render;
        all.policy.forward += times.forward;
        all.policy.batches += times.batches;
        all.policy.observations += times.observations;
    }

    pub(crate) fn acked(&self, rows: usize) {
        self.lock().reading.rows_acked += rows as u64;
    }

    pub(crate) fn dropped(&self, rows: usize) {
        self.lock().reading.rows_dropped += rows as u64;
    }

    pub(crate) fn new_weights(&self, version: u64) {
        let mut state = self.lock();
        state.reading.weights_version = version;
        state.weights_at = Some(Instant::now());
    }

    /// The first step with new weights ended.
    pub(crate) fn acted(&self, latency: Duration) {
        self.lock().reading.weights_latency = Some(latency);
    }

    /// Whether the rollout waits for newer weights.
    pub(crate) fn set_stale(&self, stale: bool) {
        self.lock().stale = stale;
    }

    /// Mean probability of a random action now.
    pub(crate) fn set_exploration(&self, mean: f64) {
        self.lock().reading.exploration = mean;
    }

    pub(crate) fn updates(&self) -> u64 {
        self.lock().reading.updates
    }

    /// Sets the learner's updates. A learner that resumed may report fewer than
    /// before.
    pub(crate) fn set_updates(&self, updates: u64) {
        self.lock().reading.updates = updates;
    }

    /// Runs `wait` as time spent waiting for shards.
    pub(crate) fn blocked<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting(|state| &mut state.blocked, wait)
    }

    /// Runs `wait` as time spent waiting for the learner.
    pub(crate) fn starved<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting(|state| &mut state.starved, wait)
    }

    fn waiting<T>(&self, of: fn(&mut State) -> &mut Wait, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        of(&mut self.lock()).since = Some(start);
        let result = wait();
        let mut state = self.lock();
        let wait = of(&mut state);
        wait.total += start.elapsed();
        wait.since = None;
        result
    }
}
