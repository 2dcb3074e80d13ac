//! Rows on disk: append-only segments with the data, and a separate index
//! (`docs/journal.md` specifies the format).
//!
//! - [`frame`], [`segment`]: the byte format, validated when read.
//! - [`disk`], [`log`]: group commits into segments, eviction of whole segments.
//! - [`recover`]: reads rows back after a stop, a crash or damage.
//! - [`snapshot`]: priorities, which change too often for the segments.
//! - [`thread`]: the thread that writes the log.
//! - [`sweep`]: the thread that removes evicted segments.

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
    /// The shard's own folder; created if missing.
    pub folder: PathBuf,
    /// A new segment starts once the current one reaches this size. The folder
    /// exceeds the table's rows by at most about one segment.
    pub segment_bytes: u64,
    /// Maximum delay until rows acknowledged in memory are on disk.
    pub sync_every: Duration,
    /// Limit of bytes queued for the disk; inserts wait while it is reached.
    pub queue_bytes: u32,
    /// Interval between snapshots of the priorities; one is also taken at shutdown.
    pub snapshot_every: Duration,
}

impl JournalConfig {
    /// A journal in `folder` with the default settings.
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

/// Errors of a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An I/O operation failed.
    #[error("cannot {action} '{}': {error}{}", path.display(), advice(error))]
    Disk {
        /// What was being done.
        action: &'static str,
        path: PathBuf,
        error: std::io::Error,
    },
    /// The folder belongs to another shard or run.
    #[error("the journal in '{}' {why}: give this shard a folder of its own, or move the old one away", folder.display())]
    Foreign { folder: PathBuf, why: String },
    /// A snapshot could not be written; the previous one remains.
    #[error(transparent)]
    Snapshot(#[from] common::run::durable::DurableError),
    /// The writer thread has ended.
    #[error(
        "the journal's thread has ended: restart the shard; what was acknowledged as durable is on disk"
    )]
    Gone,
}

impl JournalError {
    pub(crate) fn foreign(folder: &Path, why: String) -> Self {
        let folder = folder.to_owned();
        Self::Foreign { folder, why }
    }

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
mod power_cut_tests;
#[cfg(test)]
mod tests;
