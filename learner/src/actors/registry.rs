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
    /// Whether a heartbeat reply said that the run is over.
    stop_sent: bool,
    /// The last earlier incarnation refused under this id, so that it is logged once.
    turned_away: Option<u32>,
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
            turned_away: None,
        }
    }

    /// Environment steps per second, and the share of time spent waiting for shards, over
    /// the last heartbeats.
    #[must_use]
    pub fn pace(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.beats.front(), self.beats.back()) else {
            return (0.0, 0.0);
        };
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        if !self.alive || seconds <= 0.0 {
            return (0.0, 0.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "steps of some seconds")]
        let steps = last.1.saturating_sub(first.1) as f64;
        let blocked = (last.2 - first.2) / seconds;
        (steps / seconds, blocked.clamp(0.0, 1.0))
    }

    /// Whether its lease expired without a report that it leaves.
    fn is_lost(&self) -> bool {
        !self.alive && !self.left
    }

    fn note(&mut self, now: Duration, beat: &Heartbeat) {
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

    #[must_use]
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
#[error("all 65536 actor ids are taken by living actors")]
pub struct FullError;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// An actor without a heartbeat for this long is lost.
    pub lease: Duration,
    /// Smallest final probability of a random action.
    pub epsilon_low: f64,
    pub epsilon_high: f64,
    /// Incarnation of the first actor under each id. It must increase from one
    /// learner process to the next, because shards recognise repeated batches
    /// by actor and incarnation.
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
    past_steps: u64,
    past_episodes: u64,
    past_dropped: u64,
    rows_by_weights_age: [u64; WEIGHTS_AGE_BOUNDS.len() + 1],
    error_sum: f64,
    error_count: u64,
    last_error: Option<f64>,
}

impl Registry {
    /// A registry without actors.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            actors: Vec::new(),
            past_steps: 0,
            past_episodes: 0,
            past_dropped: 0,
            rows_by_weights_age: [0; WEIGHTS_AGE_BOUNDS.len() + 1],
            error_sum: 0.0,
            error_count: 0,
            last_error: None,
        }
    }

    /// Adds the episodes of earlier learner processes.
    #[must_use]
    pub fn after(mut self, episodes: u64) -> Self {
        self.past_episodes += episodes;
        self
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
        let incarnation = self
            .actors
            .get(place)
            .map_or(self.settings.first_incarnation, |a| {
                a.writer.incarnation.saturating_add(1)
            });
        let writer = Writer {
            actor: id,
            incarnation,
        };
        // An actor that left does not return: this is another one.
        let before = self.actors.get(place).filter(|a| !a.left);
        let restarts = before.map_or(0, |a| a.restarts.saturating_add(1));
        let actor = Actor::new(writer, host, now, restarts);
        tracing::info!(actor = id, incarnation, host, slots, "actor joined");
        if let Some(before) = self.actors.get_mut(place) {
            self.past_steps += before.report.env_steps;
            self.past_episodes += before.episodes;
            self.past_dropped += before.report.rows_dropped;
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
            let Writer {
                actor: id,
                incarnation,
            } = heartbeat.writer;
            if actor.turned_away.replace(incarnation) != Some(incarnation) {
                let newest = actor.writer.incarnation;
                tracing::warn!(
                    actor = id,
                    incarnation,
                    newest,
                    "heartbeat of another life refused"
                );
            }
            return false;
        }
        if !actor.alive {
            return false;
        }
        let behind = newest.saturating_sub(heartbeat.report.weights_version);
        let bucket = WEIGHTS_AGE_BOUNDS.partition_point(|bound| *bound < behind);
        self.rows_by_weights_age[bucket] += heartbeat.rows_sent.saturating_sub(actor.rows_sent);
        actor.rows_sent = actor.rows_sent.max(heartbeat.rows_sent);
        actor.stop_sent |= stop;
        actor.note(now, heartbeat);
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
            #[expect(
                clippy::cast_precision_loss,
                reason = "episode counts are far below 2^52"
            )]
            let count = heartbeat.episode_errors as f64;
            self.error_sum += heartbeat.episode_error * count;
            self.error_count += heartbeat.episode_errors;
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
                "actor lost: no sign of life within its lease"
            );
            if replaced.is_some() {
                let place = usize::from(lost.writer.actor);
                if let Some(actor) = self.actors.get_mut(place) {
                    actor.left = true;
                }
            }
        }
    }

    /// The last incarnation under each id, in the order of the ids.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Actors whose lease holds.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.actors.iter().filter(|a| a.alive).count()
    }

    /// Actors whose lease has expired and whose id no actor has taken over.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.actors.iter().filter(|a| a.is_lost()).count()
    }

    /// Expected number of actors if not configured: all that have joined and not left.
    #[must_use]
    pub fn present(&self) -> usize {
        self.alive() + self.lost()
    }

    /// Whether every live actor has received a reply that the run is over.
    #[must_use]
    pub fn stop_sent_to_all(&self) -> bool {
        self.actors.iter().filter(|a| a.alive).all(|a| a.stop_sent)
    }

    /// Finished episodes of all incarnations.
    #[must_use]
    pub fn episodes(&self) -> u64 {
        self.past_episodes + self.actors.iter().map(|a| a.episodes).sum::<u64>()
    }

    /// Rows sent, by how many versions the weights of their actor were behind
    /// the newest at its next heartbeat: up to each of [`WEIGHTS_AGE_BOUNDS`],
    /// and beyond.
    #[must_use]
    pub fn rows_by_weights_age(&self) -> [u64; WEIGHTS_AGE_BOUNDS.len() + 1] {
        self.rows_by_weights_age
    }

    /// The current totals; `expected`: expected number of actors.
    pub fn totals(&mut self, expected: usize) -> ActorTotals {
        let steps = self.actors.iter().map(|a| a.report.env_steps);
        let dropped = self.actors.iter().map(|a| a.report.rows_dropped);
        ActorTotals {
            actors_alive: self.alive(),
            actors_lost: self.lost(),
            actors_expected: expected,
            env_steps: self.past_steps + steps.sum::<u64>(),
            episodes: self.episodes(),
            dropped_rows: self.past_dropped + dropped.sum::<u64>(),
            rows_by_weights_age: self.rows_by_weights_age,
            actors_blocked_share: self.blocked_share(),
            episode_error: self.episode_error(),
        }
    }

    fn blocked_share(&self) -> f64 {
        let alive = self.actors.iter().filter(|a| a.alive);
        let shares: Vec<f64> = alive.map(|a| a.pace().1).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of actors")]
        let count = shares.len().max(1) as f64;
        shares.iter().sum::<f64>() / count
    }

    /// Mean over the episodes since the last call; the previous mean if none finished.
    fn episode_error(&mut self) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "episode counts are far below 2^52"
        )]
        let mean = (self.error_count > 0).then(|| self.error_sum / self.error_count as f64);
        (self.error_sum, self.error_count) = (0.0, 0);
        self.last_error = mean.or(self.last_error);
        self.last_error
    }

    /// Geometric between the two ends (Horgan et al. 2018), in the order of the
    /// golden-ratio sequence: any run of consecutive slots is spread evenly, and
    /// actors of equal size have consecutive runs.
    fn exploration(&self, id: usize, slots: usize) -> Vec<f32> {
        let first = id.wrapping_mul(slots);
        (0..slots)
            .map(|slot| epsilon(&self.settings, first.wrapping_add(slot)))
            .collect()
    }
}

fn epsilon(settings: &Settings, index: usize) -> f32 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    #[expect(
        clippy::cast_precision_loss,
        reason = "an index in the billions keeps its fraction"
    )]
    let share = (0.5 + index as f64 * GOLDEN).fract();
    let (low, high) = (settings.epsilon_low, settings.epsilon_high);
    // A geometric series cannot start at zero.
    let epsilon = if low > 0.0 {
        low * (high / low).powf(share)
    } else {
        high * share
    };
    #[expect(clippy::cast_possible_truncation, reason = "a probability")]
    let epsilon = epsilon.clamp(0.0, 1.0) as f32;
    epsilon
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
