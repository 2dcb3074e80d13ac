//! Who acts: ids, lives, leases, and how much each environment slot explores.
//!
//! Time is the caller's: a duration since any fixed moment.

use std::time::Duration;

use proto::heartbeat::Heartbeat;
use proto::insert::Writer;

/// One life of one actor, as long as it is the last one under its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Actor {
    /// Id and life.
    pub writer: Writer,
    /// Host and process, for people.
    pub host: String,
    /// Whether the lease holds.
    pub alive: bool,
    /// When it was heard of last.
    pub seen: Duration,
    /// Environment steps of this life.
    pub env_steps: u64,
    /// Episodes of this life.
    pub episodes: u64,
    /// Rows given up in this life because their shard was gone for too long.
    pub rows_dropped: u64,
    /// The weights that it acts with.
    pub weights_version: u64,
    /// Whether it was told that the run is over.
    told_to_stop: bool,
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

/// The actors of a run.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    actors: Vec<Actor>,
    past_steps: u64,
    past_episodes: u64,
    past_dropped: u64,
    error_sum: f64,
    error_count: u64,
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
            error_sum: 0.0,
            error_count: 0,
        }
    }

    /// A new life: under the lowest id whose lease has expired, else a new id.
    ///
    /// # Errors
    /// [`FullError`] when no id is left.
    pub fn join(&mut self, now: Duration, slots: usize, host: &str) -> Result<Joined, FullError> {
        self.expire(now);
        let place = self
            .actors
            .iter()
            .position(|a| !a.alive)
            .unwrap_or(self.actors.len());
        let id = u16::try_from(place).map_err(|_| FullError)?;
        let incarnation = self
            .actors
            .get(place)
            .map_or(self.settings.first_incarnation, |a| {
                a.writer.incarnation.saturating_add(1)
            });
        let actor = Actor {
            writer: Writer {
                actor: id,
                incarnation,
            },
            host: host.to_owned(),
            alive: true,
            seen: now,
            env_steps: 0,
            episodes: 0,
            rows_dropped: 0,
            weights_version: 0,
            told_to_stop: false,
        };
        let writer = actor.writer;
        tracing::info!(actor = id, incarnation, host, slots, "actor joined");
        if let Some(before) = self.actors.get_mut(place) {
            self.past_steps += before.env_steps;
            self.past_episodes += before.episodes;
            self.past_dropped += before.rows_dropped;
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
    /// its lease has expired, or its id has a new life.
    pub fn heartbeat(&mut self, now: Duration, heartbeat: &Heartbeat, stop: bool) -> bool {
        self.expire(now);
        let place = usize::from(heartbeat.writer.actor);
        let Some(actor) = self.actors.get_mut(place) else {
            return false;
        };
        if !actor.alive || actor.writer != heartbeat.writer {
            return false;
        }
        actor.seen = now;
        actor.env_steps = actor.env_steps.max(heartbeat.env_steps);
        actor.episodes = actor.episodes.max(heartbeat.episodes);
        actor.rows_dropped = actor.rows_dropped.max(heartbeat.rows_dropped);
        actor.weights_version = heartbeat.weights_version;
        actor.told_to_stop |= stop;
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
        for actor in self.actors.iter_mut().filter(|a| a.alive) {
            let silent = now.saturating_sub(actor.seen);
            if silent > self.settings.lease {
                actor.alive = false;
                tracing::warn!(
                    actor = actor.writer.actor,
                    incarnation = actor.writer.incarnation,
                    host = actor.host,
                    silent_s = silent.as_secs_f64(),
                    "actor lost: no sign of life within its lease"
                );
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

    /// Whether every living actor has heard that the run is over.
    #[must_use]
    pub fn all_told_to_stop(&self) -> bool {
        self.actors
            .iter()
            .filter(|a| a.alive)
            .all(|a| a.told_to_stop)
    }

    /// Environment steps of all lives.
    #[must_use]
    pub fn env_steps(&self) -> u64 {
        self.past_steps + self.actors.iter().map(|a| a.env_steps).sum::<u64>()
    }

    /// Finished episodes of all lives.
    #[must_use]
    pub fn episodes(&self) -> u64 {
        self.past_episodes + self.actors.iter().map(|a| a.episodes).sum::<u64>()
    }

    /// Rows that actors of all lives gave up.
    #[must_use]
    pub fn rows_dropped(&self) -> u64 {
        self.past_dropped + self.actors.iter().map(|a| a.rows_dropped).sum::<u64>()
    }

    /// Mean error (finest steps) of the training episodes that ended since the
    /// last call; `None` when none did.
    pub fn take_episode_error(&mut self) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "episode counts are far below 2^52"
        )]
        let mean = (self.error_count > 0).then(|| self.error_sum / self.error_count as f64);
        (self.error_sum, self.error_count) = (0.0, 0);
        mean
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn settings() -> Settings {
        Settings {
            lease: S(10),
            epsilon_low: 0.02,
            epsilon_high: 0.3,
            first_incarnation: 100,
        }
    }

    fn beat(writer: Writer, env_steps: u64) -> Heartbeat {
        Heartbeat {
            writer,
            env_steps,
            episodes: env_steps / 10,
            rows_sent: 0,
            rows_dropped: 1,
            weights_version: 3,
            blocked_s: 0.0,
            episode_error: 4.0,
            episode_errors: 1,
        }
    }

    #[test]
    fn ids_are_reused_and_lives_rise() {
        let mut r = Registry::new(settings());
        let a = r.join(S(0), 4, "a").unwrap().writer;
        let b = r.join(S(1), 4, "b").unwrap().writer;
        assert_eq!(
            (a.actor, a.incarnation, b.actor, b.incarnation),
            (0, 100, 1, 100)
        );
        assert!(r.heartbeat(S(9), &beat(b, 50), false));
        // a's lease ends after 10 s; b's goes on.
        r.expire(S(11));
        assert_eq!(
            (r.alive(), r.actors()[0].alive, r.actors()[1].alive),
            (1, false, true)
        );
        assert!(
            !r.heartbeat(S(12), &beat(a, 70), false),
            "its lease has expired"
        );
        let c = r.join(S(12), 4, "c").unwrap().writer;
        assert_eq!((c.actor, c.incarnation), (0, 101));
        assert!(!r.heartbeat(S(12), &beat(a, 70), false), "a life before");
        assert!(r.heartbeat(S(12), &beat(c, 5), false));
        assert!(!r.heartbeat(
            S(12),
            &beat(
                Writer {
                    actor: 9,
                    incarnation: 1
                },
                0
            ),
            false
        ));
        assert_eq!(r.env_steps(), 55);
    }

    #[test]
    fn counters_survive_the_lives_that_made_them() {
        let mut r = Registry::new(settings());
        let a = r.join(S(0), 1, "a").unwrap().writer;
        assert!(r.heartbeat(S(1), &beat(a, 100), false));
        // An overtaken heartbeat does not count back.
        assert!(r.heartbeat(S(1), &beat(a, 90), false));
        let b = r.join(S(20), 1, "b").unwrap().writer;
        assert!(r.heartbeat(S(21), &beat(b, 30), false));
        assert_eq!(
            (r.env_steps(), r.episodes(), r.rows_dropped()),
            (130, 13, 2)
        );
        assert_eq!(
            (r.take_episode_error(), r.take_episode_error()),
            (Some(4.0), None)
        );
        assert!(!r.all_told_to_stop());
        assert!(r.heartbeat(S(22), &beat(b, 30), true));
        assert!(r.all_told_to_stop());
    }

    #[test]
    fn exploration_lies_between_its_ends() {
        let mut r = Registry::new(settings());
        let slots = r.join(S(0), 32, "a").unwrap().exploration;
        assert_eq!(slots.len(), 32);
        assert!(slots.iter().all(|e| (0.02..=0.3).contains(e)));
        let flat = Settings {
            epsilon_low: 0.1,
            epsilon_high: 0.1,
            ..settings()
        };
        assert!((epsilon(&flat, 7) - 0.1).abs() < 1e-6);
        let from_zero = Settings {
            epsilon_low: 0.0,
            ..settings()
        };
        assert!((0..100).all(|i| (0.0..=0.3).contains(&epsilon(&from_zero, i))));
    }

    proptest! {
        /// However many actors with however many slots: cut into quarters of the
        /// (geometric) range, each quarter has its part of the slots.
        #[test]
        fn any_number_of_actors_is_well_spread(actors in 1_usize..20, slots in 1_usize..40) {
            let mut r = Registry::new(settings());
            let all: Vec<f32> =
                (0..actors).flat_map(|_| r.join(S(0), slots, "").unwrap().exploration).collect();
            let mut quarters = [0_usize; 4];
            for e in &all {
                let share = (e / 0.02).ln() / (0.3_f32 / 0.02).ln();
                quarters[((share * 4.0) as usize).min(3)] += 1;
            }
            for q in quarters {
                prop_assert!(q.abs_diff(all.len() / 4) <= 2 + all.len() / 20, "{quarters:?}");
            }
        }
    }
}
