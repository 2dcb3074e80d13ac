//! The total time that writers have waited for credit, ongoing waits included, so
//! that a blocked shard is visible while it is blocked.

use std::time::Duration;

/// The number of waiting writers and their total waiting time. Times are given as
/// time since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    writers: u32,
    total: Duration,
    /// The time up to which `total` counts.
    counted: Duration,
}

impl Waiting {
    /// Number of writers that are waiting.
    #[must_use]
    pub fn writers(self) -> u32 {
        self.writers
    }

    /// Counts a writer that starts waiting.
    pub fn enter(&mut self, now: Duration) {
        *self = Self {
            writers: self.writers + 1,
            total: self.until(now),
            counted: now,
        };
    }

    /// Counts a writer that stops waiting.
    pub fn leave(&mut self, now: Duration) {
        *self = Self {
            writers: self.writers.saturating_sub(1),
            total: self.until(now),
            counted: now,
        };
    }

    /// All writers' waiting time until now.
    #[must_use]
    pub fn until(self, now: Duration) -> Duration {
        self.total + now.saturating_sub(self.counted) * self.writers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_while_they_last() {
        let s = Duration::from_secs;
        let mut waiting = Waiting::default();
        assert_eq!(waiting.until(s(5)), s(0));
        waiting.enter(s(10));
        assert_eq!(waiting.until(s(12)), s(2));
        waiting.enter(s(12));
        assert_eq!((waiting.writers(), waiting.until(s(13))), (2, s(4)));
        waiting.leave(s(14));
        waiting.leave(s(15));
        assert_eq!((waiting.writers(), waiting.until(s(99))), (0, s(7)));
    }
}
