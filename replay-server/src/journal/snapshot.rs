//! The index: priorities and the state of the sampler.
//!
//! It is written in pieces of bounded size while the shard keeps running: each
//! row has the priority it had when its piece was copied, and a row that had left
//! the table by then has none. A snapshot of an idle shard is consistent.
//!
//! Priorities change too often to be written to the segments. Without a snapshot
//! rows get the priority they were inserted with: that slows learning a little
//! and loses no row.

use super::JournalError;
use super::frame::{self, Cursor, Next};
use crate::table::selector::Selector;
use common::run::durable::AtomicFile;
use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The first bytes; the last but one is the format version.
pub const MAGIC: [u8; 8] = *b"lmprio\x01\n";

const HEAD: u8 = 1;
const WEIGHTS: u8 = 2;
const END: u8 = 3;
/// Weights per frame.
const CHUNK: usize = 1 << 16;

/// The head of a snapshot: everything but the priorities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outline {
    /// The selector that computed the weights; they are meaningless to another.
    pub selector: Selector,
    /// One past the number of the last row.
    pub end: u64,
    /// Position of the sampler's random number stream.
    pub random: u128,
    /// Rows with a priority: those numbered `end - rows .. end`.
    pub rows: u64,
}

/// A decoded snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub outline: Outline,
    /// The sum tree's weight of each row, oldest first.
    pub weights: Vec<f64>,
}

/// Buffers for the pieces of a snapshot. They are reused, because an allocator
/// may hold on to megabytes that are allocated and freed now and then.
#[derive(Debug, Default)]
pub struct Pieces {
    weights: Vec<f64>,
    frame: Vec<u8>,
}

impl Pieces {
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.weights.capacity() * size_of::<f64>() + self.frame.capacity()
    }
}

/// The path of the snapshot in a shard's folder.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join("priorities.snapshot")
}

/// Replaces the folder's snapshot and returns its size in bytes. `weigh` appends the
/// weights of the rows with these numbers; it is called once per piece.
pub fn write<E: From<JournalError>>(
    folder: &Path,
    outline: &Outline,
    pieces: &mut Pieces,
    mut weigh: impl FnMut(Range<u64>, &mut Vec<f64>) -> Result<(), E>,
) -> Result<u64, E> {
    let path = path(folder);
    let mut file = AtomicFile::create(&path).map_err(JournalError::from)?;
    let Pieces { weights, frame } = pieces;
    let mut bytes = 0;
    let mut put = |frame: &mut Vec<u8>| {
        bytes += frame.len() as u64;
        let written = file.write_all(frame);
        written.map_err(JournalError::disk("write", &path))?;
        frame.clear();
        Ok::<_, JournalError>(())
    };
    frame.clear();
    frame.extend_from_slice(&MAGIC);
    append_head(frame, outline);
    put(frame)?;
    let first = outline.end.saturating_sub(outline.rows);
    for start in (first..outline.end).step_by(CHUNK) {
        let rows = CHUNK.min(usize::try_from(outline.end - start).unwrap_or(CHUNK));
        weights.clear();
        weights.reserve_exact(rows);
        weigh(start..start + rows as u64, weights)?;
        // As many as the head announced.
        weights.resize(rows, 0.0);
        frame.reserve_exact(frame::HEAD_BYTES + size_of::<f64>() * rows);
        frame::append(frame, WEIGHTS, |out| {
            for weight in &*weights {
                out.extend_from_slice(&weight.to_le_bytes());
            }
        });
        put(frame)?;
    }
    frame::append(frame, END, |_| {});
    put(frame)?;
    file.commit().map_err(JournalError::from)?;
    Ok(bytes)
}

fn append_head(out: &mut Vec<u8>, outline: &Outline) {
    frame::append(out, HEAD, |out| {
        let (kind, numbers) = match outline.selector {
            Selector::Uniform => (0, [0.0; 3]),
            Selector::Prioritised {
                alpha,
                epsilon,
                max,
            } => (1, [alpha, epsilon, max]),
        };
        out.push(kind);
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&outline.end.to_le_bytes());
        out.extend_from_slice(&outline.random.to_le_bytes());
        out.extend_from_slice(&outline.rows.to_le_bytes());
    });
}

impl Snapshot {
    /// Decodes a snapshot; the error is a description of the damage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            return Err("is not a snapshot of a version that this program reads".to_owned());
        }
        let damaged = || "is damaged".to_owned();
        let mut at = MAGIC.len();
        let mut next = |expected: u8| match frame::next(bytes, at) {
            Next::Frame { kind, payload, end } if kind == expected => {
                at = end;
                Ok(payload)
            }
            _ => Err(damaged()),
        };
        let outline = read_head(Cursor(next(HEAD)?)).ok_or_else(damaged)?;
        let mut weights = Vec::new();
        while (weights.len() as u64) < outline.rows {
            let (numbers, rest) = next(WEIGHTS)?.as_chunks();
            if numbers.is_empty() || !rest.is_empty() {
                return Err(damaged());
            }
            weights.extend(numbers.iter().map(|b| f64::from_le_bytes(*b)));
        }
        next(END)?;
        let sound = weights.len() as u64 == outline.rows
            && outline.rows <= outline.end
            && weights.iter().all(|w| w.is_finite() && *w >= 0.0);
        if sound {
            Ok(Self { outline, weights })
        } else {
            Err(damaged())
        }
    }

    /// Reads the folder's snapshot, if there is one. A damaged one is logged and ignored.
    pub fn read(folder: &Path) -> Result<Option<Self>, JournalError> {
        let path = path(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::disk("read", &path)(error)),
        };
        Ok(Self::from_bytes(&bytes)
            .inspect_err(|why| {
                tracing::warn!(
                    file = %path.display(),
                    "the snapshot {why}: rows get their initial priorities"
                );
            })
            .ok())
    }
}

fn read_head(mut c: Cursor<'_>) -> Option<Outline> {
    let [kind] = c.array()?;
    let (alpha, epsilon, max) = (c.f64()?, c.f64()?, c.f64()?);
    let selector = match kind {
        0 => Selector::Uniform,
        1 => Selector::Prioritised {
            alpha,
            epsilon,
            max,
        },
        _ => return None,
    };
    let outline = Outline {
        selector,
        end: c.u64()?,
        random: u128::from_le_bytes(c.array()?),
        rows: c.u64()?,
    };
    c.0.is_empty().then_some(outline)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
