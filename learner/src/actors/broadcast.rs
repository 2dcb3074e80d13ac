//! Broadcast of the newest weights to all watchers: a slow watcher skips
//! versions, so nothing queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use proto::messages::chunks::Chunk;
use proto::messages::weights::Published;
use tokio::sync::{mpsc, watch};

/// The train thread's end.
pub type Publisher = watch::Sender<Option<Arc<Published>>>;
/// The watchers' end.
pub type Newest = watch::Receiver<Option<Arc<Published>>>;

/// Versions whose digest is kept: more than evaluators are ever behind.
const DIGESTS_MAX: usize = 1 << 16;

/// SHA-256 of each version that this process published.
#[derive(Debug, Default)]
pub struct Digests(Mutex<BTreeMap<u64, [u8; 32]>>);

impl Digests {
    /// Adds a version.
    pub fn add(&self, published: &Published) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(published.version, published.sha256);
        if all.len() > DIGESTS_MAX {
            all.pop_first();
        }
    }

    /// Whether the bytes with this digest were published as this version.
    pub fn has(&self, version: u64, sha256: &[u8; 32]) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&version) == Some(sha256)
    }
}

/// Converts weights to bf16.
pub type Half = fn(&Published) -> Option<Published>;

/// Sends `first`, if there is one, then the newest version each time the receiver is
/// ready, provided it is above `first`'s and `newer_than`, until the watcher or the
/// publisher closes.
pub async fn stream(
    mut newest: Newest,
    mut first: Option<Arc<Published>>,
    mut newer_than: u64,
    half: Option<Half>,
    out: mpsc::Sender<Chunk>,
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
        let begun_ms = published.age().as_secs_f64() * 1e3;
        for chunk in published.chunks() {
            if out.send(chunk).await.is_err() {
                return;
            }
        }
        let (version, sent_ms) = (published.version, published.age().as_secs_f64() * 1e3);
        tracing::debug!(version, begun_ms, sent_ms, "weights sent to a stream");
    }
}

async fn next(newest: &mut Newest, newer_than: u64) -> Option<Arc<Published>> {
    let newer = |p: &Option<Arc<Published>>| p.as_ref().is_some_and(|p| p.version > newer_than);
    newest.wait_for(newer).await.ok()?.clone()
}

/// The conversion takes milliseconds of CPU time: not on the executor.
async fn halved(half: Half, full: Arc<Published>) -> Arc<Published> {
    let same = Arc::clone(&full);
    let converted = tokio::task::spawn_blocking(move || half(&full)).await;
    converted.ok().flatten().map_or(same, Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(chunk: Option<Chunk>) -> u64 {
        chunk.unwrap().whole.weights.unwrap().version
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
        assert_eq!(version_of(seen.recv().await), 1);
        // The task holds at most one version in the channel and one in hand.
        for version in 2..100 {
            publish(version);
            tokio::task::yield_now().await;
        }
        let mut versions = Vec::new();
        while versions.last() != Some(&99) {
            versions.push(version_of(seen.recv().await));
        }
        assert!(versions.len() < 10, "{versions:?}");
        assert!(versions.windows(2).all(|w| w[0] < w[1]));
        let (again, mut late) = mpsc::channel(4);
        let first = Arc::new(Published::at(7, 1, 0, vec![1; 10]));
        let late_task = tokio::spawn(stream(publisher.subscribe(), Some(first), 0, None, again));
        let untrained = late.recv().await.unwrap().whole.weights.unwrap();
        assert_eq!((untrained.version, untrained.published_us), (1, 7));
        assert_eq!(version_of(late.recv().await), 99);
        drop(publisher);
        late_task.await.unwrap();
        task.await.unwrap();
        assert!(seen.recv().await.is_none(), "the stream ends with the run");
    }
}
