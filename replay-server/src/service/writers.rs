//! What each writer sent last: a batch sent again is recognised, one that never
//! came is counted.

use proto::messages::insert::Writer;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default)]
struct Life {
    newest: u32,
    /// The former life that was turned away last: said once.
    turned_away: u32,
}

/// A life of an actor that a later one has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "life {} of actor {} is over: this shard has heard of its life {newer}; join again (and if this \
     is the learner's newest life, its clock runs behind that of the learner before it)",
    writer.incarnation, writer.actor
)]
pub struct FormerLife {
    pub writer: Writer,
    /// The one after it.
    pub newer: u32,
}

/// The last sequence number of every writer heard lately.
#[derive(Debug, Clone)]
pub struct Writers {
    /// Entries kept; beyond it the writer not heard for longest is forgotten.
    max: usize,
    last: HashMap<Writer, Last>,
    /// The newest life of each actor; ids are few, so this needs no bound of its own.
    lives: HashMap<u16, Life>,
    /// Counts batches, to tell who was heard when.
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u64,
    turn: u64,
}

impl Writers {
    /// Remembers up to `max` writers. It should exceed the actors of a run by
    /// far: a forgotten writer that sends a batch again has it stored twice.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            last: HashMap::new(),
            lives: HashMap::new(),
            turn: 0,
        }
    }

    /// Lets a life of an actor in, unless a later one was here: what a process
    /// sends that was given up and does not know it, or that somebody recorded
    /// and sends again, must not mix with what its successor sends.
    ///
    /// # Errors
    /// [`FormerLife`], said in the log once per life.
    pub fn admit(&mut self, writer: Writer) -> Result<(), FormerLife> {
        let life = self.lives.entry(writer.actor).or_default();
        if writer.incarnation >= life.newest {
            life.newest = writer.incarnation;
            return Ok(());
        }
        let newer = life.newest;
        if life.turned_away != writer.incarnation {
            life.turned_away = writer.incarnation;
            let Writer { actor, incarnation } = writer;
            tracing::warn!(actor, incarnation, newer, "rows of a former life refused");
        }
        Err(FormerLife { writer, newer })
    }

    /// The last sequence number stored from this writer; 0 before the first.
    #[must_use]
    pub fn last(&self, writer: Writer) -> u64 {
        self.last.get(&writer).map_or(0, |last| last.sequence)
    }

    /// Every writer with the last sequence number stored from it, the one not
    /// heard for longest first.
    #[must_use]
    pub fn all(&self) -> Vec<(Writer, u64)> {
        let mut all: Vec<_> = self.last.iter().map(|(&w, &last)| (w, last)).collect();
        all.sort_unstable_by_key(|(_, last)| last.turn);
        all.into_iter()
            .map(|(w, last)| (w, last.sequence))
            .collect()
    }

    /// Whether the batch was stored before.
    #[must_use]
    pub fn is_duplicate(&self, writer: Writer, sequence: u64) -> bool {
        sequence <= self.last(writer)
    }

    /// Takes note of a stored batch; how many before it never came.
    pub fn stored(&mut self, writer: Writer, sequence: u64) -> u64 {
        let gap = sequence.saturating_sub(self.last(writer)).saturating_sub(1);
        self.turn += 1;
        let life = self.lives.entry(writer.actor).or_default();
        life.newest = life.newest.max(writer.incarnation);
        self.last.insert(
            writer,
            Last {
                sequence,
                turn: self.turn,
            },
        );
        if self.last.len() > self.max {
            // Rare, and a few thousand entries: not worth a second index.
            let oldest = self
                .last
                .iter()
                .min_by_key(|(_, last)| last.turn)
                .map(|(&writer, _)| writer);
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
    fn repeats_and_gaps_are_told_apart() {
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
    fn each_life_of_an_actor_counts_for_itself() {
        let mut writers = Writers::new(10);
        writers.stored(writer(1, 1), 5);
        assert!(!writers.is_duplicate(writer(1, 2), 1));
        assert!(!writers.is_duplicate(writer(2, 1), 1));
        assert_eq!(writers.stored(writer(1, 2), 3), 2);
        assert_eq!(writers.last(writer(1, 1)), 5);
    }

    #[test]
    fn a_later_life_shuts_the_former_ones_out() {
        let mut writers = Writers::new(1);
        assert_eq!(writers.admit(writer(1, 5)), Ok(()));
        assert_eq!(writers.admit(writer(1, 5)), Ok(()));
        assert_eq!(writers.admit(writer(2, 3)), Ok(()));
        assert_eq!(writers.admit(writer(1, 7)), Ok(()));
        let former = writers.admit(writer(1, 5)).unwrap_err();
        assert_eq!((former.newer, former.writer.incarnation), (7, 5));
        assert!(former.to_string().contains("join again"), "{former}");
        // Rows found in the journal count as well, and are not forgotten with their writer.
        writers.stored(writer(2, 9), 1);
        writers.stored(writer(3, 1), 1);
        assert!(writers.admit(writer(2, 8)).is_err());
        assert_eq!(writers.admit(writer(2, 9)), Ok(()));
    }

    #[test]
    fn the_writer_not_heard_for_longest_is_forgotten() {
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
