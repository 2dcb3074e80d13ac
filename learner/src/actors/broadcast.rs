//! Broadcast of the newest weights to all watchers: a slow watcher skips
//! versions, so nothing queues.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use proto::messages::chunks::Chunk;
use proto::messages::weights::Published;
use tokio::sync::{Mutex, mpsc, watch};

/// The train thread's end.
pub type Publisher = watch::Sender<Option<Arc<Published>>>;
/// The watchers' end.
pub type Newest = watch::Receiver<Option<Arc<Published>>>;

/// Versions whose digest is kept: more than evaluators are ever behind.
const DIGESTS_MAX: usize = 1 << 16;

/// SHA-256 of each version that this process published.
#[derive(Debug, Default)]
pub struct Digests(std::sync::Mutex<BTreeMap<u64, [u8; 32]>>);

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

/// A watcher that takes no chunk for this long loses its stream: until then it keeps its version
/// in memory, however many are published meanwhile.
pub const STALLED: Duration = Duration::from_secs(20);

/// The newest version in bf16: one copy for all watchers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Halves {
    half: Half,
    last: Arc<Mutex<Option<Arc<Published>>>>,
}

impl Halves {
    /// Nothing is converted yet.
    pub fn new(half: Half) -> Self {
        let last = Arc::default();
        Self { half, last }
    }

    /// The version in bf16; as it is where it cannot be converted.
    async fn of(&self, full: Arc<Published>) -> Arc<Published> {
        // Held while one watcher converts, so that the others wait for it.
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref().filter(|l| l.version == full.version) {
            return Arc::clone(last);
        }
        let (half, same) = (self.half, Arc::clone(&full));
        // The conversion takes milliseconds of CPU time: not on the executor.
        let converted = tokio::task::spawn_blocking(move || half(&full)).await;
        let converted = converted.ok().flatten().map_or(same, Arc::new);
        *last = Some(Arc::clone(&converted));
        converted
    }
}

/// Sends `first`, if there is one, then the newest version each time the receiver is
/// ready, provided it is above `first`'s and `newer_than`, until the watcher or the
/// publisher closes.
pub async fn stream(
    mut newest: Newest,
    mut first: Option<Arc<Published>>,
    mut newer_than: u64,
    half: Option<Halves>,
    out: mpsc::Sender<Chunk>,
) {
    loop {
        let next = match first.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                next = next(&mut newest, newer_than) => next,
                () = out.closed() => return,
            },
        };
        let Some(published) = next else { return };
        newer_than = newer_than.max(published.version);
        let published = match &half {
            Some(half) => half.of(published).await,
            None => published,
        };
        let begun_ms = published.age().as_secs_f64() * 1e3;
        for chunk in published.chunks() {
            if let Err(ended) = out.send_timeout(chunk, STALLED).await {
                tracing::debug!(%ended, "a stream of weights ends");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn watchers_share_one_conversion_of_a_version() {
        static CONVERTED: AtomicUsize = AtomicUsize::new(0);
        let halves = Halves::new(|full| {
            CONVERTED.fetch_add(1, Ordering::Relaxed);
            Some(Published::new(full.version, 0, vec![7; 5]))
        });
        let full = |version| Arc::new(Published::new(version, 0, vec![1; 10]));
        let (one, other) = tokio::join!(halves.of(full(1)), halves.of(full(1)));
        assert!(Arc::ptr_eq(&one, &other) && one.bytes.len() == 5);
        halves.of(full(2)).await;
        assert_eq!(CONVERTED.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_watcher_even_if_nothing_is_published() {
        let (_publisher, newest) = watch::channel(None);
        let (out, watcher) = mpsc::channel(1);
        let task = tokio::spawn(stream(newest, None, 0, None, out));
        drop(watcher);
        let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
        ended.unwrap().unwrap();
    }
}
