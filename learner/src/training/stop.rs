//! When training ends: one set of rules for the train thread and for lockstep.

use std::fmt;
use std::time::Duration;

use common::config::LearnerConfig;

/// The limits of `learner.updates`, `learner.max_minutes` and `learner.max_episodes`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRules {
    updates: u64,
    time: Option<Duration>,
    episodes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Updates,
    Time,
    Episodes,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Updates => "learner.updates reached",
            Self::Time => "time limit learner.max_minutes reached",
            Self::Episodes => "learner.max_episodes reached",
        })
    }
}

impl StopRules {
    /// The rules of a configuration, where 0 minutes or episodes mean no limit.
    pub fn new(config: &LearnerConfig) -> Self {
        let time = (config.max_minutes > 0.0)
            .then(|| Duration::try_from_secs_f64(config.max_minutes * 60.0).ok());
        Self {
            updates: config.updates,
            time: time.flatten(),
            episodes: Some(config.max_episodes).filter(|e| *e > 0),
        }
    }

    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The limit reached after this many updates and episodes in total, and
    /// this long after the first update of this process.
    pub fn reached(&self, updates: u64, episodes: u64, trained: Duration) -> Option<StopReason> {
        if updates >= self.updates {
            Some(StopReason::Updates)
        } else if self.time.is_some_and(|limit| trained >= limit) {
            Some(StopReason::Time)
        } else if self.episodes.is_some_and(|limit| episodes >= limit) {
            Some(StopReason::Episodes)
        } else {
            None
        }
    }

    /// Seconds to the limit that is reached first: the last update and the last episode at
    /// these rates, or the time limit; `None` if none is known. The time limit counts from the
    /// first update, so that before it the whole limit is left.
    pub fn left_s(&self, at: Reached) -> Option<f64> {
        let by_rate = |limit: u64, (done, per_s): (u64, f64)| {
            (per_s > 1e-3).then(|| limit.saturating_sub(done) as f64 / per_s)
        };
        let by_updates = by_rate(self.updates, at.updates);
        let by_episodes = self.episodes.and_then(|limit| by_rate(limit, at.episodes));
        let by_time = self.time.map(|limit| {
            let trained = at.trained_s.unwrap_or(0.0);
            (limit.as_secs_f64() - trained).max(0.0)
        });
        let all = [by_updates, by_episodes, by_time];
        all.into_iter().flatten().reduce(f64::min)
    }
}

/// How far a training is: totals with their rates per second, and seconds since the first
/// update of this process.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    pub updates: (u64, f64),
    pub episodes: (u64, f64),
    pub trained_s: Option<f64>,
}

#[cfg(test)]
mod tests {
    use common::config::Config;

    use super::*;

    fn rules(updates: u64, max_minutes: f64, max_episodes: u64) -> StopRules {
        let mut config = Config::defaults().unwrap().learner;
        (config.updates, config.max_minutes) = (updates, max_minutes);
        config.max_episodes = max_episodes;
        StopRules::new(&config)
    }

    #[test]
    fn the_first_limit_that_is_reached_ends_the_training() {
        let seconds = Duration::from_secs;
        let all = rules(100, 0.5, 40);
        assert_eq!(all.reached(99, 39, seconds(29)), None);
        assert_eq!(all.reached(100, 39, seconds(29)), Some(StopReason::Updates));
        assert_eq!(all.reached(0, 39, seconds(30)), Some(StopReason::Time));
        assert_eq!(all.reached(0, 40, seconds(0)), Some(StopReason::Episodes));
        let none = rules(100, 0.0, 0);
        assert_eq!(none.reached(99, u64::MAX, seconds(1 << 40)), None);
        assert_eq!(
            rules(0, 0.0, 0).reached(0, 0, seconds(0)),
            Some(StopReason::Updates)
        );
    }

    #[test]
    fn the_time_left_is_that_of_the_nearer_limit() {
        let at = |per_s, trained_s| Reached {
            updates: (60, per_s),
            episodes: (30, 2.0),
            trained_s,
        };
        let left = |minutes, per_s, trained| rules(100, minutes, 0).left_s(at(per_s, trained));
        assert_eq!(left(0.0, 0.0, Some(5.0)), None);
        assert_eq!(left(0.0, 4.0, None), Some(10.0));
        assert_eq!(left(0.25, 4.0, Some(8.0)), Some(7.0));
        assert_eq!(left(0.25, 0.0, Some(20.0)), Some(0.0));
        assert_eq!(left(9.0, 4.0, Some(8.0)), Some(10.0));
        // The limit of `--minutes` is known before the first update.
        assert_eq!(left(0.25, 0.0, None), Some(15.0));
        let by_episodes = rules(100, 9.0, 40).left_s(at(4.0, Some(8.0)));
        assert_eq!(by_episodes, Some(5.0));
    }
}
