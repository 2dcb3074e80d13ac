//! Weights on their way: chunks of a stream put together and checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::messages::weights::{CHUNK_BYTES_MAX, WeightsChunk};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Weights as published: a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Their version.
    pub version: u64,
    /// The learner's updates when they were published.
    pub updates: u64,
    /// When that was: microseconds since 1970 by the learner's clock.
    pub published_us: u64,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Published {
    /// Since they were published, by the learner's clock and ours.
    #[must_use]
    pub fn age(&self) -> Duration {
        let at = UNIX_EPOCH + Duration::from_micros(self.published_us);
        SystemTime::now().duration_since(at).unwrap_or_default()
    }

    /// The version in pieces of at most 1 MiB.
    pub fn chunks(&self) -> impl Iterator<Item = WeightsChunk> + '_ {
        let sha256: [u8; 32] = Sha256::digest(&self.bytes).into();
        let pieces = self.bytes.chunks(CHUNK_BYTES_MAX).enumerate();
        pieces.map(move |(i, data)| WeightsChunk {
            version: self.version,
            total_bytes: self.bytes.len() as u64,
            sha256,
            offset: (i * CHUNK_BYTES_MAX) as u64,
            data: Bytes::copy_from_slice(data),
            updates: self.updates,
            published_us: self.published_us,
        })
    }
}

/// Chunks that do not make a whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AssemblyError {
    /// A chunk is missing or repeated.
    #[error(
        "weights version {version}: a chunk at byte {found} came where byte {expected} follows"
    )]
    Offset {
        /// Version of the chunk.
        version: u64,
        /// The next byte.
        expected: u64,
        /// The chunk's first byte.
        found: u64,
    },
    /// Chunks of one version disagree about the whole.
    #[error("weights version {version}: its chunks name different wholes")]
    Whole {
        /// Version of the chunk.
        version: u64,
    },
    /// The bytes are not those that were sent.
    #[error("weights version {version}: the bytes received have another SHA-256 than those sent")]
    Hash {
        /// Version of the whole.
        version: u64,
    },
}

/// Puts the chunks of one version after another together.
#[derive(Debug, Default)]
pub struct Assembly {
    whole: Option<Whole>,
    bytes: Vec<u8>,
}

/// What every chunk of a version repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole {
    version: u64,
    total_bytes: u64,
    sha256: [u8; 32],
    updates: u64,
    published_us: u64,
}

impl Assembly {
    /// Adds the next chunk; gives the weights when they are complete. A new
    /// version may begin at any time: the one before is then forgotten.
    ///
    /// # Errors
    /// When the chunk does not follow, or the whole is not what was announced;
    /// the assembly is empty then.
    pub fn push(&mut self, chunk: WeightsChunk) -> Result<Option<Published>, AssemblyError> {
        let result = self.add(chunk);
        if result.is_err() {
            *self = Self::default();
        }
        result
    }

    fn add(&mut self, chunk: WeightsChunk) -> Result<Option<Published>, AssemblyError> {
        let last = chunk.is_last();
        let WeightsChunk {
            version,
            total_bytes,
            sha256,
            offset,
            data,
            updates,
            published_us,
        } = chunk;
        let whole = Whole {
            version,
            total_bytes,
            sha256,
            updates,
            published_us,
        };
        if self.whole.is_none_or(|w| w.version != version) {
            self.bytes.clear();
        } else if self.whole != Some(whole) {
            return Err(AssemblyError::Whole { version });
        }
        self.whole = Some(whole);
        let expected = self.bytes.len() as u64;
        if offset != expected {
            return Err(AssemblyError::Offset {
                version,
                expected,
                found: offset,
            });
        }
        self.bytes.extend(data);
        if !last {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.whole = None;
        if Sha256::digest(&bytes).as_slice() != sha256 {
            return Err(AssemblyError::Hash { version });
        }
        Ok(Some(Published {
            version,
            updates,
            published_us,
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(version: u64, bytes: &[u8], size: usize) -> Vec<WeightsChunk> {
        let sha256 = Sha256::digest(bytes).into();
        let piece = |(i, data): (usize, &[u8])| WeightsChunk {
            version,
            total_bytes: bytes.len() as u64,
            sha256,
            offset: (i * size) as u64,
            data: data.to_vec().into(),
            updates: version * 20,
            published_us: version,
        };
        bytes.chunks(size).enumerate().map(piece).collect()
    }

    fn all(
        assembly: &mut Assembly,
        chunks: Vec<WeightsChunk>,
    ) -> Result<Vec<Published>, AssemblyError> {
        let mut done = Vec::new();
        for chunk in chunks {
            done.extend(assembly.push(chunk)?);
        }
        Ok(done)
    }

    #[test]
    fn versions_come_together_one_after_another() {
        let mut a = Assembly::default();
        let mut stream = chunks(1, b"first version", 5);
        stream.extend(
            chunks(2, b"second, forgotten in the middle", 7)
                .into_iter()
                .take(2),
        );
        stream.extend(chunks(5, b"fifth", 9));
        let done = all(&mut a, stream).unwrap();
        let expected = |version, bytes: &[u8]| Published {
            version,
            updates: version * 20,
            published_us: version,
            bytes: bytes.to_vec(),
        };
        assert_eq!(done, [expected(1, b"first version"), expected(5, b"fifth")]);
        let large = expected(6, &vec![7; CHUNK_BYTES_MAX + 1]);
        let chunks: Vec<_> = large.chunks().collect();
        assert_eq!(
            (chunks.len(), all(&mut a, chunks).unwrap()),
            (2, vec![large])
        );
    }

    #[test]
    fn gaps_changes_and_wrong_bytes_are_refused_and_forgotten() {
        let mut a = Assembly::default();
        let mut gap = chunks(3, b"some weights", 4);
        gap.remove(1);
        assert_eq!(
            all(&mut a, gap).unwrap_err(),
            AssemblyError::Offset {
                version: 3,
                expected: 4,
                found: 8
            }
        );
        let mut other = chunks(3, b"some weights", 4);
        other[1].sha256[0] ^= 1;
        assert_eq!(
            all(&mut a, other).unwrap_err(),
            AssemblyError::Whole { version: 3 }
        );
        let mut flipped = chunks(3, b"some weights", 4);
        flipped[2].data = b"hats".to_vec().into();
        assert_eq!(
            all(&mut a, flipped).unwrap_err(),
            AssemblyError::Hash { version: 3 }
        );
        assert_eq!(all(&mut a, chunks(3, b"some weights", 4)).unwrap().len(), 1);
    }
}
