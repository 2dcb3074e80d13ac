//! Who acts: ids, lives, leases, and how much each environment slot explores.
//!
//! Time is the caller's: a duration since any fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

use proto::messages::heartbeat::Heartbeat;
use proto::messages::insert::Writer;
use proto::messages::status::{ActorReport, ActorState, ActorStatus, WEIGHTS_AGE_BOUNDS};
use serde::Serialize;

/// An actor's rates are taken over its last so many heartbeats.
const BEATS: usize = 8;

/// One life of one actor, as long as it is the last one under its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Actor {
    /// Id and life.
    pub writer: Writer,
    /// Host, and process or instance there, for people.
    pub host: String,
    /// Whether the lease holds.
    pub alive: bool,
    /// Whether nobody misses it: it said that it leaves, or its next life has
    /// joined under another id.
    pub left: bool,
    pub joined: Duration,
    /// When it was heard of last.
    pub seen: Duration,
    /// Its last report.
    pub report: ActorReport,
    /// Episodes of this incarnation.
    pub episodes: u64,
    /// Lives under this id before this one.
    pub restarts: u32,
    rows_sent: u64,
    /// Seconds that it waited for shards in this life.
    blocked_s: f64,
    /// (when, steps, seconds blocked) of the last heartbeats, oldest first.
    beats: VecDeque<(Duration, u64, f64)>,
    /// Whether it was told that the run is over.
    told_to_stop: bool,
    /// The former life under this id that was turned away last: said once.
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
            told_to_stop: false,
            turned_away: None,
        }
    }

    /// Environment steps per second, and the part of the time that it waited
    /// for shards, over the last heartbeats.
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

    /// Whether it is gone without a word.
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

    /// For the learner's status.
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

/// What a new life of an actor gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// Id and life.
    pub writer: Writer,
    /// Final probability of a random action per environment slot.
    pub exploration: Vec<f32>,
}

/// All 65,536 ids are in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("all 65536 actor ids are taken by living actors")]
pub struct FullError;

/// Settings of the registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Without a sign of life for this long an actor is given up.
    pub lease: Duration,
    /// Smallest final probability of a random action.
    pub epsilon_low: f64,
    /// Largest one.
    pub epsilon_high: f64,
    /// Life number of the first actor under each id. It must rise from one
    /// learner process to the next, because shards recognise repeated batches
    /// by actor and life.
    pub first_incarnation: u32,
}

/// What all actors did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ActorTotals {
    /// Actors whose lease holds.
    pub actors_alive: usize,
    /// Actor ids whose lease has expired and that nobody has taken again.
    pub actors_lost: usize,
    /// Actors that there should be.
    #[serde(skip)]
    pub actors_expected: usize,
    /// Environment steps of all incarnations.
    pub env_steps: u64,
    /// Episodes that ended, of all incarnations.
    pub episodes: u64,
    /// Rows that actors gave up because a shard was unreachable.
    pub dropped_rows: u64,
    /// Rows that actors sent, by how many versions their weights were behind
    /// the newest: up to each of [`WEIGHTS_AGE_BOUNDS`], and beyond.
    pub rows_by_weights_age: [u64; WEIGHTS_AGE_BOUNDS.len() + 1],
    /// Part of the time, lately, that actors whose lease holds waited for the shards.
    pub actors_blocked_share: f64,
    /// Mean error (finest steps) of the training episodes that ended lately.
    pub episode_error: Option<f64>,
}

/// The actors of a run.
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
    /// Nobody yet.
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

    /// Counts on from the walks of a learner before this one.
    #[must_use]
    pub fn after(mut self, episodes: u64) -> Self {
        self.past_episodes += episodes;
        self
    }

    /// A new life: in the place of an actor that was lost, else of one that
    /// left, else under a new id.
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
        // Who left does not come again: this is another one.
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

    /// Takes note of a sign of life; false where the sender must join again:
    /// its lease has expired, or its id has a new life. `newest`: the version
    /// of the newest weights.
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
        actor.told_to_stop |= stop;
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

    /// Gives up actors whose lease has expired and says so in the log.
    pub fn expire(&mut self, now: Duration) {
        let lease = self.settings.lease;
        let over = |a: &Actor| a.alive && now.saturating_sub(a.seen) > lease;
        while let Some(actor) = self.actors.iter_mut().find(|a| over(a)) {
            actor.alive = false;
            let lost = actor.clone();
            // Restarted within its lease: its next life, nobody's yet, got an id of its own.
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

    /// The last life under each id, in the order of the ids.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Actors whose lease holds.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.actors.iter().filter(|a| a.alive).count()
    }

    /// Actors whose lease has expired and whose place nobody has taken.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.actors.iter().filter(|a| a.is_lost()).count()
    }

    /// Actors that there should be where nobody said how many: all that have
    /// joined and not left.
    #[must_use]
    pub fn present(&self) -> usize {
        self.alive() + self.lost()
    }

    /// Whether every living actor has heard that the run is over.
    #[must_use]
    pub fn all_told_to_stop(&self) -> bool {
        self.actors
            .iter()
            .filter(|a| a.alive)
            .all(|a| a.told_to_stop)
    }

    /// Episodes that ended, of all incarnations.
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

    /// The totals now; `expected`: actors that there should be.
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

    /// Over the episodes since the last call; the last mean when none ended.
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
    /// golden-ratio sequence: any run of consecutive slots is spread well, and
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
    // No geometric series starts at zero.
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
