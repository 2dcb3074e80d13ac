//! One shard shared by many tasks.
//!
//! The shard is behind a mutex. Slow work (decoding, checking, encoding) happens
//! outside it; only copying rows and summing priorities happens inside, and no task
//! awaits while holding it. Batches wait for credit outside too, so the limiter
//! never delays a sample. Nor does the disk: the journal receives batches in the
//! order of the table and writes them on its own thread.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::journal::JournalError;
use crate::journal::disk::RealDisk;
use crate::journal::log::Entry;
use crate::journal::restore::{Restored, restore};
use crate::journal::snapshot::{self, Pieces};
use crate::journal::thread::{Journal, Room};
use crate::shard::{CheckedBatch, Insertion, Place, Shard};
use common::run::lock::LockFile;
use common::run::telemetry::in_current_span;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use proto::messages::status::ShardStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A wait for credit longer than this is logged.
const LONG_WAIT: Duration = Duration::from_secs(30);

/// A stored batch, to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// The sequence number of the writer's last stored batch.
    pub sequence: u64,
    /// The batch is durable once the rows below this number are on the disk.
    pub end: u64,
}

/// A completed snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// One past the number of its last row.
    pub row: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// A shard with its clock and the queue of writers that wait for credit.
#[derive(Debug)]
pub struct SharedShard {
    shard: Mutex<Shard>,
    journal: Option<Journal>,
    /// Locks the journal's folder.
    _lock: Option<LockFile>,
    /// Held while a snapshot is taken, also by the thread that writes it: a cancelled
    /// task must not overwrite a later snapshot.
    snapshot: Arc<tokio::sync::Mutex<Pieces>>,
    started: Instant,
    /// One more reference for each open insert stream.
    streams: Arc<()>,
    /// One more reference for each batch stored and not yet acknowledged.
    unacknowledged: Arc<()>,
    /// Held by the first waiting writer; the others queue for it in order.
    first: tokio::sync::Mutex<()>,
    /// Wakes the first waiting writer when credit is granted.
    granted: Notify,
    /// Milliseconds from the start to the learner's last call.
    called_ms: AtomicU64,
}

impl SharedShard {
    /// Restores a shard from its journal, or creates an empty one. Blocks.
    pub fn new(config: ShardConfig) -> Result<Self, ShardError> {
        let (shard, journal, lock) = match config.journal.clone() {
            None => (Shard::new(config)?, None, None),
            Some(settings) => {
                let Restored { shard, log, lock } = restore(config, &settings)?;
                let journal = Journal::start(log, RealDisk, &settings)?;
                (shard, Some(journal), Some(lock))
            }
        };
        Ok(Self {
            shard: Mutex::new(shard),
            journal,
            _lock: lock,
            snapshot: Arc::default(),
            started: Instant::now(),
            streams: Arc::default(),
            unacknowledged: Arc::default(),
            first: tokio::sync::Mutex::new(()),
            granted: Notify::new(),
            called_ms: AtomicU64::new(0),
        })
    }

    /// Calls `act` with the locked shard and the time since the start; `act` must be short.
    pub fn with<T>(&self, act: impl FnOnce(&mut Shard, Duration) -> T) -> Result<T, ShardError> {
        let mut shard = self.shard.lock().map_err(|_| ShardError::Poisoned)?;
        let now = self.started.elapsed();
        Ok(act(&mut shard, now))
    }

    /// Fails if the shard can serve no more: a task panicked in the middle of a change of the table,
    /// or the thread that writes rows has ended. Does not block.
    pub fn check(&self) -> Result<(), ShardError> {
        if self.shard.is_poisoned() {
            return Err(ShardError::Poisoned);
        }
        match &self.journal {
            Some(journal) if !journal.is_alive() => Err(JournalError::Gone.into()),
            _ => Ok(()),
        }
    }

    /// Applies a grant of insert credit, which each call of the learner brings, and wakes the
    /// first waiting writer.
    pub fn grant(&self, incarnation: u64, insert_limit: u64) -> Result<(), ShardError> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.called_ms.store(now_ms, Ordering::Relaxed);
        if self.with(|shard, _| shard.grant(incarnation, insert_limit))? {
            self.granted.notify_one();
        }
        Ok(())
    }

    /// Admits callers of this shard's run; the first caller determines the run.
    pub fn join(&self, hello: &Hello) -> Result<(), ShardError> {
        self.with(|shard, _| {
            let first = shard.hello().is_none();
            shard.join(hello)?;
            if first {
                common::run::telemetry::name_run(&hello.run_id);
            }
            match &self.journal {
                Some(journal) if first => Ok(journal.join(hello)?),
                _ => Ok(()),
            }
        })?
    }

    /// Admits a call of the newest learner.
    pub fn admit_learner(&self, learner: u64) -> Result<(), ShardError> {
        self.with(|shard, now| Ok(shard.admit_learner(learner, now)?))?
    }

    /// Whether rows are kept on disk.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.journal.is_some()
    }

    /// Admits a writer and returns its last stored batch, for the first reply.
    pub fn begin(&self, writer: Writer) -> Result<Acked, ShardError> {
        self.with(|shard, _| {
            Ok(Acked {
                sequence: shard.begin(writer)?,
                end: shard.next_row(),
            })
        })?
    }

    /// Returns once all rows below this number are on the disk; immediately
    /// without a journal.
    pub async fn durable(&self, row: u64) -> Result<(), ShardError> {
        match &self.journal {
            Some(journal) => Ok(journal.durable(row).await?),
            None => Ok(()),
        }
    }

    /// Stores a batch as soon as the limiter and the journal have room for all
    /// its rows. `urgent`: a task will wait until it is on the disk. Dropping the
    /// future cancels the wait.
    pub async fn insert(&self, batch: CheckedBatch, urgent: bool) -> Result<Acked, ShardError> {
        let room = match &self.journal {
            Some(journal) => Some(journal.room(batch.packed.len()).await?),
            None => None,
        };
        let mut pending = Pending {
            batch: Arc::new(batch),
            urgent,
            room,
        };
        if let Some(acked) = self.try_insert(&mut pending, Place::Arriving)? {
            return Ok(acked);
        }
        let _wait = Wait::enter(self)?;
        let _first = self.first.lock().await;
        loop {
            if let Some(acked) = self.try_insert(&mut pending, Place::First)? {
                return Ok(acked);
            }
            // Credit granted since `try_insert` left a permit, so no wake-up is missed.
            let granted = tokio::time::timeout(LONG_WAIT, self.granted.notified());
            if granted.await.is_err() {
                self.log_wait(&pending.batch)?;
            }
        }
    }

    fn try_insert(&self, pending: &mut Pending, place: Place) -> Result<Option<Acked>, ShardError> {
        self.with(|shard, now| {
            let sequence = match shard.insert(&pending.batch, place, now)? {
                Insertion::NoCredit => return Ok(None),
                Insertion::Duplicate { acked } => acked,
                Insertion::Stored { acked, first_row } => {
                    // Under the same lock, so that journal and table have the same order.
                    if let (Some(journal), Some(room)) = (&self.journal, pending.room.take()) {
                        let batch = pending.batch.clone();
                        journal.append(Entry { first_row, batch }, pending.urgent, room)?;
                    }
                    acked
                }
            };
            let end = shard.next_row();
            Ok(Some(Acked { sequence, end }))
        })?
    }

    /// Saves the priorities; `None` without a journal or without rows.
    pub async fn snapshot(self: &Arc<Self>) -> Result<Option<Taken>, ShardError> {
        let Some(journal) = &self.journal else {
            return Ok(None);
        };
        let mut pieces = self.snapshot.clone().lock_owned().await;
        let (outline, folder) = self.with(|shard, _| {
            let folder = shard.config().journal.as_ref().map(|j| j.folder.clone());
            (shard.outline(), folder)
        })?;
        let Some(folder) = folder.filter(|_| outline.rows > 0) else {
            return Ok(None);
        };
        // A snapshot must not cover rows that a crash could lose: their numbers would be reused.
        journal.durable(outline.end).await?;
        let shared = self.clone();
        let write = in_current_span(move || {
            // One lock per piece, so that other tasks wait for one piece at most.
            snapshot::write(&folder, &outline, &mut pieces, |rows, out| {
                shared.with(|shard, _| shard.weights(rows, out))
            })
        });
        let written = tokio::task::spawn_blocking(write);
        let bytes = written.await.map_err(|_| JournalError::Gone)??;
        let row = outline.end;
        Ok(Some(Taken { row, bytes }))
    }

    /// Commits all rows to the disk and stops the journal. Blocks.
    pub fn stop(&self) -> Result<(), ShardError> {
        match &self.journal {
            Some(journal) => Ok(journal.stop()?),
            None => Ok(()),
        }
    }

    /// Counts an insert stream until the returned value is dropped.
    #[must_use]
    pub fn stream(&self) -> Arc<()> {
        self.streams.clone()
    }

    /// Counts an unacknowledged batch until the returned value is dropped.
    #[must_use]
    pub fn unacknowledged(&self) -> Arc<()> {
        self.unacknowledged.clone()
    }

    /// The status of the shard and its journal.
    pub fn status(&self) -> Result<ShardStatus, ShardError> {
        let mut status = self.with(|shard, now| shard.status(now))?;
        status.journal = self.journal.as_ref().map(Journal::status);
        let count = |counted: &Arc<()>| Arc::strong_count(counted) as u64 - 1;
        status.insert_streams = count(&self.streams);
        status.unacknowledged = count(&self.unacknowledged);
        Ok(status)
    }

    /// Time since the learner's last call.
    fn silence(&self) -> Duration {
        let called = Duration::from_millis(self.called_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(called)
    }

    /// Logs a long wait for credit. A learner that calls and grants nothing trains on the rows
    /// that it has: actors that are faster wait for it. Without its calls something is wrong.
    fn log_wait(&self, batch: &CheckedBatch) -> Result<(), ShardError> {
        let (credit, summary) = self.with(|shard, now| (shard.credit(), shard.summary(now)))?;
        let (rows, inserted) = (batch.td_errors.len(), credit.inserted());
        let (insert_limit, writers_waiting) = (credit.limit(), summary.writers_waiting);
        let silent_s = self.silence().as_secs();
        if silent_s < LONG_WAIT.as_secs() {
            tracing::info!(
                rows,
                inserted,
                insert_limit,
                writers_waiting,
                "inserts wait until the learner has trained on more of the rows"
            );
        } else {
            tracing::warn!(
                rows,
                inserted,
                insert_limit,
                writers_waiting,
                silent_s,
                "inserts wait: the learner does not call this shard; see its log"
            );
        }
        Ok(())
    }
}

/// A batch to be inserted into the table and the journal.
struct Pending {
    batch: Arc<CheckedBatch>,
    urgent: bool,
    room: Option<Room>,
}

/// Counts a writer as waiting until it is dropped.
struct Wait<'a>(&'a SharedShard);

impl<'a> Wait<'a> {
    fn enter(shared: &'a SharedShard) -> Result<Self, ShardError> {
        shared.with(Shard::enter_wait)?;
        Ok(Self(shared))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // A poisoned shard serves no more requests; its counters do not matter.
        let _ = self.0.with(Shard::leave_wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_that_grants_nothing_is_not_silent() {
        let shared = SharedShard::new(ShardConfig::default()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let before = shared.silence();
        assert!(before >= Duration::from_millis(300));
        shared.grant(1, 0).unwrap();
        assert!(shared.silence() < before);
    }
}
