//! Weights that the learner publishes, and requests for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::messages::chunks::{Assembly, CHUNK_BYTES_MAX, Chunk, ChunkError, Whole};
use crate::messages::hello::{self, Hello};
use crate::messages::pack;

pub use crate::wire::WeightsVersion;

/// Bytes of one version, at most: bounds what a receiver allocates.
pub const WEIGHTS_BYTES_MAX: u64 = 4 << 30;
/// Reserved for one version before its bytes arrive, at most.
const RESERVED_MAX: u64 = 256 << 20;

/// One published version. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Rises by one with each publication.
    pub version: u64,
    /// Updates done at that time.
    pub updates: u64,
    /// Microseconds since 1970 by the learner's clock.
    pub published_us: u64,
    /// The weights as safetensors.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub sha256: [u8; 32],
}

impl Published {
    /// A version published now; hashes the bytes.
    #[must_use]
    pub fn new(version: u64, updates: u64, bytes: impl Into<Bytes>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let us = since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        Self::at(us, version, updates, bytes)
    }

    /// A version published at that time (microseconds since 1970); hashes the bytes.
    #[must_use]
    pub fn at(published_us: u64, version: u64, updates: u64, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            version,
            updates,
            published_us,
            sha256: Sha256::digest(&bytes).into(),
            bytes,
        }
    }

    /// Time since the publication, by the learner's clock and ours.
    #[must_use]
    pub fn age(&self) -> Duration {
        let at = UNIX_EPOCH + Duration::from_micros(self.published_us);
        SystemTime::now().duration_since(at).unwrap_or_default()
    }

    fn whole(&self) -> Whole {
        Whole {
            bytes: self.bytes.len() as u64,
            sha256: self.sha256,
            weights: Some(WeightsVersion {
                version: self.version,
                updates: self.updates,
                published_us: self.published_us,
            }),
        }
    }

    /// All bytes in chunks, without a copy.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let whole = self.whole();
        let offsets = (0..self.bytes.len()).step_by(CHUNK_BYTES_MAX);
        offsets.map(move |offset| {
            let end = (offset + CHUNK_BYTES_MAX).min(self.bytes.len());
            Chunk {
                whole,
                offset: offset as u64,
                data: self.bytes.slice(offset..end),
            }
        })
    }
}

/// Assembles the chunks of one version after another. A new version may begin at
/// any time and replaces an incomplete one.
#[derive(Debug, Default)]
pub struct Receiver {
    begun: Option<(Assembly, Vec<u8>)>,
}

impl Receiver {
    /// Adds the next chunk; returns the weights when they are complete.
    ///
    /// # Errors
    /// When the chunk is not the next one, or the whole does not match its checksum;
    /// the receiver is empty afterwards.
    pub fn push(&mut self, chunk: &Chunk) -> Result<Option<Published>, ChunkError> {
        let begun = self.begun.take().filter(|_| chunk.offset > 0);
        let version = chunk.whole.weights.ok_or(ChunkError::NotWeights)?;
        let (mut assembly, mut bytes) =
            begun.unwrap_or_else(|| (Assembly::new(chunk.whole), Vec::new()));
        let complete = assembly.push(chunk)?;
        if bytes.is_empty() {
            let announced = usize::try_from(chunk.whole.bytes.min(RESERVED_MAX));
            // Without the memory the buffer grows as bytes arrive.
            let _ = bytes.try_reserve_exact(announced.unwrap_or(0));
        }
        bytes.extend_from_slice(&chunk.data);
        if !complete {
            self.begun = Some((assembly, bytes));
            return Ok(None);
        }
        Ok(Some(Published {
            version: version.version,
            updates: version.updates,
            published_us: version.published_us,
            bytes: bytes.into(),
            sha256: chunk.whole.sha256,
        }))
    }
}

/// A request for the newest version, and for every newer one when it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    pub hello: Hello,
    /// Only versions above this one.
    pub newer_than: u64,
    /// Half the bytes: weights as bf16.
    pub bf16: bool,
    /// Begin with the untrained weights, where the learner started with such.
    pub untrained_first: bool,
}

pack::wire_form! {
    WatchRequest, WatchRequest, same: [newer_than, bf16, untrained_first],
    request => { hello: Some(request.hello.into()) },
    request => { hello: hello::required(request.hello)? },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::reads_back;
    use crate::wire;

    #[test]
    fn requests_read_back() {
        reads_back::<wire::WatchRequest, _>(WatchRequest {
            hello: hello(),
            newer_than: 2,
            bf16: true,
            untrained_first: true,
        });
    }

    fn published(version: u64, bytes: usize) -> Published {
        let byte = |i: usize| u8::try_from(i % 251).unwrap();
        let bytes: Vec<u8> = (0..bytes).map(byte).collect();
        Published::at(7 * version, version, 20 * version, bytes)
    }

    #[test]
    fn versions_come_together_one_after_another() {
        let mut receiver = Receiver::default();
        let large = published(6, CHUNK_BYTES_MAX * 2 + 7);
        assert_eq!(large.chunks().count(), 3);
        let replaced = published(5, CHUNK_BYTES_MAX + 1);
        let stream = published(1, 13).chunks().collect::<Vec<_>>();
        let stream = stream.into_iter().chain(replaced.chunks().take(1));
        let stream = stream.chain(large.chunks().collect::<Vec<_>>());
        let done: Vec<_> = stream
            .filter_map(|chunk| receiver.push(&chunk).unwrap())
            .collect();
        assert_eq!(done, [published(1, 13), large]);
    }

    #[test]
    fn a_receiver_that_refused_a_chunk_begins_anew() {
        let mut receiver = Receiver::default();
        let weights = published(3, CHUNK_BYTES_MAX * 2);
        let chunks: Vec<_> = weights.chunks().collect();
        let last = Err(ChunkError::Offset {
            expected: 0,
            found: CHUNK_BYTES_MAX as u64,
        });
        assert_eq!(receiver.push(&chunks[1]), last);
        assert_eq!(receiver.push(&chunks[0]), Ok(None));
        let other = published(4, CHUNK_BYTES_MAX * 2);
        let other: Vec<_> = other.chunks().collect();
        assert_eq!(receiver.push(&other[1]), Err(ChunkError::Disagree));
        assert_eq!(receiver.push(&chunks[1]), last);
        assert_eq!(receiver.push(&chunks[0]), Ok(None));
        assert_eq!(receiver.push(&chunks[1]), Ok(Some(weights)));
        let mut checkpoint = chunks[0].clone();
        checkpoint.whole.weights = None;
        assert_eq!(receiver.push(&checkpoint), Err(ChunkError::NotWeights));
    }
}
