//! Group commits: batches are appended to segments in order, and each group is
//! synced once, then followed by a mark. What lies before a segment's last mark was on
//! the disk; what lies after it may have been torn by a crash.
//!
//! A group that fails is retried in a new segment. A file whose sync
//! failed is never written again: the system may have dropped what it could not
//! write and report success the next time (PostgreSQL's "fsyncgate", 2018).

use super::disk::Disk;
use super::segment::{self, Head, Mark};
use super::{JournalConfig, JournalError};
use crate::service::writers::Writers;
use crate::shard::CheckedBatch;
use proto::messages::hello::Hello;
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Approximate size of one write; a group may be many times larger.
const PIECE_BYTES: usize = 1 << 20;

/// A batch queued for the disk.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number of its first row.
    pub first_row: u64,
    pub batch: Arc<CheckedBatch>,
}

impl Entry {
    /// One past the number of its last row.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first_row + self.batch.td_errors.len() as u64
    }
}

/// A segment that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub path: PathBuf,
    /// One past the number of its last row.
    pub end: u64,
    pub bytes: u64,
}

/// The state from which a log continues.
#[derive(Debug, Clone)]
pub struct Start {
    /// The shard's number in the run.
    pub shard: u32,
    /// The shard's current incarnation.
    pub incarnation: u64,
    /// Capacity of the table: older rows need not be kept.
    pub capacity: u64,
    /// The number of the next row.
    pub next_row: u64,
    /// Existing segments, oldest first.
    pub segments: Vec<Segment>,
    /// Files of segments that should have been removed.
    pub stale: Vec<PathBuf>,
    /// The last batch of every writer.
    pub writers: Writers,
}

#[derive(Debug)]
struct Open {
    file: File,
    first_row: u64,
    /// Bytes of the groups that are on the disk, and of their marks.
    length: u64,
}

/// The segments of one shard.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    config: JournalConfig,
    start: Start,
    hello: Option<Hello>,
    segments: VecDeque<Segment>,
    /// The last segment, unless it was abandoned.
    open: Option<Open>,
    /// Files of segments all of whose rows have left the table.
    stale: Vec<PathBuf>,
    /// Reused between groups.
    buffer: Vec<u8>,
}

impl<D: Disk> Log<D> {
    /// A log that continues in a new segment.
    pub fn new(disk: D, config: JournalConfig, mut start: Start, hello: Option<Hello>) -> Self {
        Self {
            disk,
            config,
            stale: std::mem::take(&mut start.stale),
            segments: start.segments.iter().cloned().collect(),
            start,
            hello,
            open: None,
            buffer: Vec::new(),
        }
    }

    /// Sets the run, which the head of every segment names.
    pub fn join(&mut self, hello: Hello) {
        self.hello.get_or_insert(hello);
    }

    /// All rows with lower numbers are on the disk.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.start.next_row
    }

    /// Takes the files of evicted segments, for another thread to remove: removing
    /// one takes many times as long as committing a small group.
    pub fn take_stale(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.stale)
    }

    #[cfg(test)]
    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Number of segments and their total bytes.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let bytes = self.segments.iter().map(|s| s.bytes).sum();
        (self.segments.len(), bytes)
    }

    /// Commits consecutive batches that follow the rows already committed. All or
    /// none: after an error the same batches can be committed again.
    pub fn commit(&mut self, group: &[Entry]) -> Result<(), JournalError> {
        let Some(last) = group.last() else {
            return Ok(());
        };
        self.buffer.clear();
        let full = |s: &Segment| s.bytes >= self.config.segment_bytes;
        let fresh = self.open.is_none() || self.segments.back().is_none_or(full);
        if fresh {
            self.begin()?;
        }
        let written = self.write(group, fresh).inspect_err(|_| self.give_up());
        // One batch can be larger than a piece.
        self.buffer.shrink_to(2 * PIECE_BYTES);
        let written = written?;
        if let (Some(open), Some(segment)) = (&mut self.open, self.segments.back_mut()) {
            open.length += written;
            segment.bytes = open.length;
            segment.end = last.end();
        }
        self.mark(last.end());
        self.start.next_row = last.end();
        for entry in group {
            let batch = &entry.batch;
            self.start.writers.stored(batch.writer, batch.sequence);
        }
        self.evict();
        Ok(())
    }

    /// Opens the next segment; its head is written with the first group.
    fn begin(&mut self) -> Result<(), JournalError> {
        let Some(hello) = self.hello.clone() else {
            return Err(JournalError::Gone);
        };
        let head = Head {
            shard: self.start.shard,
            incarnation: self.start.incarnation,
            first_row: self.start.next_row,
            hello,
            writers: self.start.writers.all(),
        };
        let path = segment::path(&self.config.folder, head.first_row);
        let file = self.disk.create(&path);
        let file = file.map_err(JournalError::disk("create", &path))?;
        segment::append_head(&mut self.buffer, &head);
        // A segment abandoned before anything in it was durable has the same name.
        self.segments.retain(|s| s.path != path);
        self.segments.push_back(Segment {
            path,
            end: head.first_row,
            bytes: 0,
        });
        self.open = Some(Open {
            file,
            first_row: head.first_row,
            length: 0,
        });
        Ok(())
    }

    /// Marks the group before it as durable; the next sync brings the mark to the disk. If it
    /// cannot be written, the next group begins a segment, which proves the same.
    fn mark(&mut self, end: u64) {
        let (Some(open), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return;
        };
        self.buffer.clear();
        let mark = Mark {
            segment: open.first_row,
            place: open.length,
            end,
        };
        segment::append_mark(&mut self.buffer, mark);
        if let Err(error) = self.disk.write(&mut open.file, &self.buffer) {
            tracing::debug!(file = %segment.path.display(), %error, "a group stays without its mark");
            self.give_up();
            return;
        }
        open.length += self.buffer.len() as u64;
        segment.bytes = open.length;
    }

    /// Writes the buffer and then a group, piece by piece, and syncs once. Returns
    /// the number of bytes written.
    fn write(&mut self, group: &[Entry], fresh: bool) -> Result<u64, JournalError> {
        let (Some(open), Some(segment)) = (&mut self.open, self.segments.back()) else {
            return Err(JournalError::Gone);
        };
        let path = &segment.path;
        let (mut written, last) = (0, group.len().saturating_sub(1));
        for (i, entry) in group.iter().enumerate() {
            segment::append_batch(&mut self.buffer, entry.first_row, &entry.batch);
            if i < last && self.buffer.len() < PIECE_BYTES {
                continue;
            }
            let done = self.disk.write(&mut open.file, &self.buffer);
            done.map_err(JournalError::disk("write", path))?;
            written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        let done = self.disk.sync(&open.file);
        done.map_err(JournalError::disk("sync", path))?;
        if fresh {
            let folder = &self.config.folder;
            let done = self.disk.sync_folder(folder);
            done.map_err(JournalError::disk("sync", folder))?;
        }
        Ok(written)
    }

    /// Abandons a file that failed and tries to truncate it to its last mark. If
    /// that fails, recovery ignores the rest: the next segment starts at its first row.
    fn give_up(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let done = self.disk.truncate(&open.file, open.length);
        if let (Err(error), Some(segment)) = (done, self.segments.back()) {
            tracing::debug!(file = %segment.path.display(), %error, "the end of a failed segment stays");
        }
    }

    /// Evicts segments all of whose rows have left the table.
    fn evict(&mut self) {
        let oldest = self.durable().saturating_sub(self.start.capacity);
        while self.segments.len() > 1 && self.segments.front().is_some_and(|s| s.end <= oldest) {
            let segment = self.segments.pop_front();
            self.stale.extend(segment.map(|segment| segment.path));
        }
    }
}
