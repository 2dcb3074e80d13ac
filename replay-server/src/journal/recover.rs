//! Reads rows back from segments after a stop, a crash or damage.
//!
//! A torn end is truncated: it was never acknowledged as durable. It begins at the first
//! hole behind the last mark. A power cut may have kept pages behind that hole: a batch
//! in them must not be read, or the batch that the hole took would pass for a duplicate
//! when its writer sends it again.
//!
//! Damage elsewhere costs the batches that it hit, and is counted and reported.
//! Rows keep their numbers, so the remaining rows stay in place.

use super::JournalError;
use super::disk::Disk;
use super::log::Segment;
use super::segment::{self, Head, Item, Stored};
use crate::service::writers::Writers;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use std::fs;
use std::path::{Path, PathBuf};

/// Receives rows in the order of their numbers; ignores them by default.
pub trait Sink {
    /// Called first, with the run and the number of the first row.
    fn open(&mut self, _head: &Head) -> Result<(), JournalError> {
        Ok(())
    }
    /// A batch whose rows follow the previous ones.
    fn rows(&mut self, _batch: &Stored<'_>) -> Result<(), JournalError> {
        Ok(())
    }
    /// This many rows are lost.
    fn hole(&mut self, _rows: u64) -> Result<(), JournalError> {
        Ok(())
    }
}

/// The result of reading a journal.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The run; none in an empty folder.
    pub hello: Option<Hello>,
    /// The last incarnation that wrote.
    pub incarnation: u64,
    /// The number of the oldest row.
    pub first_row: u64,
    /// The number of the next row.
    pub next_row: u64,
    /// Segments, oldest first.
    pub segments: Vec<Segment>,
    /// Rows that are missing between two intact segments.
    pub gaps: Vec<Gap>,
    /// The last batch of every writer.
    pub writers: Writers,
    /// Batches read.
    pub batches: u64,
    /// Rows lost to damage.
    pub lost_rows: u64,
    /// Bytes after the last complete batch.
    pub torn_bytes: u64,
    /// Descriptions of the damage; a torn end is not damage.
    pub damage: Vec<String>,
}

/// Rows that are missing between two intact segments: either a segment is lost, or
/// the segments before the gap should have been removed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Number of segments before it.
    pub behind: usize,
    /// The first missing row.
    pub first_row: u64,
    /// One past the number of the last missing row.
    pub end: u64,
}

/// Whether files are repaired or only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The torn end is truncated, unreadable segments are set aside, and what was read is
    /// synced.
    Repair,
    /// Nothing is changed.
    ReadOnly,
}

/// Reads every segment of a shard's folder into `sink`.
pub fn recover(
    disk: &impl Disk,
    folder: &Path,
    shard: Option<u32>,
    mode: Mode,
    writers_max: usize,
    sink: &mut impl Sink,
) -> Result<Recovered, JournalError> {
    let files = list(folder)?;
    let mut found = Recovered {
        writers: Writers::new(writers_max),
        ..Recovered::default()
    };
    let mut whole = false;
    for (i, (first_row, path)) in files.iter().enumerate() {
        let damaged = found.damage.len();
        let bytes = fs::read(path).map_err(JournalError::disk("read", path))?;
        let next = files.get(i + 1).map(|(row, _)| *row);
        match segment::head(&bytes) {
            Ok((head, at)) if head.first_row == *first_row => {
                found.admit(folder, shard, &head, sink)?;
                if whole && *first_row > found.next_row {
                    found.gaps.push(Gap {
                        behind: found.segments.len(),
                        first_row: found.next_row,
                        end: *first_row,
                    });
                }
                let content = Content::new(path, &bytes, *first_row, next);
                let end = found.read(&content, at, sink)?;
                // The previous incarnation may have ended between a write and its sync. What is
                // read here counts as durable, and durable segments follow it.
                if next.is_none() && mode == Mode::Repair {
                    disk.settle(path, end)
                        .map_err(JournalError::disk("cut and sync the end of", path))?;
                }
                found.segments.push(Segment {
                    path: path.clone(),
                    end: found.next_row,
                    bytes: end,
                });
            }
            // The last segment's head may be torn; then nothing in it was durable.
            Err(why) if next.is_none() && torn_head(&bytes, *first_row) => {
                found.torn_bytes += bytes.len() as u64;
                tracing::debug!(file = %path.display(), why, "the last segment was never finished");
                if mode == Mode::Repair && segment::resume(&bytes, 0, None, *first_row).is_some() {
                    set_aside(path)?;
                } else if mode == Mode::Repair {
                    fs::remove_file(path).map_err(JournalError::disk("remove", path))?;
                }
            }
            other => {
                let why = other
                    .err()
                    .unwrap_or_else(|| "has the wrong file name".into());
                found.damage.push(format!("'{}' {why}", path.display()));
                if mode == Mode::Repair {
                    set_aside(path)?;
                }
            }
        }
        whole = found.damage.len() == damaged;
    }
    if !files.is_empty() && mode == Mode::Repair {
        disk.sync_folder(folder)
            .map_err(JournalError::disk("sync", folder))?;
    }
    Ok(found)
}

impl Recovered {
    /// Distinguishes stale segments from damage, given that rows below `oldest` are
    /// no longer needed. Returns the files of the segments before a gap below
    /// `oldest`; a gap above it is damage.
    pub fn settle(&mut self, oldest: u64) -> Vec<PathBuf> {
        let gaps = std::mem::take(&mut self.gaps);
        let (old, lost): (Vec<Gap>, Vec<Gap>) = gaps.iter().partition(|gap| gap.end <= oldest);
        // Rows in a gap count as lost once a row after it was read.
        let never_lost: u64 = old.iter().map(|gap| gap.end - gap.first_row).sum();
        self.lost_rows = self.lost_rows.saturating_sub(never_lost);
        for gap in lost {
            let next = self.segments.get(gap.behind).map(|s| s.path.display());
            let next = next.map_or_else(String::new, |path| format!(" before '{path}'"));
            let (first_row, last) = (gap.first_row, gap.end - 1);
            let why = format!("rows {first_row} to {last} are missing{next}: a segment is lost");
            self.damage.push(why);
        }
        let Some(last) = old.last() else {
            return Vec::new();
        };
        self.first_row = last.end;
        let left = self.segments.drain(..last.behind);
        left.map(|segment| segment.path).collect()
    }

    /// Checks that a segment belongs to this shard and to the same run as the others.
    fn admit(
        &mut self,
        folder: &Path,
        shard: Option<u32>,
        head: &Head,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let foreign = |why| Err(JournalError::foreign(folder, why));
        let number = head.shard;
        if let Some(shard) = shard.filter(|&s| s != number) {
            return foreign(format!("is that of shard {number}, not of shard {shard}"));
        }
        match &self.hello {
            None => {
                self.hello = Some(head.hello.clone());
                (self.first_row, self.next_row) = (head.first_row, head.first_row);
                sink.open(head)?;
            }
            Some(hello) => {
                if let Err(mismatch) = hello.check(&head.hello) {
                    return foreign(format!("holds rows of two runs ({mismatch})"));
                }
            }
        }
        self.incarnation = self.incarnation.max(head.incarnation);
        for &(writer, sequence) in &head.writers {
            self.record(writer, sequence);
        }
        Ok(())
    }

    fn record(&mut self, writer: Writer, sequence: u64) {
        if !self.writers.is_duplicate(writer, sequence) {
            self.writers.stored(writer, sequence);
        }
    }

    /// Reads the batches from `at` up to the next segment's first row. Returns the
    /// end of the last one, or of the mark behind it.
    fn read(
        &mut self,
        content: &Content<'_>,
        mut at: usize,
        sink: &mut impl Sink,
    ) -> Result<u64, JournalError> {
        let &Content { bytes, next, .. } = content;
        let row_bytes = self.hello.as_ref().map_or(1, |h| h.shape.bytes());
        loop {
            if let Some((mark, end)) = segment::mark(bytes, at, content.first_row) {
                self.reach(mark.end, sink)?;
                at = end;
                continue;
            }
            match segment::batch(bytes, at, row_bytes) {
                Item::End => return Ok(at as u64),
                // The next segment repeats the rows of a failed segment from there on.
                Item::Batch(batch, _) if next.is_some_and(|next| batch.first_row >= next) => {
                    return Ok(at as u64);
                }
                Item::Batch(batch, end)
                    if at < content.settled || batch.first_row == self.next_row =>
                {
                    self.take(&batch, sink)?;
                    at = end;
                }
                Item::Batch(..) | Item::Damage => {
                    let Some(place) = self.skip_damage(content, at, row_bytes) else {
                        return Ok(at as u64);
                    };
                    at = place;
                }
            }
        }
    }

    /// Where to continue behind damage at `at`; `None` where nothing behind it counts.
    fn skip_damage(&mut self, content: &Content<'_>, at: usize, row_bytes: usize) -> Option<usize> {
        let &Content { bytes, .. } = content;
        // Whether rows are missing that the next segment proves to have been on the disk.
        let is_short = content.next.map(|next| next > self.next_row);
        let place = (at < content.settled && is_short != Some(false))
            .then(|| segment::resume(bytes, at + 1, Some(row_bytes), content.first_row))
            .flatten();
        let damaged = || format!("'{}' is damaged from byte {at} to", content.path.display());
        if let Some(place) = place {
            self.damage.push(format!("{} {place}", damaged()));
        } else if is_short == Some(true) {
            self.damage.push(format!("{} its end", damaged()));
        } else {
            self.torn_bytes += (bytes.len() - at) as u64;
        }
        place
    }

    /// Counts the rows up to `end` as lost: they are known to have been here.
    fn reach(&mut self, end: u64, sink: &mut impl Sink) -> Result<(), JournalError> {
        let hole = end.saturating_sub(self.next_row);
        if hole > 0 {
            self.lost_rows += hole;
            self.next_row = end;
            sink.hole(hole)?;
        }
        Ok(())
    }

    fn take(&mut self, batch: &Stored<'_>, sink: &mut impl Sink) -> Result<(), JournalError> {
        if batch.first_row < self.next_row {
            return Ok(());
        }
        self.reach(batch.first_row, sink)?;
        sink.rows(batch)?;
        self.next_row = batch.first_row + batch.rows();
        self.batches += 1;
        self.record(batch.writer, batch.sequence);
        Ok(())
    }
}

/// A segment's file.
struct Content<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    first_row: u64,
    /// The first row of the next segment, which was begun once all earlier rows were on the disk.
    next: Option<u64>,
    /// Damage before this offset hit rows that were on the disk.
    settled: usize,
}

impl<'a> Content<'a> {
    fn new(path: &'a Path, bytes: &'a [u8], first_row: u64, next: Option<u64>) -> Self {
        let settled = if next.is_some() || segment::lacks_marks(bytes) {
            bytes.len()
        } else {
            segment::last_mark(bytes, first_row).unwrap_or(0)
        };
        Self {
            path,
            bytes,
            first_row,
            next,
            settled,
        }
    }
}

/// Whether a crash can have left this file: no complete head and nothing that proves a
/// sync. Head and first group are written together, and the disk may have kept any
/// part of them.
fn torn_head(bytes: &[u8], first_row: u64) -> bool {
    if segment::head(bytes).is_ok() || segment::last_mark(bytes, first_row).is_some() {
        return false;
    }
    if segment::lacks_marks(bytes) {
        return segment::resume(bytes, 0, None, first_row).is_none();
    }
    let magic = &bytes[..bytes.len().min(segment::MAGIC.len())];
    let known = [segment::MAGIC, segment::MAGIC_WITHOUT_MARKS];
    known.iter().any(|known| known.starts_with(magic)) || magic.iter().all(|&b| b == 0)
}

/// The segments of a folder, ordered by their first rows.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).map_err(JournalError::disk("read", folder))?;
    for entry in entries {
        let path = entry.map_err(JournalError::disk("read", folder))?.path();
        files.extend(segment::first_row(&path).map(|row| (row, path)));
    }
    files.sort_unstable();
    Ok(files)
}

fn set_aside(path: &Path) -> Result<(), JournalError> {
    fs::rename(path, path.with_extension("damaged")).map_err(JournalError::disk("set aside", path))
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
