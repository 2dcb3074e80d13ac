//! Limits how often a repeated warning is logged.

use std::time::{Duration, Instant};

/// Lets one warning per interval through and counts those that it suppresses.
///
/// The first warning of a trouble is due at once. [`Throttle::reset`] marks the end of the
/// trouble, so that the first warning of the next one does not have to wait for the interval.
#[derive(Debug, Clone)]
pub struct Throttle {
    interval: Duration,
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone)]
struct Trouble {
    began: Instant,
    /// When a warning was let through last.
    warned: Instant,
    suppressed: u64,
}

/// A warning that is to be logged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning {
    /// Warnings suppressed since the one before.
    pub suppressed: u64,
    /// Time since the first warning of this trouble; `None` for that first one.
    pub lasted: Option<Duration>,
}

impl Throttle {
    /// At most one warning per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            trouble: None,
        }
    }

    /// The warning to log at `now`, or `None` where it is suppressed.
    pub fn warning(&mut self, now: Instant) -> Option<Warning> {
        let is_due = self.is_due(now);
        let Some(trouble) = &mut self.trouble else {
            self.trouble = Some(Trouble {
                began: now,
                warned: now,
                suppressed: 0,
            });
            return Some(Warning {
                suppressed: 0,
                lasted: None,
            });
        };
        if !is_due {
            trouble.suppressed += 1;
            return None;
        }
        trouble.warned = now;
        Some(Warning {
            suppressed: std::mem::take(&mut trouble.suppressed),
            lasted: Some(now.duration_since(trouble.began)),
        })
    }

    /// Whether a warning at `now` would be let through.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let within = |trouble: &Trouble| now.duration_since(trouble.warned) < self.interval;
        !self.trouble.as_ref().is_some_and(within)
    }

    /// Ends the trouble; returns whether a warning about it was logged.
    pub fn reset(&mut self) -> bool {
        self.trouble.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn one_warning_per_interval_passes_with_the_number_suppressed() {
        let mut throttle = Throttle::new(INTERVAL);
        let begin = Instant::now();
        let passed: Vec<(u64, u64, Option<u64>)> = (0..35)
            .filter_map(|second| {
                let warning = throttle.warning(begin + Duration::from_secs(second))?;
                let lasted = warning.lasted.map(|lasted| lasted.as_secs());
                Some((second, warning.suppressed, lasted))
            })
            .collect();
        assert_eq!(
            passed,
            [
                (0, 0, None),
                (10, 9, Some(10)),
                (20, 9, Some(20)),
                (30, 9, Some(30))
            ]
        );
    }

    #[test]
    fn the_next_trouble_is_reported_at_once_and_starts_from_zero() {
        let mut throttle = Throttle::new(INTERVAL);
        let begin = Instant::now();
        assert!(!throttle.reset(), "nothing has been logged yet");
        assert!(throttle.warning(begin).is_some());
        assert!(!throttle.is_due(begin + INTERVAL / 2));
        assert_eq!(throttle.warning(begin + INTERVAL / 2), None);
        assert!(throttle.reset());
        let first = Warning {
            suppressed: 0,
            lasted: None,
        };
        assert!(throttle.is_due(begin + INTERVAL / 2));
        assert_eq!(throttle.warning(begin + INTERVAL / 2), Some(first));
    }

    #[test]
    fn a_clock_that_stands_still_suppresses_all_but_the_first() {
        let mut throttle = Throttle::new(INTERVAL);
        let now = Instant::now();
        let passed = (0..5).filter_map(|_| throttle.warning(now)).count();
        assert_eq!(passed, 1);
    }
}
