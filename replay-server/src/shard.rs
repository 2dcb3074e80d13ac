//! One shard: table, limiter and writers under one owner, without sockets,
//! clock or threads. Time comes as an argument, as time since the start.
//!
//! A journal, when there is one, stands beside the table ([`crate::service::shared`]):
//! it takes what [`Shard::insert`] stores, and [`crate::journal::restore`] puts it back.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::journal::snapshot::{Outline, Snapshot};
use crate::limiter::credit::Credit;
use crate::limiter::waiting::Waiting;
use crate::service::writers::Writers;
use crate::table::ages::Ages;
use crate::table::{Sampled, Table, Update, Updated};
use bytes::Bytes;
use common::transition::row::RowShape;
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
    /// Its number.
    pub sequence: u64,
    /// Its rows, one after another.
    pub packed: Bytes,
    /// |TD error| of each.
    pub td_errors: Vec<f32>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// It is in the table, as every batch of this writer up to `acked`.
    Stored {
        /// The writer's last stored batch.
        acked: u64,
        /// Number of the batch's first row: rows are counted over all lives.
        first_row: u64,
    },
    /// It was stored before.
    Duplicate {
        /// The writer's last stored batch.
        acked: u64,
    },
    /// The limiter does not allow it yet.
    NoCredit,
}

/// A batch's place among those that wait for credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has just come: behind all that wait, so that small batches cannot
    /// starve a large one.
    Arriving,
    /// It is the first of those that wait.
    First,
}

#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    /// The run and its rows; none before the first hello.
    open: Option<Open>,
    writers: Writers,
    credit: Credit,
    waiting: Waiting,
    ages: Ages,
    rng: ChaCha8Rng,
    counters: Counters,
    /// The number of the next row, over all lives.
    next_row: u64,
}

#[derive(Debug)]
struct Open {
    hello: Hello,
    table: Table,
}

/// Counts of this incarnation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows drawn.
    pub sampled: u64,
    /// Batches recognised as sent before.
    pub duplicates: u64,
    /// Batches that never arrived: sequence numbers skipped.
    pub gaps: u64,
    /// Priority updates for rows that were gone.
    pub stale_updates: u64,
    /// Batches refused for their content.
    pub refused_batches: u64,
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

    /// Lets a caller in that belongs to this shard's run. The first decides
    /// which run that is, unless the config did.
    pub fn join(&mut self, hello: &Hello) -> Result<(), ShardError> {
        if let Some(open) = &self.open {
            return open
                .hello
                .check(hello)
                .map_err(|mismatch| self.refusal(mismatch));
        }
        self.config.check_memory(hello.shape)?;
        let table = Table::new(
            self.config.capacity,
            hello.shape.bytes(),
            self.config.selector,
        );
        self.open = Some(Open {
            hello: hello.clone(),
            table,
        });
        Ok(())
    }

    /// Rows on disk outlive the shard, and so does the run that they are of.
    fn refusal(&self, mismatch: HelloMismatch) -> ShardError {
        match &self.config.journal {
            Some(journal) if self.next_row > 0 => ShardError::Kept {
                folder: journal.folder.clone(),
                mismatch,
            },
            _ => mismatch.into(),
        }
    }

    /// The run and its rows, once somebody said.
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
            return Ok(Insertion::Duplicate {
                acked: self.writers.last(batch.writer),
            });
        }
        let behind = place == Place::Arriving && self.waiting.writers() > 0;
        if behind || !self.credit.allows(batch.td_errors.len() as u64) {
            return Ok(Insertion::NoCredit);
        }
        open.table.insert(&batch.packed, &batch.td_errors)?;
        self.credit.spend(batch.td_errors.len() as u64);
        self.counters.gaps += self.writers.stored(batch.writer, batch.sequence);
        let first_row = self.next_row;
        self.next_row += batch.td_errors.len() as u64;
        let oldest = self.next_row.saturating_sub(open.table.slots() as u64);
        self.ages.came(first_row, oldest, now);
        Ok(Insertion::Stored {
            acked: batch.sequence,
            first_row,
        })
    }

    /// The number of the next row, over all lives of the shard.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Goes on where an earlier life ended: writers known then, the number of
    /// the next row, and an incarnation above that life's.
    pub(crate) fn go_on(&mut self, writers: Writers, next_row: u64, incarnation: u64) {
        self.writers = writers;
        self.next_row = next_row;
        let slots = self.open.as_ref().map_or(0, |open| open.table.slots());
        if slots > 0 {
            let oldest = next_row.saturating_sub(slots as u64);
            self.ages.came(oldest, oldest, Duration::ZERO);
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

    /// What a snapshot of this moment begins with.
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

    /// Appends what the tree holds for the rows with these numbers: zero for
    /// those that are lost or have left the table.
    pub fn weights(&self, rows: Range<u64>, out: &mut Vec<f64>) {
        let Some(Open { table, .. }) = &self.open else {
            return;
        };
        let oldest = self.next_row.saturating_sub(table.slots() as u64);
        let gone = rows.end.min(oldest).saturating_sub(rows.start);
        out.extend((0..gone).map(|_| 0.0));
        let age = |row: u64| usize::try_from(row.saturating_sub(oldest)).unwrap_or(usize::MAX);
        table.weights(age(rows.start)..age(rows.end), out);
    }

    /// Puts priorities and draws back, as far as their rows are here.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), ShardError> {
        let next_row = self.next_row;
        let table = self.table()?;
        // Numbers of the oldest row here and of the oldest with a priority there.
        let here = next_row.saturating_sub(table.slots() as u64);
        let there = snapshot.outline.end.saturating_sub(snapshot.outline.rows);
        let skip = usize::try_from(here.saturating_sub(there)).unwrap_or(usize::MAX);
        let first = usize::try_from(there.saturating_sub(here)).unwrap_or(usize::MAX);
        let weights = snapshot.weights.get(skip..).unwrap_or_default();
        table.reweigh(first, weights)?;
        self.rng.set_word_pos(snapshot.outline.random);
        Ok(())
    }

    /// Lets a writer begin: the last batch stored from it; 0 before the first.
    pub fn begin(&mut self, writer: Writer) -> Result<u64, ShardError> {
        self.writers.admit(writer)?;
        Ok(self.writers.last(writer))
    }

    /// Takes note of insert credit meant for the life `incarnation`; whether it
    /// allows more than before.
    pub fn grant(&mut self, incarnation: u64, insert_limit: u64) -> bool {
        incarnation == self.config.incarnation && self.credit.grant(insert_limit)
    }

    /// Rows that are allowed and not yet inserted, and rows inserted.
    #[must_use]
    pub fn credit(&self) -> Credit {
        self.credit
    }

    /// Draws `rows` rows, or none where there are none.
    pub fn sample(&mut self, rows: usize) -> Sampled {
        let Some(open) = &self.open else {
            return Sampled::default();
        };
        let sampled = open.table.sample(rows, &mut self.rng);
        self.counters.sampled += sampled.slots.len() as u64;
        sampled
    }

    /// Sets new priorities of rows sampled in the life `incarnation`.
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

    /// Counts a batch that was refused for what was in it.
    pub fn count_refused(&mut self) {
        self.counters.refused_batches += 1;
    }

    /// A writer begins to wait for credit.
    pub fn enter_wait(&mut self, now: Duration) {
        self.waiting.enter(now);
    }

    /// A writer waits no longer.
    pub fn leave_wait(&mut self, now: Duration) {
        self.waiting.leave(now);
    }

    /// What every sample reports about the shard.
    #[must_use]
    pub fn summary(&self, now: Duration) -> ShardSummary {
        let table = self.open.as_ref().map(|open| &open.table);
        ShardSummary {
            shard: self.config.shard,
            shard_incarnation: self.config.incarnation,
            rows: table.map_or(0, |table| table.len() as u64),
            mass: table.map_or(0.0, Table::mass),
            inserted: self.credit.inserted(),
            sampled: self.counters.sampled,
            insert_blocked_s: self.waiting.until(now).as_secs_f64(),
            writers_waiting: self.waiting.writers(),
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The shard's status, but for what is outside it.
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

    /// The shape of its rows, once somebody said.
    #[must_use]
    pub fn shape(&self) -> Option<RowShape> {
        self.hello().map(|hello| hello.shape)
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
