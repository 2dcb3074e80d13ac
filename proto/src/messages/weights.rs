//! Weights on their way to the actors, in chunks.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::wire;
use bytes::Bytes;

/// Bytes of one chunk, at most.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Bytes of one version, at most: bounds what a lying learner can make us allocate.
pub const WEIGHTS_BYTES_MAX: u64 = 4 << 30;

/// What an actor asks for: every newest version from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which run, data, configuration and row shape.
    pub hello: Hello,
    /// Only versions above this one.
    pub newer_than: u64,
    /// Half the bytes: weights as bf16.
    pub bf16: bool,
    /// Begin with the weights that nothing was learned in yet, where there are such.
    pub untrained_first: bool,
}

/// A piece of one version; the pieces of a version come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsChunk {
    /// Which version.
    pub version: u64,
    /// Bytes of the whole, at most [`WEIGHTS_BYTES_MAX`].
    pub total_bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: [u8; 32],
    /// Where in the whole this piece starts.
    pub offset: u64,
    /// 1 to [`CHUNK_BYTES_MAX`] bytes, within the whole.
    pub data: Bytes,
    /// Updates done when this version was published.
    pub updates: u64,
    /// When that was: microseconds since 1970 by the learner's clock.
    pub published_us: u64,
}

impl WeightsChunk {
    /// Whether the version is complete with this piece.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.offset + self.data.len() as u64 == self.total_bytes
    }
}

impl From<WatchRequest> for wire::WatchRequest {
    fn from(request: WatchRequest) -> Self {
        Self {
            hello: Some(request.hello.into()),
            newer_than: request.newer_than,
            bf16: request.bf16,
            untrained_first: request.untrained_first,
        }
    }
}

impl TryFrom<wire::WatchRequest> for WatchRequest {
    type Error = ProtocolError;

    fn try_from(request: wire::WatchRequest) -> Result<Self, ProtocolError> {
        Ok(Self {
            hello: hello::required(request.hello)?,
            newer_than: request.newer_than,
            bf16: request.bf16,
            untrained_first: request.untrained_first,
        })
    }
}

impl From<WeightsChunk> for wire::WeightsChunk {
    fn from(chunk: WeightsChunk) -> Self {
        Self {
            version: chunk.version,
            total_bytes: chunk.total_bytes,
            sha256: Bytes::copy_from_slice(&chunk.sha256),
            offset: chunk.offset,
            data: chunk.data,
            updates: chunk.updates,
            published_us: chunk.published_us,
        }
    }
}

impl TryFrom<wire::WeightsChunk> for WeightsChunk {
    type Error = ProtocolError;

    fn try_from(chunk: wire::WeightsChunk) -> Result<Self, ProtocolError> {
        let bytes = chunk.data.len();
        if !(1..=CHUNK_BYTES_MAX).contains(&bytes) {
            return Err(ProtocolError::invalid(
                "data",
                format!("{bytes} bytes are not within 1..={CHUNK_BYTES_MAX}"),
            ));
        }
        if chunk.total_bytes > WEIGHTS_BYTES_MAX {
            let why = format!(
                "{} bytes are more than {WEIGHTS_BYTES_MAX}",
                chunk.total_bytes
            );
            return Err(ProtocolError::invalid("total_bytes", why));
        }
        if chunk.offset.saturating_add(bytes as u64) > chunk.total_bytes {
            let why = format!(
                "{bytes} bytes at {} end after the whole of {}",
                chunk.offset, chunk.total_bytes
            );
            return Err(ProtocolError::invalid("offset", why));
        }
        Ok(Self {
            version: chunk.version,
            total_bytes: chunk.total_bytes,
            sha256: pack::digest("sha256", &chunk.sha256)?,
            offset: chunk.offset,
            data: chunk.data,
            updates: chunk.updates,
            published_us: chunk.published_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;

    fn chunk() -> WeightsChunk {
        let data = Bytes::from_static(b"weights");
        WeightsChunk {
            version: 3,
            total_bytes: 10,
            sha256: [7; 32],
            offset: 3,
            data,
            updates: 400,
            published_us: 5,
        }
    }

    #[test]
    fn chunks_and_requests_read_back() {
        assert_eq!(
            WeightsChunk::try_from(wire::WeightsChunk::from(chunk())),
            Ok(chunk())
        );
        assert!(chunk().is_last());
        assert!(
            !WeightsChunk {
                offset: 2,
                ..chunk()
            }
            .is_last()
        );
        let request = WatchRequest {
            hello: hello(),
            newer_than: 2,
            bf16: true,
            untrained_first: true,
        };
        assert_eq!(
            WatchRequest::try_from(wire::WatchRequest::from(request.clone())),
            Ok(request)
        );
    }

    #[test]
    fn chunks_outside_the_contract_are_refused_by_field() {
        for (change, field) in [
            (
                (|c| c.data = Bytes::new()) as fn(&mut wire::WeightsChunk),
                "data",
            ),
            (|c| c.data = vec![0; CHUNK_BYTES_MAX + 1].into(), "data"),
            (|c| c.total_bytes = WEIGHTS_BYTES_MAX + 1, "total_bytes"),
            (|c| c.offset = 4, "offset"),
            (|c| c.offset = u64::MAX, "offset"),
            (|c| c.sha256 = Bytes::new(), "sha256"),
        ] {
            let mut message = wire::WeightsChunk::from(chunk());
            change(&mut message);
            let error = WeightsChunk::try_from(message).unwrap_err();
            assert!(
                matches!(&error, ProtocolError::Invalid { field: found, .. } if *found == field),
                "{error}"
            );
        }
    }
}
