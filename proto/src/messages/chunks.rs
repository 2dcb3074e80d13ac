//! Chunks of one version of the weights or of one checkpoint.

use std::io::{self, Read};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::error::ProtocolError;
use crate::messages::pack;
use crate::messages::weights::{WEIGHTS_BYTES_MAX, WeightsVersion};
use crate::wire;

pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The data that the chunks make up; every chunk repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    pub bytes: u64,
    /// SHA-256 of all its bytes.
    pub sha256: [u8; 32],
    /// Which weights; `None` for a checkpoint.
    pub weights: Option<WeightsVersion>,
}

/// A piece of the whole; chunks arrive in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub whole: Whole,
    /// Where it starts in the whole.
    pub offset: u64,
    /// At most [`CHUNK_BYTES_MAX`] bytes, within the whole; empty only at its end.
    pub data: Bytes,
}

pack::wire_form! {
    Chunk, Chunk, same: [offset, data],
    chunk => {
        total_bytes: chunk.whole.bytes,
        sha256: Bytes::copy_from_slice(&chunk.whole.sha256),
        weights: chunk.whole.weights,
    },
    chunk => { whole: whole(&chunk)? },
}

/// The whole of a chunk that lies within it.
fn whole(chunk: &wire::Chunk) -> Result<Whole, ProtocolError> {
    let (bytes, total) = (chunk.data.len(), chunk.total_bytes);
    pack::within("data", bytes, "bytes", 0..=CHUNK_BYTES_MAX)?;
    if bytes == 0 && chunk.offset < total {
        let why = format!("no bytes at {} of {total}", chunk.offset);
        return Err(ProtocolError::invalid("data", why));
    }
    if chunk.offset.saturating_add(bytes as u64) > total {
        let why = format!("{bytes} bytes at {} end beyond {total}", chunk.offset);
        return Err(ProtocolError::invalid("offset", why));
    }
    if chunk.weights.is_some() {
        pack::within(
            "total_bytes",
            total,
            "bytes of weights",
            1..=WEIGHTS_BYTES_MAX,
        )?;
    }
    Ok(Whole {
        bytes: total,
        sha256: pack::digest("sha256", &chunk.sha256)?,
        weights: chunk.weights,
    })
}

/// Why chunks do not make a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChunkError {
    /// A chunk is missing or repeated.
    #[error("a chunk at byte {found} arrived where byte {expected} is next")]
    Offset { expected: u64, found: u64 },
    #[error("chunks differ in size, checksum or version")]
    Disagree,
    #[error("the SHA-256 of the bytes received is not the one announced")]
    Hash,
    #[error("the chunk belongs to a checkpoint, not to weights")]
    NotWeights,
}

/// Checks that chunks are consecutive and make up the whole that they announce.
#[derive(Debug)]
pub struct Assembly {
    whole: Whole,
    received: u64,
    hasher: Sha256,
}

impl Assembly {
    /// Starts with the first chunk.
    #[must_use]
    pub fn new(whole: Whole) -> Self {
        Self {
            whole,
            received: 0,
            hasher: Sha256::new(),
        }
    }

    /// Continues after the bytes of `part`.
    pub fn resume(whole: Whole, mut part: impl Read) -> io::Result<Self> {
        let mut assembly = Self::new(whole);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match part.read(&mut buffer)? {
                0 => return Ok(assembly),
                read => assembly.add(&buffer[..read]),
            }
        }
    }

    #[must_use]
    pub fn whole(&self) -> Whole {
        self.whole
    }

    /// Adds the next chunk; returns whether the whole is complete.
    ///
    /// # Errors
    /// When the chunk is not the next one, or the whole does not match its checksum.
    pub fn push(&mut self, chunk: &Chunk) -> Result<bool, ChunkError> {
        if chunk.whole != self.whole {
            return Err(ChunkError::Disagree);
        }
        if chunk.offset != self.received {
            return Err(ChunkError::Offset {
                expected: self.received,
                found: chunk.offset,
            });
        }
        self.add(&chunk.data);
        if self.received < self.whole.bytes {
            return Ok(false);
        }
        if self.hasher.finalize_reset().as_slice() != self.whole.sha256 {
            return Err(ChunkError::Hash);
        }
        Ok(true)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.received += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::pack::tests::{reads_back, refuses};

    fn whole_of(bytes: &[u8]) -> Whole {
        Whole {
            bytes: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
            weights: None,
        }
    }

    fn chunks(bytes: &'static [u8], size: usize) -> Vec<Chunk> {
        let piece = |(i, data)| Chunk {
            whole: whole_of(bytes),
            offset: (i * size) as u64,
            data: Bytes::from_static(data),
        };
        bytes.chunks(size).enumerate().map(piece).collect()
    }

    fn all(assembly: &mut Assembly, chunks: &[Chunk]) -> Result<Vec<bool>, ChunkError> {
        chunks.iter().map(|c| assembly.push(c)).collect()
    }

    #[test]
    fn chunks_read_back() {
        let version = WeightsVersion {
            version: 3,
            updates: 400,
            published_us: 5,
        };
        for weights in [None, Some(version)] {
            for chunk in chunks(b"some bytes", 4) {
                let whole = Whole {
                    weights,
                    ..chunk.whole
                };
                reads_back::<wire::Chunk, _>(Chunk { whole, ..chunk });
            }
        }
        // Sent to a client that already has all bytes of a checkpoint.
        reads_back::<wire::Chunk, _>(Chunk {
            whole: whole_of(b"1234"),
            offset: 4,
            data: Bytes::new(),
        });
    }

    #[test]
    fn chunks_outside_the_contract_are_refused_by_field() {
        let message = wire::Chunk::from(chunks(b"1234567", 4).remove(1));
        refuses::<Chunk, _>(
            &message,
            &[
                (|c| c.data = Bytes::new(), "field data is"),
                (
                    |c| c.data = vec![0; CHUNK_BYTES_MAX + 1].into(),
                    "field data is",
                ),
                (|c| c.offset = 5, "field offset is"),
                (|c| c.offset = u64::MAX, "field offset is"),
                (|c| c.sha256 = Bytes::new(), "field sha256 is"),
                (
                    |c| {
                        c.total_bytes = WEIGHTS_BYTES_MAX + 1;
                        c.weights = Some(wire::WeightsVersion::default());
                    },
                    "field total_bytes is",
                ),
                (
                    |c| {
                        (c.total_bytes, c.offset, c.data) = (0, 0, Bytes::new());
                        c.weights = Some(wire::WeightsVersion::default());
                    },
                    "field total_bytes is",
                ),
            ],
        );
    }

    #[test]
    fn a_whole_is_complete_with_its_last_chunk_from_any_offset_on() {
        let bytes = b"some bytes";
        let chunks = chunks(bytes, 4);
        let expected = [false, false, true];
        let mut assembly = Assembly::new(whole_of(bytes));
        assert_eq!(all(&mut assembly, &chunks).unwrap(), expected);
        for received in [1, 2] {
            let part = &bytes[..received * 4];
            let mut assembly = Assembly::resume(whole_of(bytes), part).unwrap();
            assert_eq!(
                all(&mut assembly, &chunks[received..]).unwrap(),
                expected[received..]
            );
        }
        let mut assembly = Assembly::resume(whole_of(bytes), &bytes[..]).unwrap();
        let last = Chunk {
            offset: 10,
            data: Bytes::new(),
            ..chunks[0].clone()
        };
        assert_eq!(assembly.push(&last), Ok(true));
    }

    #[test]
    fn gaps_changes_and_wrong_bytes_are_refused() {
        let bytes = b"some bytes";
        let error = |part: &[u8], chunks: &[Chunk]| {
            let mut assembly = Assembly::resume(whole_of(bytes), part).unwrap();
            all(&mut assembly, chunks).unwrap_err()
        };
        let mut gap = chunks(bytes, 4);
        gap.remove(1);
        let (expected, found) = (4, 8);
        assert_eq!(error(b"", &gap), ChunkError::Offset { expected, found });
        let mut other = chunks(bytes, 4);
        other[1].whole.sha256[0] ^= 1;
        assert_eq!(error(b"", &other), ChunkError::Disagree);
        let mut flipped = chunks(bytes, 4);
        flipped[2].data = Bytes::from_static(b"ez");
        assert_eq!(error(b"", &flipped), ChunkError::Hash);
        // A part that was damaged on the receiver's disk.
        assert_eq!(error(b"same", &chunks(bytes, 4)[1..]), ChunkError::Hash);
    }
}
