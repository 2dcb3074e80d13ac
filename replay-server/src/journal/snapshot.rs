//! The index as of one moment: priorities and the state of the draws.
//!
//! Priorities change too often for the segments to follow. Without a snapshot
//! rows have the priority that they came with, which costs some learning and
//! no row.

use super::JournalError;
use super::frame::{self, Cursor, Next};
use crate::selector::Selector;
use common::durable;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The first bytes; the last but one is the format's version.
pub const MAGIC: [u8; 8] = *b"lmprio\x01\n";

const HEAD: u8 = 1;
const WEIGHTS: u8 = 2;
const END: u8 = 3;
/// Weights of one frame.
const CHUNK: usize = 1 << 16;

/// Priorities of the rows `end - weights.len() .. end`.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// How the weights were made; others mean nothing to another selector.
    pub selector: Selector,
    /// The number behind that of the last row.
    pub end: u64,
    /// Where the random numbers of the draws stand.
    pub random: u128,
    /// What the tree holds for each row, oldest first.
    pub weights: Vec<f64>,
}

/// The snapshot's place in a shard's folder.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join("priorities.snapshot")
}

impl Snapshot {
    /// As the bytes of a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * self.weights.len() + 4096);
        out.extend_from_slice(&MAGIC);
        frame::append(&mut out, HEAD, |out| {
            let (kind, numbers) = match self.selector {
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
            out.extend_from_slice(&self.end.to_le_bytes());
            out.extend_from_slice(&self.random.to_le_bytes());
            out.extend_from_slice(&(self.weights.len() as u64).to_le_bytes());
        });
        for chunk in self.weights.chunks(CHUNK) {
            frame::append(&mut out, WEIGHTS, |out| {
                for weight in chunk {
                    out.extend_from_slice(&weight.to_le_bytes());
                }
            });
        }
        frame::append(&mut out, END, |_| {});
        out
    }

    /// Reads a file's bytes; what is wrong with them otherwise.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            return Err("is no snapshot that this version reads".to_owned());
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
        let (mut snapshot, count) = read_head(Cursor(next(HEAD)?)).ok_or_else(damaged)?;
        while (snapshot.weights.len() as u64) < count {
            let (numbers, rest) = next(WEIGHTS)?.as_chunks();
            if numbers.is_empty() || !rest.is_empty() {
                return Err(damaged());
            }
            let weights = numbers.iter().map(|b| f64::from_le_bytes(*b));
            snapshot.weights.extend(weights);
        }
        next(END)?;
        let sound = snapshot.weights.len() as u64 == count
            && count <= snapshot.end
            && snapshot.weights.iter().all(|w| w.is_finite() && *w >= 0.0);
        if sound { Ok(snapshot) } else { Err(damaged()) }
    }

    /// Replaces the folder's snapshot; its bytes.
    pub fn write(&self, folder: &Path) -> Result<u64, JournalError> {
        let bytes = self.to_bytes();
        durable::write_atomic(&path(folder), &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The folder's snapshot; none where there is none. A damaged one is told.
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
                    "the snapshot {why}: rows get the priorities that they came with"
                );
            })
            .ok())
    }
}

/// Everything but the weights, and how many those are.
fn read_head(mut c: Cursor<'_>) -> Option<(Snapshot, u64)> {
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
    let (end, random) = (c.u64()?, u128::from_le_bytes(c.array()?));
    let count = c.u64()?;
    let snapshot = Snapshot {
        selector,
        end,
        random,
        weights: Vec::new(),
    };
    c.0.is_empty().then_some((snapshot, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(rows: usize) -> Snapshot {
        Snapshot {
            selector: Selector::Prioritised {
                alpha: 0.6,
                epsilon: 0.01,
                max: 10.0,
            },
            end: 1000 + rows as u64,
            random: 1 << 70,
            weights: (0..rows).map(|i| i as f64 / 7.0).collect(),
        }
    }

    #[test]
    fn snapshots_come_back_and_replace_each_other() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Snapshot::read(folder.path()).unwrap(), None);
        for rows in [0, 1, CHUNK, CHUNK + 1] {
            let snapshot = snapshot(rows);
            snapshot.write(folder.path()).unwrap();
            assert_eq!(Snapshot::read(folder.path()).unwrap(), Some(snapshot));
        }
        fs::write(path(folder.path()), b"lmprio\x02\n").unwrap();
        assert_eq!(Snapshot::read(folder.path()).unwrap(), None);
    }

    #[test]
    fn no_cut_is_taken_for_a_snapshot() {
        let bytes = snapshot(3).to_bytes();
        for length in 0..bytes.len() {
            assert!(Snapshot::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_noticed(place in 0_usize..200, bit in 0..8_u8) {
            let mut bytes = snapshot(20).to_bytes();
            let place = place % bytes.len();
            bytes[place] ^= 1_u8 << bit;
            prop_assert!(Snapshot::from_bytes(&bytes).is_err());
        }
    }
}
