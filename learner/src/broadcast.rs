//! The newest weights for everyone who watches: versions in between are
//! skipped by whoever is slow, nothing queues.

use std::sync::Arc;

use bytes::Bytes;
use proto::weights::{CHUNK_BYTES_MAX, WeightsChunk};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};

/// One published version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Rises by one with each broadcast.
    pub version: u64,
    /// Updates done by then.
    pub updates: u64,
    /// The weights as safetensors.
    pub bytes: Bytes,
    /// Of `bytes`.
    pub sha256: [u8; 32],
}

impl Published {
    /// Hashes the bytes.
    #[must_use]
    pub fn new(version: u64, updates: u64, bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self {
            version,
            updates,
            bytes: bytes.into(),
            sha256,
        }
    }

    /// The version in pieces of at most 1 MiB, without a copy.
    pub fn chunks(&self) -> impl Iterator<Item = WeightsChunk> + '_ {
        (0..self.bytes.len())
            .step_by(CHUNK_BYTES_MAX)
            .map(|offset| {
                let end = (offset + CHUNK_BYTES_MAX).min(self.bytes.len());
                WeightsChunk {
                    version: self.version,
                    total_bytes: self.bytes.len() as u64,
                    sha256: self.sha256,
                    offset: offset as u64,
                    data: self.bytes.slice(offset..end),
                    updates: self.updates,
                }
            })
    }
}

/// Where the train thread publishes.
pub type Publisher = watch::Sender<Option<Arc<Published>>>;
/// Where the newest version is seen.
pub type Newest = watch::Receiver<Option<Arc<Published>>>;

/// Sends every version above `newer_than` that is the newest when its turn
/// comes, until the watcher or the publisher is gone.
///
/// `half` turns a version into its bf16 form.
pub async fn stream(
    mut newest: Newest,
    mut newer_than: u64,
    half: Option<fn(&Published) -> Option<Published>>,
    out: mpsc::Sender<WeightsChunk>,
) {
    loop {
        let next = newest
            .wait_for(|p| p.as_ref().is_some_and(|p| p.version > newer_than))
            .await
            .map(|p| p.clone());
        let Ok(Some(published)) = next else { return };
        newer_than = published.version;
        let published = match half {
            Some(half) => halved(half, published).await,
            None => published,
        };
        for chunk in published.chunks() {
            if out.send(chunk).await.is_err() {
                return;
            }
        }
    }
}

/// Conversion takes milliseconds of a core: not on the executor.
async fn halved(half: fn(&Published) -> Option<Published>, full: Arc<Published>) -> Arc<Published> {
    let same = Arc::clone(&full);
    let converted = tokio::task::spawn_blocking(move || half(&full)).await;
    converted.ok().flatten().map_or(same, Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_bytes_once() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES_MAX * 2 + 7)
            .map(|i| (i % 251) as u8)
            .collect();
        let p = Published::new(3, 60, bytes.clone());
        let chunks: Vec<_> = p.chunks().collect();
        assert_eq!(chunks.len(), 3);
        assert!(chunks[2].is_last() && !chunks[1].is_last());
        let joined: Vec<u8> = chunks.iter().flat_map(|c| c.data.to_vec()).collect();
        assert_eq!(joined, bytes);
    }

    #[tokio::test]
    async fn a_slow_watcher_skips_versions() {
        let (publisher, newest) = watch::channel(None);
        let (out, mut seen) = mpsc::channel(1);
        let task = tokio::spawn(stream(newest, 0, None, out));
        let publish = |version| {
            let p = Published::new(version, 0, vec![version as u8; 10]);
            publisher.send_replace(Some(Arc::new(p)));
        };
        publish(1);
        assert_eq!(seen.recv().await.unwrap().version, 1);
        // The task holds at most one version in the channel and one in hand.
        for version in 2..100 {
            publish(version);
            tokio::task::yield_now().await;
        }
        let mut versions = Vec::new();
        while versions.last() != Some(&99) {
            versions.push(seen.recv().await.unwrap().version);
        }
        assert!(versions.len() < 10, "{versions:?}");
        assert!(versions.windows(2).all(|w| w[0] < w[1]));
        drop(publisher);
        task.await.unwrap();
        assert!(
            seen.recv().await.is_none(),
            "the end of the run ends the stream"
        );
    }
}
