//! The shard's side of the samples-per-insert rate limiter.
//!
//! The learner's rate limiter covers all shards. It grants each an absolute
//! number: the rows that may be inserted during this incarnation of the shard.
//! Grants may arrive twice or out of order, so the largest counts.

use std::time::Duration;

/// Rows inserted and rows allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    inserted: u64,
    limit: u64,
}

impl Credit {
    /// Rows inserted in this incarnation.
    #[must_use]
    pub fn inserted(self) -> u64 {
        self.inserted
    }

    /// Rows that may be inserted in total in this incarnation.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Applies a grant; returns whether it raised the limit.
    pub fn grant(&mut self, limit: u64) -> bool {
        let raised = limit > self.limit;
        self.limit = self.limit.max(limit);
        raised
    }

    /// Whether a whole batch may be inserted.
    #[must_use]
    pub fn allows(self, rows: u64) -> bool {
        rows <= self.limit.saturating_sub(self.inserted)
    }

    /// Counts the rows of an inserted batch.
    pub fn spend(&mut self, rows: u64) {
        self.inserted += rows;
    }
}

/// The number of waiting writers and their total waiting time, ongoing waits included,
/// so that a blocked shard is visible while it is blocked. Times are given as time
/// since the start.
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
        (self.total, self.counted) = (self.until(now), now);
        self.writers += 1;
    }

    /// Counts a writer that stops waiting.
    pub fn leave(&mut self, now: Duration) {
        (self.total, self.counted) = (self.until(now), now);
        self.writers = self.writers.saturating_sub(1);
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
    fn a_batch_is_taken_whole_or_not_at_all() {
        let mut credit = Credit::default();
        assert!(!credit.allows(1));
        assert!(credit.grant(10));
        assert!(credit.allows(10) && !credit.allows(11));
        credit.spend(6);
        assert!(credit.allows(4) && !credit.allows(5));
        credit.spend(4);
        assert_eq!((credit.inserted(), credit.limit()), (10, 10));
        assert!(!credit.allows(1) && !credit.allows(u64::MAX));
    }

    #[test]
    fn late_and_repeated_grants_change_nothing() {
        let mut credit = Credit::default();
        assert!(credit.grant(10));
        assert!(!credit.grant(10));
        assert!(!credit.grant(4));
        assert_eq!(credit.limit(), 10);
    }

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
