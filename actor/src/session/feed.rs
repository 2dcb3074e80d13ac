//! The inputs of the rollout thread: its incarnation and shards, the newest
//! weights, and the signal to stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::run::throttle::Throttle;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use proto::messages::weights::{Published, WatchRequest};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::session::counters::Counters;
use crate::session::weights::Watcher;
use crate::uplink::outbox::Chunk;
use crate::uplink::placement::shard_of;

/// One incarnation of the actor, as the rollout sees it.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) writer: Writer,
    /// Final probability of a random action per slot.
    pub(crate) exploration: Vec<f32>,
    /// One uplink per shard, in the order of their numbers.
    pub(crate) uplinks: Vec<Sender<Chunk>>,
}

impl Incarnation {
    /// Passes rows to the uplinks; waits while a reachable shard is blocked.
    /// Returns false once this incarnation has ended.
    pub(crate) fn send(&self, rows: Chunk, counters: &Counters) -> bool {
        let mut chunks: Vec<Chunk> = Vec::new();
        chunks.resize_with(self.uplinks.len(), Vec::new);
        for row in rows {
            chunks[shard_of(&row.0.header, self.uplinks.len())].push(row);
        }
        let full = chunks
            .into_iter()
            .zip(&self.uplinks)
            .filter(|(chunk, _)| !chunk.is_empty());
        full.fold(true, |alive, (chunk, uplink)| {
            match uplink.try_send(chunk) {
                Ok(()) => alive,
                Err(TrySendError::Full(chunk)) => {
                    let count = chunk.len();
                    let sent = counters.blocked(|| uplink.blocking_send(chunk).is_ok());
                    counters.dropped(if sent { 0 } else { count });
                    alive && sent
                }
                Err(TrySendError::Closed(chunk)) => {
                    counters.dropped(chunk.len());
                    false
                }
            }
        })
    }
}

/// Interval between warnings about outdated weights.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    incarnation: Option<Arc<Incarnation>>,
    weights: Option<Arc<Published>>,
    /// When the weights were last known to be the newest.
    newest_at: Option<Instant>,
    stop: bool,
}

impl State {
    /// Version of the weights and the time since the learner last confirmed them
    /// as the newest, if that exceeds `bound`.
    fn stale(&self, bound: Option<Duration>) -> Option<(u64, Duration)> {
        let age = self.newest_at?.elapsed();
        let weights = self.weights.as_ref()?;
        bound
            .is_some_and(|bound| age > bound)
            .then_some((weights.version, age))
    }
}

/// Keeps only the newest values: those not picked up in time are replaced.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Condvar,
    /// `actor.max_staleness`.
    max_staleness: Option<Duration>,
}

impl Feed {
    /// Hands out weights for `max_staleness` after the learner last confirmed them
    /// as the newest.
    pub(crate) fn new(max_staleness: Option<Duration>) -> Self {
        Self {
            max_staleness,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(crate) fn publish(&self, weights: Published) {
        self.change(|s| {
            s.weights = Some(Arc::new(weights));
            s.newest_at = Some(Instant::now());
        });
    }

    /// The learner reported this version as the newest.
    pub(crate) fn newest_is(&self, version: u64) {
        self.change(|s| {
            if s.weights.as_ref().is_some_and(|w| w.version == version) {
                s.newest_at = Some(Instant::now());
            }
        });
    }

    pub(crate) fn begin(&self, incarnation: Incarnation) {
        self.change(|s| s.incarnation = Some(Arc::new(incarnation)));
    }

    /// Stops the rollout; its uplinks close when it drops their senders.
    pub(crate) fn stop(&self) {
        self.change(|s| {
            *s = State {
                stop: true,
                ..State::default()
            }
        });
    }

    /// The current incarnation and weights. Waits until both are present, the
    /// weights are not outdated, and the incarnation is not `over`; returns `None`
    /// once the feed is stopped.
    pub(crate) fn next(
        &self,
        over: Option<&Arc<Incarnation>>,
        counters: &Counters,
    ) -> Option<(Arc<Incarnation>, Arc<Published>)> {
        let mut state = self.lock();
        let mut outdated = Throttle::new(WARN_INTERVAL);
        loop {
            if state.stop {
                return None;
            }
            if let Some((version, age)) = state.stale(self.max_staleness) {
                counters.set_stale(true);
                if outdated.warning(Instant::now()).is_some() {
                    tracing::warn!(
                        version,
                        age_s = age.as_secs(),
                        "weights are outdated, or the learner is unreachable: no steps until newer weights arrive (actor.max_staleness)"
                    );
                }
                let wait = self.changed.wait_timeout_while(state, WARN_INTERVAL, |s| {
                    !s.stop && s.stale(self.max_staleness).is_some()
                });
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if outdated.reset() {
                counters.set_stale(false);
                tracing::info!("weights are up to date again: acting");
            }
            if let (Some(incarnation), Some(weights)) = (&state.incarnation, &state.weights)
                && over.is_none_or(|over| !Arc::ptr_eq(incarnation, over))
            {
                return Some((Arc::clone(incarnation), Arc::clone(weights)));
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Feeds one incarnation with the learner's weights. It takes whatever arrives
/// first, because a learner that resumed may count from an older version.
#[derive(Debug)]
pub(crate) struct Feeding {
    pub(crate) hello: Hello,
    pub(crate) feed: Arc<Feed>,
    pub(crate) counters: Arc<Counters>,
    /// The newest version received; 0 before the first.
    pub(crate) newest: u64,
}

impl Watcher for Feeding {
    fn request(&self) -> WatchRequest {
        WatchRequest {
            hello: self.hello.clone(),
            newer_than: self.newest,
            bf16: false,
            untrained_first: false,
        }
    }

    fn take(&mut self, weights: Published) {
        self.newest = weights.version;
        self.counters.set_updates(weights.updates);
        self.feed.publish(weights);
    }
}

/// Stops the rollout when its owner is dropped.
#[derive(Debug)]
pub(crate) struct StopOnDrop(pub(crate) Arc<Feed>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::messages::status::ActorState;

    fn incarnation(actor: u16) -> Incarnation {
        Incarnation {
            writer: Writer {
                actor,
                incarnation: 1,
            },
            exploration: vec![],
            uplinks: vec![],
        }
    }

    fn weights(version: u64) -> Published {
        Published::at(0, version, 0, Vec::new())
    }

    #[test]
    fn next_returns_the_newest_incarnation_and_weights_until_stopped() {
        let feed = Arc::new(Feed::default());
        let next = |over: Option<Arc<Incarnation>>| {
            let feed = Arc::clone(&feed);
            std::thread::spawn(move || {
                let next = feed.next(over.as_ref(), &Counters::default());
                next.map(|(i, w)| (i.writer.actor, w.version))
            })
        };
        let waiting = next(None);
        feed.begin(incarnation(4));
        feed.publish(weights(1));
        assert_eq!(waiting.join().unwrap(), Some((4, 1)));
        feed.publish(weights(2));
        feed.publish(weights(3));
        let (first, newest) = feed.next(None, &Counters::default()).unwrap();
        assert_eq!(newest.version, 3);
        let waiting = next(Some(first));
        feed.begin(incarnation(5));
        assert_eq!(waiting.join().unwrap(), Some((5, 3)));
        feed.stop();
        assert!(feed.next(None, &Counters::default()).is_none());
    }

    #[test]
    fn outdated_weights_are_withheld_until_they_are_the_newest_again() {
        let bound = Duration::from_millis(200);
        let feed = Arc::new(Feed::new(Some(bound)));
        let counters = Arc::new(Counters::default());
        feed.begin(incarnation(4));
        counters.new_weights(1);
        let waiting_thread = || {
            let (feed, counters) = (Arc::clone(&feed), Arc::clone(&counters));
            std::thread::spawn(move || feed.next(None, &counters).map(|(_, w)| w.version))
        };
        let stale = || {
            let waiting = waiting_thread();
            while counters.read().state != ActorState::Stale {
                std::thread::sleep(bound / 20);
            }
            waiting
        };
        type Waiting = std::thread::JoinHandle<Option<u64>>;
        // Repeated, because the waiting thread may wake late and find them outdated again.
        let until_returned = |waiting: Waiting, change: &dyn Fn()| {
            while !waiting.is_finished() {
                change();
                std::thread::sleep(bound / 20);
            }
            waiting.join().unwrap()
        };
        assert_eq!(
            until_returned(waiting_thread(), &|| feed.publish(weights(1))),
            Some(1)
        );
        std::thread::sleep(bound * 2);
        let waiting = stale();
        // Another version is the newest: these are still outdated.
        feed.newest_is(2);
        std::thread::sleep(bound / 4);
        assert!(!waiting.is_finished());
        assert_eq!(until_returned(waiting, &|| feed.newest_is(1)), Some(1));
        assert_eq!(counters.read().state, ActorState::Acting);
        std::thread::sleep(bound * 2);
        let version = until_returned(stale(), &|| feed.publish(weights(2)));
        assert_eq!(version, Some(2));
        std::thread::sleep(bound * 2);
        assert_eq!(until_returned(stale(), &|| feed.stop()), None);
    }
}
