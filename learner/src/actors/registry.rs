//! The registry of actors: ids, incarnations, leases, and exploration per environment slot.
//!
//! The caller supplies the time, as a duration since any fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

use proto::messages::heartbeat::Heartbeat;
use proto::messages::insert::Writer;
use proto::messages::status::{ActorReport, ActorState, ActorStatus, WEIGHTS_AGE_BOUNDS};
use serde::Serialize;

/// An actor's rates cover this many of its last heartbeats.
const BEATS: usize = 8;

/// Incarnations from here on are nobody's: a learner that continued them would run out of numbers.
const INCARNATION_END: u32 = u32::MAX - (1 << 20);

/// The last incarnation of an actor under one id.
#[derive(Debug, Clone, PartialEq)]
pub struct Actor {
    pub writer: Writer,
    /// Host, and process or instance there, for display.
    pub host: String,
    /// Whether the lease holds.
    pub alive: bool,
    /// Whether its absence is expected: it reported that it leaves, or its next incarnation
    /// joined under another id.
    pub left: bool,
    pub joined: Duration,
    /// When it last sent a heartbeat, or joined.
    pub seen: Duration,
    pub report: ActorReport,
    /// Episodes of this incarnation.
    pub episodes: u64,
    /// Earlier incarnations under this id.
    pub restarts: u32,
    rows_sent: u64,
    /// Seconds that this incarnation waited for shards.
    blocked_s: f64,
    /// (when, steps, seconds blocked) of the last heartbeats, oldest first.
    beats: VecDeque<(Duration, u64, f64)>,
    /// Whether a heartbeat reply reported the end of the run.
    stop_sent: bool,
    /// The last other incarnation refused under this id, so that it is logged once.
    refused: Option<u32>,
}

impl Actor {
    fn new(writer: Writer, host: &str, now: Duration, restarts: u32) -> Self {
        Self {
            writer,
            host: host.to_owned(),
            alive: true,
            left: false,
            joined: now,
            seen: now,
            report: ActorReport::default(),
            episodes: 0,
            restarts,
            rows_sent: 0,
            blocked_s: 0.0,
            beats: VecDeque::from([(now, 0, 0.0)]),
            stop_sent: false,
            refused: None,
        }
    }

    /// Environment steps per second, and the share of time spent waiting for shards, over
    /// the last heartbeats.
    pub fn pace(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.beats.front(), self.beats.back()) else {
            return (0.0, 0.0);
        };
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        if !self.alive || seconds <= 0.0 {
            return (0.0, 0.0);
        }
        let steps = last.1.saturating_sub(first.1) as f64;
        let blocked = (last.2 - first.2) / seconds;
        (steps / seconds, blocked.clamp(0.0, 1.0))
    }

    /// Whether its lease expired without a report that it leaves.
    fn is_lost(&self) -> bool {
        !self.alive && !self.left
    }

    fn record(&mut self, now: Duration, beat: &Heartbeat) {
        self.seen = now;
        self.report = ActorReport {
            env_steps: self.report.env_steps.max(beat.report.env_steps),
            rows_dropped: self.report.rows_dropped.max(beat.report.rows_dropped),
            ..beat.report
        };
        self.episodes = self.episodes.max(beat.episodes);
        self.blocked_s += beat.blocked_s;
        self.beats
            .push_back((now, self.report.env_steps, self.blocked_s));
        if self.beats.len() > BEATS {
            self.beats.pop_front();
        }
    }

    pub fn status(&self, now: Duration) -> ActorStatus {
        let (env_steps_per_s, blocked_share) = self.pace();
        let mut report = self.report;
        if !self.alive {
            report.set_state(ActorState::Lost);
        }
        ActorStatus {
            actor: self.writer.actor.into(),
            incarnation: self.writer.incarnation,
            host: self.host.clone(),
            alive: self.alive,
            heartbeat_age_s: now.saturating_sub(self.seen).as_secs_f64(),
            env_steps_per_s,
            blocked_share,
            restarts: self.restarts,
            report: Some(report),
        }
    }
}

/// Reply to a new incarnation of an actor.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    pub writer: Writer,
    /// Final probability of a random action per environment slot.
    pub exploration: Vec<f32>,
}

/// All 65,536 ids are in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("all 65536 actor ids are in use by live actors")]
pub struct FullError;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// An actor without a heartbeat for this long is lost.
    pub lease: Duration,
    /// Smallest final probability of a random action.
    pub epsilon_low: f64,
    pub epsilon_high: f64,
    /// The least incarnation. It must increase from one learner process to the
    /// next, because shards recognise repeated batches by actor and incarnation.
    pub first_incarnation: u32,
}

/// Totals over all actors.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ActorTotals {
    pub actors_alive: usize,
    /// Actor ids whose lease has expired and that no actor has taken over.
    pub actors_lost: usize,
    /// Expected number of actors.
    #[serde(skip)]
    pub actors_expected: usize,
    /// Environment steps of all incarnations.
    pub env_steps: u64,
    /// Finished episodes of all incarnations.
    pub episodes: u64,
    /// Rows that actors dropped because a shard was unreachable.
    pub dropped_rows: u64,
    /// Rows that actors sent, by how many versions their weights were behind
    /// the newest: up to each of [`WEIGHTS_AGE_BOUNDS`], and beyond.
    pub rows_by_weights_age: [u64; WEIGHTS_AGE_BOUNDS.len() + 1],
    /// Recent share of time that live actors waited for the shards.
    pub actors_blocked_share: f64,
    /// Mean error (finest steps) of recently finished training episodes.
    pub episode_error: Option<f64>,
}

#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    actors: Vec<Actor>,
    /// Totals of replaced incarnations; ages of weights and mean error of all.
    past: ActorTotals,
    /// Sum of the errors reported since the last totals, and their number.
    errors: (f64, u64),
}

impl Registry {
    /// A registry without actors.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            actors: Vec::new(),
            past: ActorTotals::default(),
            errors: (0.0, 0),
        }
    }

    /// Adds the episodes of earlier learner processes.
    #[must_use]
    pub fn after(mut self, episodes: u64) -> Self {
        self.past.episodes += episodes;
        self
    }

    /// Gives the next actors incarnations above `newest`, the newest that a shard knows: an earlier
    /// learner gave it out, and the shard refuses earlier ones.
    pub fn later_than(&mut self, newest: u32) {
        if newest < INCARNATION_END {
            let first = &mut self.settings.first_incarnation;
            *first = (*first).max(newest + 1);
        }
    }

    /// The newest incarnation given out; the least one before the first.
    pub fn newest_incarnation(&self) -> u32 {
        let newest = self.actors.iter().map(|a| a.writer.incarnation).max();
        newest.unwrap_or(self.settings.first_incarnation)
    }

    /// Adds a new incarnation: in the place of a lost actor, else of one that left,
    /// else under a new id.
    ///
    /// # Errors
    /// [`FullError`] when no id is left.
    pub fn join(&mut self, now: Duration, slots: usize, host: &str) -> Result<Joined, FullError> {
        self.expire(now);
        let first = |wanted: fn(&Actor) -> bool| self.actors.iter().position(wanted);
        let place = first(Actor::is_lost)
            .or_else(|| first(|a| a.left))
            .unwrap_or(self.actors.len());
        let id = u16::try_from(place).map_err(|_| FullError)?;
        let before = self.actors.get(place);
        let next = before.map_or(0, |a| a.writer.incarnation.saturating_add(1));
        let incarnation = next.max(self.settings.first_incarnation);
        let writer = Writer {
            actor: id,
            incarnation,
        };
        // An actor that left does not return: this is another one.
        let before = before.filter(|a| !a.left);
        let restarts = before.map_or(0, |a| a.restarts.saturating_add(1));
        let actor = Actor::new(writer, host, now, restarts);
        tracing::info!(actor = id, incarnation, host, slots, "actor joined");
        if let Some(before) = self.actors.get_mut(place) {
            self.past.env_steps += before.report.env_steps;
            self.past.episodes += before.episodes;
            self.past.dropped_rows += before.report.rows_dropped;
            *before = actor;
        } else {
            self.actors.push(actor);
        }
        Ok(Joined {
            writer,
            exploration: self.exploration(place, slots),
        })
    }

    /// Records a heartbeat; false if the sender must join again: its lease has expired,
    /// or its id has a newer incarnation. `newest`: the version of the newest weights.
    pub fn heartbeat(
        &mut self,
        now: Duration,
        heartbeat: &Heartbeat,
        newest: u64,
        stop: bool,
    ) -> bool {
        self.expire(now);
        let place = usize::from(heartbeat.writer.actor);
        let Some(actor) = self.actors.get_mut(place) else {
            return false;
        };
        if actor.writer != heartbeat.writer {
            let incarnation = heartbeat.writer.incarnation;
            if actor.refused.replace(incarnation) != Some(incarnation) {
                tracing::warn!(
                    actor = heartbeat.writer.actor,
                    incarnation,
                    newest = actor.writer.incarnation,
                    "heartbeat of another incarnation refused"
                );
            }
            return false;
        }
        if !actor.alive {
            return false;
        }
        let behind = newest.saturating_sub(heartbeat.report.weights_version);
        let bucket = WEIGHTS_AGE_BOUNDS.partition_point(|bound| *bound < behind);
        self.past.rows_by_weights_age[bucket] +=
            heartbeat.rows_sent.saturating_sub(actor.rows_sent);
        actor.rows_sent = actor.rows_sent.max(heartbeat.rows_sent);
        actor.stop_sent |= stop;
        actor.record(now, heartbeat);
        if heartbeat.report.state() == ActorState::Left {
            (actor.alive, actor.left) = (false, true);
            tracing::info!(
                actor = heartbeat.writer.actor,
                incarnation = heartbeat.writer.incarnation,
                host = actor.host,
                "actor left"
            );
        }
        if heartbeat.episode_errors > 0 {
            self.errors.0 += heartbeat.episode_error * heartbeat.episode_errors as f64;
            self.errors.1 += heartbeat.episode_errors;
        }
        true
    }

    /// Marks actors whose lease has expired as lost, and logs them.
    pub fn expire(&mut self, now: Duration) {
        let lease = self.settings.lease;
        let over = |a: &Actor| a.alive && now.saturating_sub(a.seen) > lease;
        while let Some(actor) = self.actors.iter_mut().find(|a| over(a)) {
            actor.alive = false;
            let lost = actor.clone();
            // Restarted within its lease: its next incarnation joined under an id of its own.
            let next = |a: &Actor| {
                a.alive && a.restarts == 0 && a.joined > lost.seen && a.host == lost.host
            };
            let replaced = self.actors.iter_mut().find(|a| next(a)).map(|next| {
                next.restarts = lost.restarts.saturating_add(1);
                next.writer.actor
            });
            tracing::warn!(
                actor = lost.writer.actor,
                incarnation = lost.writer.incarnation,
                host = lost.host,
                silent_s = now.saturating_sub(lost.seen).as_secs_f64(),
                replaced,
                "actor lost: no heartbeat within its lease"
            );
            let place = usize::from(lost.writer.actor);
            if let Some(actor) = self.actors.get_mut(place) {
                actor.left |= replaced.is_some();
            }
        }
    }

    /// The last incarnation under each id, in the order of the ids.
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Actors whose lease holds.
    pub fn alive(&self) -> usize {
        self.actors.iter().filter(|a| a.alive).count()
    }

    /// Actors whose lease has expired and whose id no actor has taken over.
    pub fn lost(&self) -> usize {
        self.actors.iter().filter(|a| a.is_lost()).count()
    }

    /// Expected number of actors if not configured: all that have joined and not left.
    pub fn present(&self) -> usize {
        self.alive() + self.lost()
    }

    /// Whether every live actor has received a reply that the run is over.
    pub fn stop_sent_to_all(&self) -> bool {
        self.actors.iter().filter(|a| a.alive).all(|a| a.stop_sent)
    }

    /// Finished episodes of all incarnations.
    pub fn episodes(&self) -> u64 {
        self.past.episodes + self.actors.iter().map(|a| a.episodes).sum::<u64>()
    }

    /// Rows sent, by how many versions the weights of their actor were behind
    /// the newest at its next heartbeat: up to each of [`WEIGHTS_AGE_BOUNDS`],
    /// and beyond.
    pub fn rows_by_weights_age(&self) -> [u64; WEIGHTS_AGE_BOUNDS.len() + 1] {
        self.past.rows_by_weights_age
    }

    /// The current totals; `expected`: expected number of actors.
    pub fn totals(&mut self, expected: usize) -> ActorTotals {
        let steps = self.actors.iter().map(|a| a.report.env_steps);
        let dropped = self.actors.iter().map(|a| a.report.rows_dropped);
        ActorTotals {
            actors_alive: self.alive(),
            actors_lost: self.lost(),
            actors_expected: expected,
            env_steps: self.past.env_steps + steps.sum::<u64>(),
            episodes: self.episodes(),
            dropped_rows: self.past.dropped_rows + dropped.sum::<u64>(),
            rows_by_weights_age: self.past.rows_by_weights_age,
            actors_blocked_share: self.blocked_share(),
            episode_error: self.episode_error(),
        }
    }

    fn blocked_share(&self) -> f64 {
        let alive = self.actors.iter().filter(|a| a.alive);
        let shares: Vec<f64> = alive.map(|a| a.pace().1).collect();
        shares.iter().sum::<f64>() / shares.len().max(1) as f64
    }

    /// Mean over the episodes since the last call; the previous mean if none finished.
    fn episode_error(&mut self) -> Option<f64> {
        let (sum, count) = std::mem::take(&mut self.errors);
        let mean = (count > 0).then(|| sum / count as f64);
        self.past.episode_error = mean.or(self.past.episode_error);
        self.past.episode_error
    }

    /// Geometric between the two ends (Horgan et al. 2018), in the order of the
    /// golden-ratio sequence: any run of consecutive slots is spread evenly, and
    /// actors of equal size have consecutive runs.
    fn exploration(&self, id: usize, slots: usize) -> Vec<f32> {
        let first = id.wrapping_mul(slots);
        let of_slot = |slot| epsilon(&self.settings, first.wrapping_add(slot));
        (0..slots).map(of_slot).collect()
    }
}

fn epsilon(settings: &Settings, index: usize) -> f32 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let share = (0.5 + index as f64 * GOLDEN).fract();
    let (low, high) = (settings.epsilon_low, settings.epsilon_high);
    // A geometric series cannot start at zero.
    let epsilon = if low > 0.0 {
        low * (high / low).powf(share)
    } else {
        high * share
    };
    epsilon.clamp(0.0, 1.0) as f32
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
