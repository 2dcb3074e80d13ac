//! The last sequence number of each writer, to recognise duplicate batches and
//! count missing ones.

use proto::messages::insert::Writer;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default)]
struct Incarnations {
    newest: u32,
    /// The earlier incarnation that was refused last: logged once.
    refused: u32,
}

/// An incarnation of an actor that a later one has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "incarnation {} of actor {} has been replaced by incarnation {newer}; join again",
    writer.incarnation, writer.actor
)]
pub struct ReplacedIncarnation {
    pub writer: Writer,
    /// The newest incarnation.
    pub newer: u32,
}

/// The last sequence number of every recently active writer.
#[derive(Debug, Clone, Default)]
pub struct Writers {
    /// Maximum number of entries; beyond it the least recently active writer is evicted.
    max: usize,
    last: HashMap<Writer, Last>,
    /// The newest incarnation of each actor; there are at most 65,536 actor ids.
    incarnations: HashMap<u16, Incarnations>,
    /// The newest of them.
    newest: u32,
    /// Counts batches, to order writers by their last activity.
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u64,
    turn: u64,
}

impl Writers {
    /// Keeps up to `max` writers. It should far exceed the actors of a run: a batch
    /// that an evicted writer sends again is stored twice.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            ..Self::default()
        }
    }

    /// Admits an incarnation of an actor unless a later one has connected: rows of
    /// a process that was declared lost but still runs, or replayed traffic, must
    /// not mix with those of its successor.
    ///
    /// # Errors
    /// [`ReplacedIncarnation`], logged once per incarnation.
    pub fn admit(&mut self, writer: Writer) -> Result<(), ReplacedIncarnation> {
        let known = self.incarnations.entry(writer.actor).or_default();
        if writer.incarnation >= known.newest {
            known.newest = writer.incarnation;
            self.newest = self.newest.max(writer.incarnation);
            return Ok(());
        }
        let newer = known.newest;
        if known.refused != writer.incarnation {
            known.refused = writer.incarnation;
            let Writer { actor, incarnation } = writer;
            tracing::warn!(
                actor,
                incarnation,
                newer,
                "rows of a replaced incarnation refused"
            );
        }
        Err(ReplacedIncarnation { writer, newer })
    }

    /// The newest incarnation of any actor; 0 for none.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The last sequence number stored from this writer; 0 before the first.
    #[must_use]
    pub fn last(&self, writer: Writer) -> u64 {
        self.last.get(&writer).map_or(0, |last| last.sequence)
    }

    /// Every writer with the last sequence number stored from it, the least
    /// recently active first.
    #[must_use]
    pub fn all(&self) -> Vec<(Writer, u64)> {
        let mut all: Vec<_> = self.last.iter().map(|(&w, &last)| (w, last)).collect();
        all.sort_unstable_by_key(|(_, last)| last.turn);
        let all = all.into_iter().map(|(w, last)| (w, last.sequence));
        all.collect()
    }

    /// Whether the batch was stored before.
    #[must_use]
    pub fn is_duplicate(&self, writer: Writer, sequence: u64) -> bool {
        sequence <= self.last(writer)
    }

    /// Records a stored batch; returns the number of batches missing before it.
    pub fn stored(&mut self, writer: Writer, sequence: u64) -> u64 {
        let gap = sequence.saturating_sub(self.last(writer)).saturating_sub(1);
        self.turn += 1;
        let known = self.incarnations.entry(writer.actor).or_default();
        known.newest = known.newest.max(writer.incarnation);
        self.newest = self.newest.max(writer.incarnation);
        let turn = self.turn;
        self.last.insert(writer, Last { sequence, turn });
        if self.last.len() > self.max {
            // Rare, and only a few thousand entries: a second index is not worthwhile.
            let oldest = self.last.iter().min_by_key(|(_, last)| last.turn);
            let oldest = oldest.map(|(&writer, _)| writer);
            oldest.map(|writer| self.last.remove(&writer));
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(actor: u16, incarnation: u32) -> Writer {
        Writer { actor, incarnation }
    }

    #[test]
    fn repeats_and_gaps_are_distinguished() {
        let mut writers = Writers::new(10);
        let one = writer(1, 1);
        assert!(!writers.is_duplicate(one, 1));
        assert_eq!(writers.stored(one, 1), 0);
        assert_eq!(writers.stored(one, 2), 0);
        assert!(writers.is_duplicate(one, 1) && writers.is_duplicate(one, 2));
        assert_eq!(writers.stored(one, 6), 3);
        assert_eq!(writers.last(one), 6);
    }

    #[test]
    fn each_incarnation_of_an_actor_counts_for_itself() {
        let mut writers = Writers::new(10);
        writers.stored(writer(1, 1), 5);
        assert!(!writers.is_duplicate(writer(1, 2), 1));
        assert!(!writers.is_duplicate(writer(2, 1), 1));
        assert_eq!(writers.stored(writer(1, 2), 3), 2);
        assert_eq!(writers.last(writer(1, 1)), 5);
    }

    #[test]
    fn a_later_incarnation_excludes_earlier_ones() {
        let mut writers = Writers::new(1);
        assert_eq!(writers.admit(writer(1, 5)), Ok(()));
        assert_eq!(writers.admit(writer(1, 5)), Ok(()));
        assert_eq!(writers.admit(writer(2, 3)), Ok(()));
        assert_eq!(writers.admit(writer(1, 7)), Ok(()));
        let replaced = writers.admit(writer(1, 5)).unwrap_err();
        assert_eq!((replaced.newer, replaced.writer.incarnation), (7, 5));
        assert!(replaced.to_string().contains("join again"), "{replaced}");
        // Rows from the journal count as well, even after their writer was evicted.
        writers.stored(writer(2, 9), 1);
        writers.stored(writer(3, 1), 1);
        assert!(writers.admit(writer(2, 8)).is_err());
        assert_eq!(writers.admit(writer(2, 9)), Ok(()));
        assert_eq!(writers.newest(), 9);
    }

    #[test]
    fn the_least_recently_active_writer_is_evicted() {
        let mut writers = Writers::new(2);
        writers.stored(writer(1, 1), 5);
        writers.stored(writer(2, 1), 5);
        writers.stored(writer(1, 1), 6);
        writers.stored(writer(3, 1), 1);
        assert_eq!(
            [1, 2, 3].map(|actor| writers.last(writer(actor, 1))),
            [6, 0, 1]
        );
        assert_eq!(writers.last.len(), 2);
    }
}
