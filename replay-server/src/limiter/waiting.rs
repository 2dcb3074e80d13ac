//! How long writers waited for credit, all together, up to this moment.
//!
//! Ongoing waits count: a shard that blocks everybody says so while it does.

use std::time::Duration;

/// Writers waiting and the seconds they spent; time is given, as time since start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    writers: u32,
    total: Duration,
    /// Up to when `total` counts.
    counted: Duration,
}

impl Waiting {
    /// Writers waiting now.
    #[must_use]
    pub fn writers(self) -> u32 {
        self.writers
    }

    /// A writer begins to wait.
    pub fn enter(&mut self, now: Duration) {
        *self = Self {
            writers: self.writers + 1,
            total: self.until(now),
            counted: now,
        };
    }

    /// A writer waits no longer.
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
