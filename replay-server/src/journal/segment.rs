//! The segment format: a head with run and writers, then batches in groups, each of
//! which is followed by a mark once it is on the disk.

use super::frame::{self, Cursor, Next};
use crate::shard::CheckedBatch;
use common::transition::row::{ROW_VERSION, RowShape};
use proto::messages::hello::Hello;
use proto::messages::insert::{BATCH_ROWS_MAX, Writer};
use std::path::{Path, PathBuf};

/// The first bytes of a segment; the last but one is the format version.
pub const MAGIC: [u8; 8] = *b"lmrows\x02\n";
/// The first bytes of the format before marks, which is read and not written.
pub const MAGIC_WITHOUT_MARKS: [u8; 8] = *b"lmrows\x01\n";
/// The file extension of a segment.
pub const EXTENSION: &str = "rows";

const HEAD: u8 = 1;
const BATCH: u8 = 2;
const MARK: u8 = 3;
/// Offset of the kind in a frame.
const KIND_AT: usize = frame::HEAD_BYTES - 1;
/// Bytes of a mark: its segment, its place, the end of the rows.
const MARK_BYTES: usize = 3 * size_of::<u64>();
/// Bytes before a batch's |TD errors|: first row, actor, incarnation, sequence, rows.
const BATCH_HEAD: usize = 8 + 2 + 4 + 8 + 4;

/// The head of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The shard's number in the run.
    pub shard: u32,
    /// The incarnation of the shard that wrote it.
    pub incarnation: u64,
    /// Number of its first row, counted over all incarnations of the shard.
    pub first_row: u64,
    /// The run and the shape of its rows.
    pub hello: Hello,
    /// The last batch of every writer before this segment, so that repeated batches
    /// are recognised after the segments with the originals were removed.
    pub writers: Vec<(Writer, u64)>,
}

/// A batch as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<'a> {
    /// Number of its first row.
    pub first_row: u64,
    /// Who sent it.
    pub writer: Writer,
    pub sequence: u64,
    /// |TD error| of each row, little-endian f32.
    td_errors: &'a [u8],
    /// Its packed rows.
    pub packed: &'a [u8],
}

impl Stored<'_> {
    #[must_use]
    pub fn rows(&self) -> u64 {
        (self.td_errors.len() / 4) as u64
    }

    /// |TD error| of each row.
    #[must_use]
    pub fn td_errors(&self) -> Vec<f32> {
        let (numbers, _) = self.td_errors.as_chunks();
        numbers.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// Proof that the rows before it were on the disk: it is written after their sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The first row of its segment. With `place` it excludes marks of other files.
    pub segment: u64,
    /// Its own offset in the file.
    pub place: u64,
    /// One past the number of the last row before it.
    pub end: u64,
}

/// The path of the segment that starts with this row.
#[must_use]
pub fn path(folder: &Path, first_row: u64) -> PathBuf {
    folder.join(format!("{first_row:020}.{EXTENSION}"))
}

/// The number of the first row, from a segment's file name.
#[must_use]
pub fn first_row(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    let number = stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit());
    number.then(|| stem.parse().ok())?
}

/// Appends the magic bytes and the head of a segment.
pub fn append_head(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(&MAGIC);
    frame::append(out, HEAD, |out| {
        out.extend_from_slice(&head.shard.to_le_bytes());
        out.extend_from_slice(&head.incarnation.to_le_bytes());
        out.extend_from_slice(&head.first_row.to_le_bytes());
        out.push(ROW_VERSION);
        out.extend_from_slice(&head.hello.shape.agents.to_le_bytes());
        out.extend_from_slice(&u16::from(head.hello.shape.history).to_le_bytes());
        out.extend_from_slice(&head.hello.manifest);
        out.extend_from_slice(&head.hello.config_digest);
        let run = head.hello.run_id.as_bytes();
        out.extend_from_slice(&u16::try_from(run.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(run);
        for (writer, sequence) in &head.writers {
            out.extend_from_slice(&writer.actor.to_le_bytes());
            out.extend_from_slice(&writer.incarnation.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
        }
    });
}

/// Appends a batch whose first row has this number.
pub fn append_batch(out: &mut Vec<u8>, first_row: u64, batch: &CheckedBatch) {
    frame::append(out, BATCH, |out| {
        out.extend_from_slice(&first_row.to_le_bytes());
        out.extend_from_slice(&batch.writer.actor.to_le_bytes());
        out.extend_from_slice(&batch.writer.incarnation.to_le_bytes());
        out.extend_from_slice(&batch.sequence.to_le_bytes());
        let rows = u32::try_from(batch.td_errors.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&rows.to_le_bytes());
        for error in &batch.td_errors {
            out.extend_from_slice(&error.to_le_bytes());
        }
        out.extend_from_slice(&batch.packed);
    });
}

/// Appends a mark.
pub fn append_mark(out: &mut Vec<u8>, mark: Mark) {
    frame::append(out, MARK, |out| {
        for number in [mark.segment, mark.place, mark.end] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    });
}

/// The mark at this offset of the segment with this first row, and the offset behind it.
#[must_use]
pub fn mark(bytes: &[u8], at: usize, segment: u64) -> Option<(Mark, usize)> {
    // Before the checksum of what may be a large batch.
    bytes.get(at + KIND_AT).filter(|&&kind| kind == MARK)?;
    let Next::Frame {
        kind: MARK,
        payload,
        end,
    } = frame::next(bytes, at)
    else {
        return None;
    };
    let mut c = Cursor(payload);
    let mark = Mark {
        segment: c.u64()?,
        place: c.u64()?,
        end: c.u64()?,
    };
    let own = mark.segment == segment && mark.place == at as u64 && mark.end >= segment;
    (c.0.is_empty() && own).then_some((mark, end))
}

/// The offset of the segment's last mark.
#[must_use]
pub fn last_mark(bytes: &[u8], segment: u64) -> Option<usize> {
    let last = bytes.len().checked_sub(frame::HEAD_BYTES + MARK_BYTES)?;
    (0..=last)
        .rev()
        .find(|&place| mark(bytes, place, segment).is_some())
}

/// Whether the segment's format has no marks.
#[must_use]
pub fn lacks_marks(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC_WITHOUT_MARKS)
}

/// Reads the head of a segment and the offset of its first batch; the error is a
/// description of the damage.
pub fn head(bytes: &[u8]) -> Result<(Head, usize), String> {
    match bytes.get(..MAGIC.len()) {
        Some(magic) if magic == MAGIC || magic == MAGIC_WITHOUT_MARKS => {}
        Some(magic) if magic[..6] == MAGIC[..6] => {
            return Err(format!(
                "has format {}, this version reads {} and {}",
                magic[6], MAGIC_WITHOUT_MARKS[6], MAGIC[6]
            ));
        }
        _ => return Err("is not a journal segment".to_owned()),
    }
    match frame::next(bytes, MAGIC.len()) {
        Next::Frame {
            kind: HEAD,
            payload,
            end,
        } => read_head(Cursor(payload))
            .map(|head| (head, end))
            .ok_or_else(|| "has a head that this version cannot read".to_owned()),
        _ => Err("has a damaged head".to_owned()),
    }
}

fn read_head(mut c: Cursor<'_>) -> Option<Head> {
    let (shard, incarnation, first_row) = (c.u32()?, c.u64()?, c.u64()?);
    if c.array()? != [ROW_VERSION] {
        return None;
    }
    let shape = RowShape {
        agents: c.u16()?,
        history: c.u16()?.try_into().ok()?,
    };
    let (manifest, config_digest) = (c.array()?, c.array()?);
    let run = c.u16()?;
    let run_id = String::from_utf8(c.bytes(run.into())?.to_vec()).ok()?;
    let mut writers = Vec::with_capacity(c.0.len() / 14);
    while !c.0.is_empty() {
        let (actor, incarnation) = (c.u16()?, c.u32()?);
        writers.push((Writer { actor, incarnation }, c.u64()?));
    }
    let sound = shape.agents > 0 && shape.history > 0;
    sound.then_some(Head {
        shard,
        incarnation,
        first_row,
        hello: Hello {
            run_id,
            manifest,
            config_digest,
            shape,
        },
        writers,
    })
}

/// The result of reading a batch at an offset.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<'a> {
    /// A batch and the offset of the next.
    Batch(Stored<'a>, usize),
    /// The segment's end.
    End,
    /// No valid batch.
    Damage,
}

#[must_use]
pub fn batch(bytes: &[u8], at: usize, row_bytes: usize) -> Item<'_> {
    match frame::next(bytes, at) {
        Next::End => Item::End,
        Next::Frame {
            kind: BATCH,
            payload,
            end,
        } => read_batch(Cursor(payload), row_bytes)
            .map_or(Item::Damage, |stored| Item::Batch(stored, end)),
        _ => Item::Damage,
    }
}

/// The offset of the first valid batch or mark at or after `at`, with rows of any size if
/// `row_bytes` is `None`. `segment`: its first row.
#[must_use]
pub fn resume(bytes: &[u8], at: usize, row_bytes: Option<usize>, segment: u64) -> Option<usize> {
    let row_bytes_at = |place: usize| {
        let mut c = Cursor(bytes.get(place..)?);
        let (length, _sum, kind) = (c.u32()?, c.u32()?, c.array::<1>()?);
        let rows = Cursor(c.bytes(BATCH_HEAD)?.get(BATCH_HEAD - 4..)?).u32()?;
        let each = length
            .checked_sub(u32::try_from(BATCH_HEAD).ok()?)?
            .checked_div(rows)?;
        let found = usize::try_from(each.checked_sub(4)?).ok()?;
        (kind == [BATCH] && row_bytes.is_none_or(|expected| expected == found)).then_some(found)
    };
    (at..bytes.len()).find(|&place| {
        mark(bytes, place, segment).is_some()
            || row_bytes_at(place)
                .is_some_and(|each| matches!(batch(bytes, place, each), Item::Batch(..)))
    })
}

fn read_batch(mut c: Cursor<'_>, row_bytes: usize) -> Option<Stored<'_>> {
    let first_row = c.u64()?;
    let writer = Writer {
        actor: c.u16()?,
        incarnation: c.u32()?,
    };
    let sequence = c.u64()?;
    let rows = usize::try_from(c.u32()?).ok()?;
    if rows == 0 || rows > BATCH_ROWS_MAX {
        return None;
    }
    let td_errors = c.bytes(4 * rows)?;
    let packed = c.bytes(rows.checked_mul(row_bytes)?)?;
    let sound = |b: &[u8; 4]| {
        let error = f32::from_le_bytes(*b);
        error.is_finite() && error >= 0.0
    };
    let (numbers, _) = td_errors.as_chunks();
    let whole = c.0.is_empty() && numbers.iter().all(sound);
    let room = first_row.checked_add(rows as u64).is_some();
    (whole && room).then_some(Stored {
        first_row,
        writer,
        sequence,
        td_errors,
        packed,
    })
}
