//! Rows on disk: append-only segments that are the data, and the index beside
//! them (`docs/journal.md` has the format).
//!
//! - [`frame`], [`segment`]: bytes, checked on the way in.
//! - [`disk`], [`log`]: group commits into segments, whole segments evicted.
//! - [`recover`]: segments back into rows, whatever a crash left of them.
//! - [`snapshot`]: priorities, which the segments do not follow.
//! - [`thread`]: the log on a thread of its own.
//! - [`sweep`]: files that nobody needs any more, removed on another.

pub mod restore;
pub mod verify;

pub mod disk;
pub mod frame;
pub mod log;
pub mod recover;
pub mod segment;
pub mod snapshot;
pub mod sweep;
pub mod thread;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where and how rows are kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The shard's own folder; made where it is missing.
    pub folder: PathBuf,
    /// A segment that holds so many bytes is followed by a new one. What the
    /// folder holds beyond the table's rows is at most about one segment.
    pub segment_bytes: u64,
    /// Rows acknowledged in memory are on disk after so long.
    pub sync_every: Duration,
    /// Bytes of rows on their way to the disk; beyond it inserts wait.
    pub queue_bytes: u32,
    /// Priorities are saved so often, and at a stop.
    pub snapshot_every: Duration,
}

impl JournalConfig {
    /// A journal in `folder`, otherwise as usual.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            segment_bytes: 8 << 20,
            sync_every: Duration::from_millis(200),
            queue_bytes: 32 << 20,
            snapshot_every: Duration::from_secs(300),
        }
    }
}

/// What keeps a journal from doing its work.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {action} '{}': {error}{}", path.display(), advice(error))]
    Disk {
        /// What was being done.
        action: &'static str,
        path: PathBuf,
        /// What the system answered.
        error: std::io::Error,
    },
    /// The folder belongs to something else.
    #[error("the journal in '{}' {why}: give this shard a folder of its own, or move the old one away", folder.display())]
    Foreign { folder: PathBuf, why: String },
    /// A snapshot could not be written; the one before stays.
    #[error(transparent)]
    Snapshot(#[from] common::run::durable::DurableError),
    /// The thread that writes is gone.
    #[error(
        "the journal's thread is gone: restart the shard; what was acknowledged as durable is on disk"
    )]
    Gone,
}

impl JournalError {
    pub(crate) fn disk(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Disk {
            action,
            path,
            error,
        }
    }
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            " (free some space: rows wait in memory and are written then)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
