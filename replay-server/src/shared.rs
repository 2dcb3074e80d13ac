//! One shard for many tasks.
//!
//! A mutex around the shard, not a thread that owns it: everything slow
//! (decoding, checking, turning rows into columns) happens outside, what is left
//! inside is copying rows and summing priorities, and nobody awaits while
//! holding it. A batch that waits for credit waits outside too, so that a closed
//! limiter never holds a sample up.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::shard::{CheckedBatch, Insertion, Place, Shard};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After so long without credit the log says why.
const LONG_WAIT: Duration = Duration::from_secs(30);

/// A shard with its clock and the queue of those who wait for credit.
#[derive(Debug)]
pub struct SharedShard {
    shard: Mutex<Shard>,
    started: Instant,
    /// Held by the first of those who wait; the others queue for it, in order.
    first: tokio::sync::Mutex<()>,
    /// Wakes the first when there is more credit.
    granted: Notify,
}

impl SharedShard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Result<Self, ShardError> {
        Ok(Self {
            shard: Mutex::new(Shard::new(config)?),
            started: Instant::now(),
            first: tokio::sync::Mutex::new(()),
            granted: Notify::new(),
        })
    }

    /// Does something short with the shard, at this moment after the start.
    pub fn with<T>(&self, act: impl FnOnce(&mut Shard, Duration) -> T) -> Result<T, ShardError> {
        let mut shard = self.shard.lock().map_err(|_| ShardError::Poisoned)?;
        let now = self.started.elapsed();
        Ok(act(&mut shard, now))
    }

    /// Takes note of insert credit, and wakes who waits for it.
    pub fn grant(&self, incarnation: u64, insert_limit: u64) -> Result<(), ShardError> {
        if self.with(|shard, _| shard.grant(incarnation, insert_limit))? {
            self.granted.notify_one();
        }
        Ok(())
    }

    /// Stores a batch as soon as the limiter allows all its rows; the last
    /// batch stored from its writer. Dropping the future gives up the wait.
    pub async fn insert(&self, batch: &CheckedBatch) -> Result<u64, ShardError> {
        if let Some(acked) = self.try_insert(batch, Place::Arriving)? {
            return Ok(acked);
        }
        let _wait = Wait::enter(self)?;
        let _first = self.first.lock().await;
        loop {
            if let Some(acked) = self.try_insert(batch, Place::First)? {
                return Ok(acked);
            }
            // Credit granted since then left a permit: the wake-up cannot be missed.
            if tokio::time::timeout(LONG_WAIT, self.granted.notified())
                .await
                .is_err()
            {
                self.explain_wait(batch)?;
            }
        }
    }

    fn try_insert(&self, batch: &CheckedBatch, place: Place) -> Result<Option<u64>, ShardError> {
        match self.with(|shard, _| shard.insert(batch, place))?? {
            Insertion::Stored { acked } | Insertion::Duplicate { acked } => Ok(Some(acked)),
            Insertion::NoCredit => Ok(None),
        }
    }

    fn explain_wait(&self, batch: &CheckedBatch) -> Result<(), ShardError> {
        let (credit, summary) = self.with(|shard, now| (shard.credit(), shard.summary(now)))?;
        tracing::warn!(
            rows = batch.td_errors.len(),
            inserted = credit.inserted(),
            insert_limit = credit.limit(),
            writers_waiting = summary.writers_waiting,
            "inserts wait: the learner has allowed no more rows for {} s",
            LONG_WAIT.as_secs()
        );
        Ok(())
    }
}

/// Counts a writer as waiting for as long as it lives.
struct Wait<'a>(&'a SharedShard);

impl<'a> Wait<'a> {
    fn enter(shared: &'a SharedShard) -> Result<Self, ShardError> {
        shared.with(Shard::enter_wait)?;
        Ok(Self(shared))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // A poisoned shard answers nobody any more; its counters do not matter.
        let _ = self.0.with(Shard::leave_wait);
    }
}
