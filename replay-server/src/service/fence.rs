//! Which learner a shard serves: the newest that calls.
//!
//! Two learners of one run would each grant insert credit by their own counts of
//! samples, and so raise the ratio of inserts to samples for each other.

use std::time::Duration;

/// A learner that has not called for this long is lost, and an earlier one may take its place:
/// longer than any call takes.
const LOST: Duration = Duration::from_secs(10);

/// A learner that a later one has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a learner that started later trains with this shard: stop one of the two; {} s after the \
     last call of the later one this shard serves the earlier one again", LOST.as_secs()
)]
pub struct ReplacedLearner;

/// Serves one learner at a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fence {
    learner: u64,
    /// When it called last.
    called: Duration,
    /// The learner that was refused last: logged once.
    refused: u64,
}

impl Fence {
    /// Admits a call of the newest learner, or of any while the newest is lost. A learner's number
    /// is larger than those of all that started before it; 0 if it sends none.
    ///
    /// # Errors
    /// [`ReplacedLearner`], logged once per learner.
    pub fn admit(&mut self, learner: u64, now: Duration) -> Result<(), ReplacedLearner> {
        if learner < self.learner && now.saturating_sub(self.called) < LOST {
            if std::mem::replace(&mut self.refused, learner) != learner {
                let newest = self.learner;
                tracing::warn!(learner, newest, "a learner is refused: a later one calls");
            }
            return Err(ReplacedLearner);
        }
        let before = std::mem::replace(&mut self.learner, learner);
        if before != learner && before != 0 {
            tracing::info!(
                before,
                learner,
                "another learner trains with this shard now"
            );
        }
        self.called = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_learner_that_calls_is_served() {
        let s = Duration::from_secs;
        let mut fence = Fence::default();
        assert_eq!(fence.admit(0, s(1)), Ok(()), "of an earlier version");
        assert_eq!(fence.admit(5, s(1)), Ok(()));
        assert_eq!(fence.admit(4, s(2)), Err(ReplacedLearner));
        assert_eq!(fence.admit(0, s(2)), Err(ReplacedLearner));
        assert_eq!(fence.admit(7, s(3)), Ok(()), "it restarted");
        for second in 3..30 {
            assert_eq!(fence.admit(5, s(second)), Err(ReplacedLearner));
            assert_eq!(fence.admit(7, s(second)), Ok(()));
        }
    }

    /// Its clock is behind, and nothing else says that it is newer.
    #[test]
    fn an_earlier_learner_is_served_once_the_newest_is_lost() {
        let s = Duration::from_secs;
        let mut fence = Fence::default();
        assert_eq!(fence.admit(7, s(3)), Ok(()));
        assert_eq!(fence.admit(5, s(12)), Err(ReplacedLearner));
        assert_eq!(fence.admit(5, s(13)), Ok(()));
        assert_eq!(fence.admit(7, s(14)), Ok(()), "it was only slow");
        assert_eq!(fence.admit(5, s(14)), Err(ReplacedLearner));
    }
}
