//! One shard: owns table, limiter and writers, without sockets, clock or threads.
//! Time is passed as an argument, as time since the start.
//!
//! The optional journal is separate ([`crate::service::shared`]): it receives what
//! [`Shard::insert`] stores, and [`crate::journal::restore`] restores it.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::journal::snapshot::{Outline, Snapshot};
use crate::limiter::{Credit, Waiting};
use crate::service::fence::{Fence, ReplacedLearner};
use crate::service::writers::Writers;
use crate::table::ages::Ages;
use crate::table::{Sampled, Table, Update, Updated};
use bytes::Bytes;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use proto::messages::mismatch::HelloMismatch;
use proto::messages::status::{ShardStatus, ShardSummary};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct CheckedBatch {
    /// Who sent it.
    pub writer: Writer,
    pub sequence: u64,
    /// Its packed rows.
    pub packed: Bytes,
    /// |TD error| of each row.
    pub td_errors: Vec<f32>,
}

/// The result of inserting a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// It is in the table, like every batch of this writer up to `acked`; its first
    /// row has the number `first_row`, counted over all incarnations.
    Stored { acked: u64, first_row: u64 },
    /// It was stored before; `acked` is the writer's last stored batch.
    Duplicate { acked: u64 },
    /// The limiter does not allow it yet.
    NoCredit,
}

/// A batch's place in the queue for credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has just arrived: behind all waiting batches, so that small batches
    /// cannot starve a large one.
    Arriving,
    /// It is the first in the queue.
    First,
}

#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    /// The run and its rows; none before the first hello.
    open: Option<Open>,
    writers: Writers,
    fence: Fence,
    credit: Credit,
    waiting: Waiting,
    ages: Ages,
    rng: ChaCha8Rng,
    counters: Counters,
    /// The number of the next row, over all incarnations.
    next_row: u64,
}

#[derive(Debug)]
struct Open {
    hello: Hello,
    table: Table,
}

/// Counters of this incarnation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    /// Rows drawn.
    sampled: u64,
    /// Batches recognised as sent before.
    duplicates: u64,
    /// Batches that never arrived: sequence numbers skipped.
    gaps: u64,
    /// Priority updates for rows that had left the table.
    stale_updates: u64,
    /// Batches refused for their content.
    refused_batches: u64,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Result<Self, ShardError> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(config.shard.into());
        let mut shard = Self {
            open: None,
            writers: Writers::new(config.writers_max),
            fence: Fence::default(),
            credit: Credit::default(),
            waiting: Waiting::default(),
            ages: Ages::new(config.capacity as u64),
            rng,
            counters: Counters::default(),
            next_row: 0,
            config,
        };
        if let Some(hello) = shard.config.hello.clone() {
            shard.join(&hello)?;
        }
        Ok(shard)
    }

    /// Admits callers of this shard's run. The first caller determines the run,
    /// unless the config does.
    pub fn join(&mut self, hello: &Hello) -> Result<(), ShardError> {
        if let Some(open) = &self.open {
            let checked = open.hello.check(hello);
            return checked.map_err(|mismatch| self.refusal(mismatch));
        }
        self.config.check_memory(hello.shape)?;
        let (capacity, selector) = (self.config.capacity, self.config.selector);
        let table = Table::new(capacity, hello.shape.bytes(), selector);
        let hello = hello.clone();
        self.open = Some(Open { hello, table });
        Ok(())
    }

    /// With rows in the journal a restart keeps the run; the error must state that.
    fn refusal(&self, mismatch: HelloMismatch) -> ShardError {
        match &self.config.journal {
            Some(journal) if self.next_row > 0 => ShardError::Kept {
                folder: journal.folder.clone(),
                mismatch,
            },
            _ => mismatch.into(),
        }
    }

    /// The run and its row shape, once known.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.open.as_ref().map(|open| &open.hello)
    }

    /// Stores a batch, if it is new and the limiter allows all of it.
    pub fn insert(
        &mut self,
        batch: &CheckedBatch,
        place: Place,
        now: Duration,
    ) -> Result<Insertion, ShardError> {
        let open = self.open.as_mut().ok_or(ShardError::NoHello)?;
        self.writers.admit(batch.writer)?;
        if self.writers.is_duplicate(batch.writer, batch.sequence) {
            self.counters.duplicates += 1;
            let acked = self.writers.last(batch.writer);
            return Ok(Insertion::Duplicate { acked });
        }
        let (acked, rows) = (batch.sequence, batch.td_errors.len() as u64);
        let behind = place == Place::Arriving && self.waiting.writers() > 0;
        if behind || !self.credit.allows(rows) {
            return Ok(Insertion::NoCredit);
        }
        open.table.insert(&batch.packed, &batch.td_errors)?;
        self.credit.spend(rows);
        self.counters.gaps += self.writers.stored(batch.writer, acked);
        let first_row = self.next_row;
        self.next_row += rows;
        let oldest = self.next_row.saturating_sub(open.table.slots() as u64);
        self.ages.arrived(first_row, oldest, now);
        Ok(Insertion::Stored { acked, first_row })
    }

    /// The number of the next row, over all incarnations of the shard.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    #[must_use]
    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Continues where an earlier incarnation ended, with its writers, its next row
    /// number, and an incarnation above its own.
    pub(crate) fn resume(&mut self, writers: Writers, next_row: u64, incarnation: u64) {
        self.writers = writers;
        self.next_row = next_row;
        let slots = self.open.as_ref().map_or(0, |open| open.table.slots());
        if slots > 0 {
            let oldest = next_row.saturating_sub(slots as u64);
            self.ages.arrived(oldest, oldest, Duration::ZERO);
        }
        let above = incarnation.saturating_add(1);
        self.config.incarnation = self.config.incarnation.max(above);
    }

    /// Rows in the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.table.len())
    }

    /// The table, once there is one.
    pub(crate) fn table(&mut self) -> Result<&mut Table, ShardError> {
        let open = self.open.as_mut().ok_or(ShardError::NoHello)?;
        Ok(&mut open.table)
    }

    /// The head of a snapshot taken now.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let table = self.open.as_ref().map(|open| &open.table);
        Outline {
            selector: self.config.selector,
            end: self.next_row,
            random: self.rng.get_word_pos(),
            rows: table.map_or(0, |table| table.slots() as u64),
        }
    }

    /// Appends the tree's weights of the rows with these numbers: zero for rows that
    /// are lost or have left the table.
    pub fn weights(&self, rows: Range<u64>, out: &mut Vec<f64>) {
        let Some(Open { table, .. }) = &self.open else {
            return;
        };
        let oldest = self.next_row.saturating_sub(table.slots() as u64);
        let left = rows.end.min(oldest).saturating_sub(rows.start);
        out.extend((0..left).map(|_| 0.0));
        let age = |row: u64| usize::try_from(row.saturating_sub(oldest)).unwrap_or(usize::MAX);
        table.weights(age(rows.start)..age(rows.end), out);
    }

    /// Restores the priorities of the rows in the table, and the sampler's state.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), ShardError> {
        let next_row = self.next_row;
        let table = self.table()?;
        // Numbers of the oldest row in the table and of the oldest in the snapshot.
        let here = next_row.saturating_sub(table.slots() as u64);
        let there = snapshot.outline.end.saturating_sub(snapshot.outline.rows);
        let skip = usize::try_from(here.saturating_sub(there)).unwrap_or(usize::MAX);
        let first = usize::try_from(there.saturating_sub(here)).unwrap_or(usize::MAX);
        let weights = snapshot.weights.get(skip..).unwrap_or_default();
        table.reweigh(first, weights)?;
        self.rng.set_word_pos(snapshot.outline.random);
        Ok(())
    }

    /// Admits a writer; returns its last stored batch, 0 before the first.
    pub fn begin(&mut self, writer: Writer) -> Result<u64, ShardError> {
        self.writers.admit(writer)?;
        Ok(self.writers.last(writer))
    }

    /// Admits a call of a learner, unless a later one calls.
    pub fn admit_learner(&mut self, learner: u64, now: Duration) -> Result<(), ReplacedLearner> {
        self.fence.admit(learner, now)
    }

    /// Applies insert credit granted to `incarnation`; returns whether it raised
    /// the limit.
    pub fn grant(&mut self, incarnation: u64, insert_limit: u64) -> bool {
        incarnation == self.config.incarnation && self.credit.grant(insert_limit)
    }

    /// Rows inserted and the limit.
    #[must_use]
    pub fn credit(&self) -> Credit {
        self.credit
    }

    /// Samples `rows` rows; none from an empty table.
    pub fn sample(&mut self, rows: usize) -> Sampled {
        let Some(open) = &self.open else {
            return Sampled::default();
        };
        let sampled = open.table.sample(rows, &mut self.rng);
        self.counters.sampled += sampled.slots.len() as u64;
        sampled
    }

    /// Updates the priorities of rows sampled from `incarnation`.
    pub fn update(&mut self, incarnation: u64, updates: &[Update]) -> Result<Updated, ShardError> {
        let updated = match &mut self.open {
            Some(open) if incarnation == self.config.incarnation => open.table.update(updates)?,
            _ => Updated {
                applied: 0,
                stale: updates.len() as u64,
            },
        };
        self.counters.stale_updates += updated.stale;
        Ok(updated)
    }

    /// Counts a batch that was refused for its content.
    pub fn count_refused(&mut self) {
        self.counters.refused_batches += 1;
    }

    /// Counts a writer that starts waiting for credit.
    pub fn enter_wait(&mut self, now: Duration) {
        self.waiting.enter(now);
    }

    /// Counts a writer that stops waiting.
    pub fn leave_wait(&mut self, now: Duration) {
        self.waiting.leave(now);
    }

    /// The summary that every sample reply carries.
    #[must_use]
    pub fn summary(&self, now: Duration) -> ShardSummary {
        let table = self.open.as_ref().map(|open| &open.table);
        ShardSummary {
            shard: self.config.shard,
            shard_incarnation: self.config.incarnation,
            rows: table.map_or(0, |table| table.len() as u64),
            priority_sum: table.map_or(0.0, Table::priority_sum),
            inserted: self.credit.inserted(),
            sampled: self.counters.sampled,
            insert_blocked_s: self.waiting.until(now).as_secs_f64(),
            writers_waiting: self.waiting.writers(),
            newest_writer: self.writers.newest(),
        }
    }

    /// The shard's status without the journal and the streams.
    #[must_use]
    pub fn status(&self, now: Duration) -> ShardStatus {
        ShardStatus {
            summary: Some(self.summary(now)),
            capacity: self.config.capacity as u64,
            insert_limit: self.credit.limit(),
            duplicates: self.counters.duplicates,
            gaps: self.counters.gaps,
            stale_updates: self.counters.stale_updates,
            refused_batches: self.counters.refused_batches,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: self.hello().map(|hello| hello.run_id.clone()),
            next_row: self.next_row,
            journal: None,
            oldest_row_s: self.ages.oldest(now).as_secs_f64(),
            insert_streams: 0,
            unacknowledged: 0,
        }
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
