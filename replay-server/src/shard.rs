//! One shard: table, limiter and writers under one owner, without sockets,
//! clock or threads. Time comes as an argument, as time since the start.
//!
//! A journal, when there is one, stands beside the table: it records what
//! [`Shard::insert`] stores and [`Shard::update`] changes, and refills both.

use crate::config::ShardConfig;
use crate::credit::Credit;
use crate::error::ShardError;
use crate::table::{Sampled, Table, Update, Updated};
use crate::waiting::Waiting;
use crate::writers::Writers;
use common::row::RowShape;
use proto::hello::Hello;
use proto::insert::Writer;
use proto::sample::ShardSummary;
use proto::shard_status::ShardStatus;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// One batch, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedBatch {
    /// Who sent it.
    pub writer: Writer,
    /// Its number.
    pub sequence: u64,
    /// Its rows, one after another.
    pub packed: Vec<u8>,
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

/// One shard.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    /// The run and its rows; none before the first hello.
    open: Option<Open>,
    writers: Writers,
    credit: Credit,
    waiting: Waiting,
    rng: ChaCha8Rng,
    counters: Counters,
}

#[derive(Debug)]
struct Open {
    hello: Hello,
    table: Table,
}

#[derive(Debug, Default)]
struct Counters {
    sampled: u64,
    duplicates: u64,
    gaps: u64,
    stale_updates: u64,
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
            credit: Credit::default(),
            waiting: Waiting::default(),
            rng,
            counters: Counters::default(),
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
            return Ok(open.hello.check(hello)?);
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

    /// The run and its rows, once somebody said.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.open.as_ref().map(|open| &open.hello)
    }

    /// Stores a batch, if it is new and the limiter allows all of it.
    pub fn insert(&mut self, batch: &CheckedBatch, place: Place) -> Result<Insertion, ShardError> {
        let open = self.open.as_mut().ok_or(ShardError::NoHello)?;
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
        Ok(Insertion::Stored {
            acked: batch.sequence,
        })
    }

    /// The last batch stored from a writer; 0 before the first.
    #[must_use]
    pub fn acked(&self, writer: Writer) -> u64 {
        self.writers.last(writer)
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

    /// What every sample tells about the shard.
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

    /// What the shard tells people.
    #[must_use]
    pub fn status(&self, now: Duration) -> ShardStatus {
        ShardStatus {
            summary: self.summary(now),
            capacity: self.config.capacity as u64,
            insert_limit: self.credit.limit(),
            duplicates: self.counters.duplicates,
            gaps: self.counters.gaps,
            stale_updates: self.counters.stale_updates,
            refused_batches: self.counters.refused_batches,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: self.hello().map(|hello| hello.run_id.clone()),
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
