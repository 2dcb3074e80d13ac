//! The newest weights for everyone who watches: versions in between are
//! skipped by whoever is slow, nothing queues.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proto::messages::weights::{CHUNK_BYTES_MAX, WeightsChunk};
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
    /// When that was: microseconds since 1970.
    pub published_us: u64,
}

impl Published {
    /// Published now; hashes the bytes.
    #[must_use]
    pub fn new(version: u64, updates: u64, bytes: Vec<u8>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let us = since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        Self::at(us, version, updates, bytes)
    }

    /// Published at that time (microseconds since 1970); hashes the bytes.
    #[must_use]
    pub fn at(published_us: u64, version: u64, updates: u64, bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self {
            version,
            updates,
            bytes: bytes.into(),
            sha256,
            published_us,
        }
    }

    /// Seconds since it was published.
    #[must_use]
    pub fn age_s(&self) -> f64 {
        let at = UNIX_EPOCH + Duration::from_micros(self.published_us);
        SystemTime::now()
            .duration_since(at)
            .map_or(0.0, |age| age.as_secs_f64())
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
                    published_us: self.published_us,
                }
            })
    }
}

/// Where the train thread publishes.
pub type Publisher = watch::Sender<Option<Arc<Published>>>;
/// Where the newest version is seen.
pub type Newest = watch::Receiver<Option<Arc<Published>>>;

/// Turns a version into its bf16 form.
pub type Half = fn(&Published) -> Option<Published>;

/// Sends `first`, if there is one, then every version above that and
/// `newer_than` that is the newest when its turn comes, until the watcher or
/// the publisher is gone.
pub async fn stream(
    mut newest: Newest,
    mut first: Option<Arc<Published>>,
    mut newer_than: u64,
    half: Option<Half>,
    out: mpsc::Sender<WeightsChunk>,
) {
    loop {
        let next = match first.take() {
            Some(first) => Some(first),
            None => next(&mut newest, newer_than).await,
        };
        let Some(published) = next else { return };
        newer_than = newer_than.max(published.version);
        let published = match half {
            Some(half) => halved(half, published).await,
            None => published,
        };
        let begun_ms = published.age_s() * 1e3;
        for chunk in published.chunks() {
            if out.send(chunk).await.is_err() {
                return;
            }
        }
        let (version, handed_ms) = (published.version, published.age_s() * 1e3);
        tracing::debug!(version, begun_ms, handed_ms, "weights handed to a stream");
    }
}

async fn next(newest: &mut Newest, newer_than: u64) -> Option<Arc<Published>> {
    let newer = |p: &Option<Arc<Published>>| p.as_ref().is_some_and(|p| p.version > newer_than);
    newest.wait_for(newer).await.ok()?.clone()
}

/// Conversion takes milliseconds of a core: not on the executor.
async fn halved(half: Half, full: Arc<Published>) -> Arc<Published> {
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
        let task = tokio::spawn(stream(newest, None, 0, None, out));
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
        let (again, mut late) = mpsc::channel(4);
        let first = Arc::new(Published::at(7, 1, 0, vec![1; 10]));
        let late_task = tokio::spawn(stream(publisher.subscribe(), Some(first), 0, None, again));
        let (first, second) = (late.recv().await.unwrap(), late.recv().await.unwrap());
        assert_eq!(
            (first.version, first.published_us, second.version),
            (1, 7, 99)
        );
        drop(publisher);
        late_task.await.unwrap();
        task.await.unwrap();
        assert!(
            seen.recv().await.is_none(),
            "the end of the run ends the stream"
        );
    }
}
