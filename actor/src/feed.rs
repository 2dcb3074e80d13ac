//! What the rollout thread is fed with: under which name and to which shards it
//! writes, the newest weights, and when to stop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use proto::insert::Writer;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::counters::Counters;
use crate::placement::shard_of;
use crate::uplink::Chunk;
use crate::weights::Published;

/// One life of the actor, as the rollout sees it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) writer: Writer,
    /// Final probability of a random action per slot.
    pub(crate) exploration: Vec<f32>,
    /// One uplink per shard, in the order of their numbers.
    pub(crate) uplinks: Vec<Sender<Chunk>>,
}

impl Life {
    /// Hands rows to the uplinks; waits while a shard that is there takes none.
    /// False when this life is over.
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

#[derive(Debug, Default)]
struct State {
    life: Option<Arc<Life>>,
    weights: Option<Arc<Published>>,
    stop: bool,
}

/// Newest wins: what is not picked up in time is replaced.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(crate) fn publish(&self, weights: Published) {
        self.change(|s| s.weights = Some(Arc::new(weights)));
    }

    pub(crate) fn begin(&self, life: Life) {
        self.change(|s| s.life = Some(Arc::new(life)));
    }

    /// Ends the rollout; its uplinks close as soon as it lets go of them.
    pub(crate) fn stop(&self) {
        self.change(|s| {
            *s = State {
                stop: true,
                ..State::default()
            }
        });
    }

    /// The life and the weights to act with now. Waits until there are both and
    /// the life is another than `over`; `None` when it is time to stop.
    pub(crate) fn next(&self, over: Option<&Arc<Life>>) -> Option<(Arc<Life>, Arc<Published>)> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let life = state
                .life
                .as_ref()
                .filter(|l| over.is_none_or(|o| !Arc::ptr_eq(l, o)));
            if let (Some(life), Some(weights)) = (life, &state.weights) {
                return Some((Arc::clone(life), Arc::clone(weights)));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Stops the rollout when its owner goes away, however that happens.
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

    fn life(actor: u16) -> Life {
        Life {
            writer: Writer {
                actor,
                incarnation: 1,
            },
            exploration: vec![],
            uplinks: vec![],
        }
    }

    fn weights(version: u64) -> Published {
        Published {
            version,
            updates: 0,
            bytes: vec![],
        }
    }

    #[test]
    fn the_newest_of_both_is_handed_out_and_stop_wins() {
        let feed = Arc::new(Feed::default());
        let waiting = std::thread::spawn({
            let feed = Arc::clone(&feed);
            move || feed.next(None).map(|(l, w)| (l.writer.actor, w.version))
        });
        feed.begin(life(4));
        feed.publish(weights(1));
        assert_eq!(waiting.join().unwrap(), Some((4, 1)));
        feed.publish(weights(2));
        feed.publish(weights(3));
        let (first, newest) = feed.next(None).unwrap();
        assert_eq!(newest.version, 3);
        let next = std::thread::spawn({
            let (feed, first) = (Arc::clone(&feed), Arc::clone(&first));
            move || feed.next(Some(&first)).map(|(l, _)| l.writer.actor)
        });
        feed.begin(life(5));
        assert_eq!(next.join().unwrap(), Some(5));
        feed.stop();
        assert!(feed.next(None).is_none());
    }
}
