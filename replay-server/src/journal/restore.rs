//! Restores a shard from its journal.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::journal::disk::RealDisk;
use crate::journal::log::{Log, Start};
use crate::journal::recover::{Mode, Recovered, Sink, recover};
use crate::journal::segment::{Head, Stored};
use crate::journal::snapshot::Snapshot;
use crate::journal::{JournalConfig, JournalError};
use crate::shard::Shard;
use common::run::durable::remove_leftovers;
use common::run::lock::{LockError, LockFile};
use std::fs;
use std::path::Path;

/// A shard restored from its journal.
#[derive(Debug)]
pub struct Restored {
    pub shard: Shard,
    /// The log that continues from there.
    pub log: Log<RealDisk>,
    /// Locks the folder while it is open.
    pub lock: LockFile,
}

/// Restores a shard from its journal.
pub fn restore(config: ShardConfig, journal: &JournalConfig) -> Result<Restored, ShardError> {
    let folder = &journal.folder;
    fs::create_dir_all(folder).map_err(JournalError::disk("create", folder))?;
    let lock = lock(folder)?;
    let (number, writers_max) = (config.shard, config.writers_max);
    let mut filling = Filling {
        shard: Shard::new(config)?,
        journal,
        refused: None,
    };
    let (only, mode) = (Some(number), Mode::Repair);
    let found = recover(&RealDisk, folder, only, mode, writers_max, &mut filling);
    if let Some(refused) = filling.refused.take() {
        return Err(refused);
    }
    let (mut shard, mut found) = (filling.shard, found?);
    let capacity = shard.config().capacity as u64;
    let stale = found.settle(found.next_row.saturating_sub(capacity));
    shard.resume(found.writers.clone(), found.next_row, found.incarnation);
    reweigh(&mut shard, journal, &found)?;
    log_recovery(&shard, journal, &found);
    let start = Start {
        shard: number,
        incarnation: shard.config().incarnation,
        capacity,
        next_row: found.next_row,
        segments: found.segments.clone(),
        stale,
        writers: found.writers.clone(),
    };
    let hello = shard.hello().cloned();
    let log = Log::new(RealDisk, journal.clone(), start, hello);
    Ok(Restored { shard, log, lock })
}

/// Locks the folder: two shards writing to it would destroy each other's rows. On a file system
/// without locks it goes on with a warning.
fn lock(folder: &Path) -> Result<LockFile, JournalError> {
    let path = folder.join("lock");
    let lock = LockFile::new(&path).map_err(|error| match error {
        LockError::Held(holder) => {
            JournalError::foreign(folder, format!("is in use by another shard, in {holder}"))
        }
        LockError::Open(error) => JournalError::disk("create", &path)(error),
    })?;
    if lock.is_exclusive {
        remove_leftovers(folder);
    }
    Ok(lock)
}

/// Inserts the recovered rows into a new shard.
struct Filling<'a> {
    shard: Shard,
    journal: &'a JournalConfig,
    /// Why the shard refused them.
    refused: Option<ShardError>,
}

impl Filling<'_> {
    fn or_refused(&mut self, done: Result<(), ShardError>) -> Result<(), JournalError> {
        done.map_err(|error| {
            let why = error.to_string();
            self.refused = Some(error);
            JournalError::foreign(&self.journal.folder, why)
        })
    }
}

impl Sink for Filling<'_> {
    fn open(&mut self, head: &Head) -> Result<(), JournalError> {
        if let Some(Err(mismatch)) = self.shard.hello().map(|own| own.check(&head.hello)) {
            let why = format!("is not of this run ({mismatch})");
            return Err(JournalError::foreign(&self.journal.folder, why));
        }
        let done = self.shard.join(&head.hello);
        self.or_refused(done)
    }

    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError> {
        let table = self.shard.table();
        let done = table.and_then(|t| Ok(t.insert(batch.packed, &batch.td_errors())?));
        self.or_refused(done)
    }

    fn hole(&mut self, rows: u64) -> Result<(), JournalError> {
        let table = self.shard.table();
        let done = table.and_then(|t| Ok(t.skip(rows)?));
        self.or_refused(done)
    }
}

/// Applies the priorities of the last snapshot, if it belongs to these rows.
fn reweigh(
    shard: &mut Shard,
    journal: &JournalConfig,
    found: &Recovered,
) -> Result<(), ShardError> {
    let Some(snapshot) = Snapshot::read(&journal.folder)? else {
        return Ok(());
    };
    if found.hello.is_none() || snapshot.outline.end > found.next_row {
        tracing::warn!("the snapshot is newer than the rows: they get their initial priorities");
        return Ok(());
    }
    if snapshot.outline.selector != shard.config().selector {
        tracing::warn!(was = ?snapshot.outline.selector, is = ?shard.config().selector, "the selector changed: rows get their initial priorities");
        return Ok(());
    }
    shard.restore(&snapshot)
}

fn log_recovery(shard: &Shard, journal: &JournalConfig, found: &Recovered) {
    let folder = journal.folder.display();
    for damage in &found.damage {
        tracing::error!("{damage}");
    }
    if found.hello.is_some() {
        tracing::info!(
            %folder,
            rows = shard.rows(),
            next_row = found.next_row,
            lost_rows = found.lost_rows,
            torn_bytes = found.torn_bytes,
            "rows of the journal are back"
        );
    }
}
