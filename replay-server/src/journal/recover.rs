//! Segments back into rows, after a stop, a crash or damage.
//!
//! What a crash tore off the end is cut and was never acknowledged as durable.
//! Damage elsewhere costs the batches that it hit, is counted and told; rows
//! keep their numbers, so that what is left stays in its place.

use super::JournalError;
use super::disk::{Disk, RealDisk};
use super::log::Segment;
use super::segment::{self, Head, Item, Stored};
use crate::service::writers::Writers;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use std::fs;
use std::path::{Path, PathBuf};

/// Takes rows in the order of their numbers.
pub trait Sink {
    /// The run and the first row's number; before everything else.
    fn open(&mut self, head: &Head) -> Result<(), JournalError>;
    /// A batch whose rows follow what came before.
    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError>;
    /// So many rows are lost.
    fn hole(&mut self, rows: u64) -> Result<(), JournalError>;
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The run; none in an empty folder.
    pub hello: Option<Hello>,
    /// The last life that wrote.
    pub incarnation: u64,
    /// The number of the oldest row there is.
    pub first_row: u64,
    /// The number of the next row.
    pub next_row: u64,
    /// Segments, oldest first.
    pub segments: Vec<Segment>,
    /// Rows that are missing between two whole segments.
    pub gaps: Vec<Gap>,
    /// The last batch of every writer.
    pub writers: Writers,
    /// Batches read.
    pub batches: u64,
    /// Rows that damage took.
    pub lost_rows: u64,
    /// Bytes behind the last whole batch.
    pub torn_bytes: u64,
    /// What is wrong, a sentence each; a torn end is nothing wrong.
    pub damage: Vec<String>,
}

/// Rows that are missing between two whole segments: a segment is lost, or those
/// before should be gone like those that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Segments before it.
    pub behind: usize,
    /// The first missing row.
    pub first_row: u64,
    /// The number behind that of the last missing row.
    pub end: u64,
}

/// Whether files are put in order or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The torn end is cut off, unreadable segments are set aside, and what was read is brought
    /// to the disk.
    Repair,
    /// Nothing is changed.
    Look,
}

/// Reads every segment of a shard's folder into `sink`.
pub fn recover(
    folder: &Path,
    shard: Option<u32>,
    mode: Mode,
    writers_max: usize,
    sink: &mut impl Sink,
) -> Result<Recovered, JournalError> {
    recover_on(&RealDisk, folder, shard, mode, writers_max, sink)
}

/// The same with a disk that is asked to keep what was read.
pub(super) fn recover_on(
    disk: &impl Disk,
    folder: &Path,
    shard: Option<u32>,
    mode: Mode,
    writers_max: usize,
    sink: &mut impl Sink,
) -> Result<Recovered, JournalError> {
    let files = list(folder)?;
    let mut found = Recovered::nothing(writers_max);
    let mut whole = false;
    for (i, (first_row, path)) in files.iter().enumerate() {
        let damaged = found.damage.len();
        let bytes = fs::read(path).map_err(JournalError::disk("read", path))?;
        let next = files.get(i + 1).map(|(row, _)| *row);
        let parsed = segment::head(&bytes);
        match parsed {
            Ok((head, at)) if head.first_row == *first_row => {
                found.admit(folder, shard, &head, sink)?;
                if whole && *first_row > found.next_row {
                    found.gaps.push(Gap {
                        behind: found.segments.len(),
                        first_row: found.next_row,
                        end: *first_row,
                    });
                }
                let end = found.read(path, &bytes, at, next, sink)?;
                // The life before may have ended between a write and its sync: what is read here
                // counts as durable, and is followed by segments that are.
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
            // The last one's head may be torn; then nothing in it was durable.
            Err(why) if next.is_none() && torn_head(&bytes) => {
                found.torn_bytes += bytes.len() as u64;
                tracing::debug!(file = %path.display(), why, "the last segment was never finished");
                if mode == Mode::Repair {
                    fs::remove_file(path).map_err(JournalError::disk("remove", path))?;
                }
            }
            other => {
                let why = other.err().unwrap_or_else(|| "has another's name".into());
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
    fn nothing(writers_max: usize) -> Self {
        Self {
            hello: None,
            incarnation: 0,
            first_row: 0,
            next_row: 0,
            segments: Vec::new(),
            gaps: Vec::new(),
            writers: Writers::new(writers_max),
            batches: 0,
            lost_rows: 0,
            torn_bytes: 0,
            damage: Vec::new(),
        }
    }

    /// Tells segments that should be gone from damage, once it is known that
    /// nobody needs rows below `oldest`: the files of segments behind which even
    /// later rows were removed. A gap above is damage.
    pub fn settle(&mut self, oldest: u64) -> Vec<PathBuf> {
        let gaps = std::mem::take(&mut self.gaps);
        let (old, lost): (Vec<Gap>, Vec<Gap>) = gaps.iter().partition(|gap| gap.end <= oldest);
        // Rows behind a gap count as lost only once one of them was read.
        let never_lost: u64 = old.iter().map(|gap| gap.end - gap.first_row).sum();
        self.lost_rows = self.lost_rows.saturating_sub(never_lost);
        for Gap {
            behind,
            first_row,
            end,
        } in lost
        {
            let next = self.segments.get(behind).map(|s| s.path.display());
            let next = next.map_or_else(String::new, |path| format!(" before '{path}'"));
            let last = end - 1;
            let why = format!("rows {first_row} to {last} are missing{next}: a segment is gone");
            self.damage.push(why);
        }
        let Some(last) = old.last() else {
            return Vec::new();
        };
        self.first_row = last.end;
        let left = self.segments.drain(..last.behind);
        left.map(|segment| segment.path).collect()
    }

    /// Checks that a segment belongs to the others and to this shard.
    fn admit(
        &mut self,
        folder: &Path,
        shard: Option<u32>,
        head: &Head,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let foreign = |why| {
            Err(JournalError::Foreign {
                folder: folder.to_owned(),
                why,
            })
        };
        if let Some(shard) = shard.filter(|&s| s != head.shard) {
            return foreign(format!(
                "is that of shard {}, not of shard {shard}",
                head.shard
            ));
        }
        match &self.hello {
            None => {
                self.hello = Some(head.hello.clone());
                self.first_row = head.first_row;
                self.next_row = head.first_row;
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
            self.heard(writer, sequence);
        }
        Ok(())
    }

    fn heard(&mut self, writer: Writer, sequence: u64) {
        if !self.writers.is_duplicate(writer, sequence) {
            self.writers.stored(writer, sequence);
        }
    }

    /// Reads the batches from `at` on, those before the next segment's first
    /// row; where the last one ended.
    fn read(
        &mut self,
        path: &Path,
        bytes: &[u8],
        mut at: usize,
        next: Option<u64>,
        sink: &mut impl Sink,
    ) -> Result<u64, JournalError> {
        let row_bytes = self.hello.as_ref().map_or(1, |h| h.shape.bytes());
        loop {
            match segment::batch(bytes, at, row_bytes) {
                Item::End => return Ok(at as u64),
                Item::Batch(batch, end) => {
                    // A segment that failed is gone on with by the next one, from there on.
                    if next.is_some_and(|next| batch.first_row >= next) {
                        return Ok(at as u64);
                    }
                    self.take(&batch, sink)?;
                    at = end;
                }
                Item::Damage => {
                    let resume = segment::resume(bytes, at + 1, Some(row_bytes));
                    let Some(place) = resume else {
                        let rest = (bytes.len() - at) as u64;
                        if next.is_some_and(|next| next > self.next_row) {
                            self.damage.push(format!(
                                "'{}' is damaged from byte {at} to its end",
                                path.display()
                            ));
                        } else {
                            self.torn_bytes += rest;
                        }
                        return Ok(at as u64);
                    };
                    self.damage.push(format!(
                        "'{}' is damaged from byte {at} to {place}",
                        path.display()
                    ));
                    at = place;
                }
            }
        }
    }

    fn take(&mut self, batch: &Stored<'_>, sink: &mut impl Sink) -> Result<(), JournalError> {
        if batch.first_row < self.next_row {
            return Ok(());
        }
        let hole = batch.first_row - self.next_row;
        if hole > 0 {
            self.lost_rows += hole;
            sink.hole(hole)?;
        }
        sink.rows(batch)?;
        self.next_row = batch.first_row + batch.rows();
        self.batches += 1;
        self.heard(batch.writer, batch.sequence);
        Ok(())
    }
}

/// Whether a crash can have left a beginning like this: no whole head, and no
/// batch behind it, since both are written as one.
fn torn_head(bytes: &[u8]) -> bool {
    let magic = bytes.len().min(segment::MAGIC.len());
    let begun = bytes[..magic] == segment::MAGIC[..magic] || bytes.iter().all(|&b| b == 0);
    begun && segment::head(bytes).is_err() && segment::resume(bytes, 0, None).is_none()
}

/// Segments of a folder by their first rows.
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
