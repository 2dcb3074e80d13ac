//! Sends new priorities back to the shards, without blocking training.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::messages::hello::Hello;
use proto::messages::sample::RowKey;
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, retry, unary};
use proto::wire::replay_client::ReplayClient as ShardClient;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Queued batches of priorities; further ones are dropped and counted.
const QUEUE: usize = 64;
/// Attempts per update: it is idempotent.
const RETRIES: usize = 2;

/// Totals of priority updates.
#[derive(Debug, Default)]
pub struct PriorityCounts {
    /// Rows whose priority was updated.
    pub applied: AtomicU64,
    /// Rows that the shard no longer held.
    pub stale: AtomicU64,
    /// Rows whose priority was dropped: queue full or shard unreachable.
    pub dropped: AtomicU64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct PriorityTotals {
    #[serde(skip)]
    pub applied_priorities: u64,
    /// New priorities for rows that the shard no longer held.
    pub stale_priorities: u64,
    /// New priorities dropped before reaching a shard.
    pub dropped_priorities: u64,
}

impl PriorityCounts {
    /// The current totals.
    pub fn totals(&self) -> PriorityTotals {
        PriorityTotals {
            applied_priorities: self.applied.load(Ordering::Relaxed),
            stale_priorities: self.stale.load(Ordering::Relaxed),
            dropped_priorities: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The train thread's end of the queue.
#[derive(Debug, Clone)]
pub struct PrioritySink {
    queue: mpsc::Sender<Vec<(RowKey, f32)>>,
    counts: Arc<PriorityCounts>,
}

impl PrioritySink {
    /// Queues a batch; drops and counts it if the shards do not keep up.
    pub fn push(&self, priorities: Vec<(RowKey, f32)>) {
        let rows = priorities.len() as u64;
        if self.queue.try_send(priorities).is_err() {
            self.counts.dropped.fetch_add(rows, Ordering::Relaxed);
        }
    }
}

/// The queue and the task that drains it; the task ends when all sinks are dropped.
/// `learner`: the number of this learner process.
pub fn priorities(
    hello: Hello,
    learner: u64,
    clients: Vec<ShardClient<Channel>>,
) -> (PrioritySink, Arc<PriorityCounts>, impl Future<Output = ()>) {
    let (queue, mut waiting) = mpsc::channel::<Vec<(RowKey, f32)>>(QUEUE);
    let counts = Arc::new(PriorityCounts::default());
    let sink = PrioritySink {
        queue,
        counts: Arc::clone(&counts),
    };
    let task_counts = Arc::clone(&counts);
    let task = async move {
        // A queue per shard: a slow shard delays only its own priorities.
        let mut senders = Vec::new();
        let mut tasks = JoinSet::new();
        for (shard, client) in clients.into_iter().enumerate() {
            let (to_shard, mut updates) = mpsc::channel(QUEUE);
            senders.push(to_shard);
            let counts = Arc::clone(&task_counts);
            let sending = async move {
                while let Some(update) = updates.recv().await {
                    send(&client, shard, update, &counts).await;
                }
            };
            tasks.spawn(sending.in_current_span());
        }
        while let Some(batch) = waiting.recv().await {
            for (shard, update) in route(&hello, learner, &batch) {
                let rows = update.priorities.len() as u64;
                let sent = senders
                    .get(shard)
                    .is_some_and(|s| s.try_send(update).is_ok());
                if !sent {
                    task_counts.dropped.fetch_add(rows, Ordering::Relaxed);
                }
            }
        }
        drop(senders);
        while tasks.join_next().await.is_some() {}
    };
    (sink, counts, task)
}

/// One update per shard and incarnation.
fn route(hello: &Hello, learner: u64, batch: &[(RowKey, f32)]) -> Vec<(usize, PriorityUpdate)> {
    let mut by_shard: BTreeMap<(u32, u64), Vec<SlotPriority>> = BTreeMap::new();
    for (key, td_error) in batch {
        by_shard
            .entry((key.shard, key.incarnation))
            .or_default()
            .push(SlotPriority {
                slot: key.slot,
                generation: key.generation,
                td_error: *td_error,
            });
    }
    let update = |((shard, shard_incarnation), priorities)| {
        let update = PriorityUpdate {
            hello: hello.clone(),
            shard_incarnation,
            priorities,
            learner,
        };
        (usize::try_from(shard).unwrap_or(usize::MAX), update)
    };
    by_shard.into_iter().map(update).collect()
}

async fn send(
    client: &ShardClient<Channel>,
    shard: usize,
    update: PriorityUpdate,
    counts: &PriorityCounts,
) {
    let rows = update.priorities.len() as u64;
    let reply = retry("update priorities", RETRIES, || {
        let (mut client, update) = (client.clone(), update.clone());
        async move {
            unary(update.into(), CALL_DEADLINE, |r| {
                client.update_priorities(r)
            })
            .await
        }
    })
    .await;
    match reply {
        Ok(reply) => {
            counts.applied.fetch_add(reply.applied, Ordering::Relaxed);
            counts.stale.fetch_add(reply.stale, Ordering::Relaxed);
        }
        Err(status) => {
            tracing::debug!(shard, rows, why = status.message(), "priorities dropped");
            counts.dropped.fetch_add(rows, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::transition::row::RowShape;

    #[test]
    fn priorities_go_to_the_shard_and_incarnation_of_their_key() {
        let hello = Hello {
            run_id: "r".into(),
            manifest: [0; 32],
            config_digest: [0; 32],
            shape: RowShape {
                agents: 1,
                history: 1,
            },
        };
        let key = |shard, incarnation, slot| RowKey {
            shard,
            incarnation,
            slot,
            generation: 7,
        };
        let batch = [
            (key(1, 5, 10), 0.5),
            (key(0, 9, 11), 0.25),
            (key(1, 6, 12), 1.0),
            (key(1, 5, 13), 2.0),
        ];
        let routed: Vec<_> = route(&hello, 7, &batch)
            .into_iter()
            .map(|(shard, u)| {
                assert_eq!(u.learner, 7);
                let slots: Vec<_> = u.priorities.iter().map(|p| (p.slot, p.td_error)).collect();
                (shard, u.shard_incarnation, slots)
            })
            .collect();
        assert_eq!(
            routed,
            [
                (0, 9, vec![(11, 0.25)]),
                (1, 5, vec![(10, 0.5), (13, 2.0)]),
                (1, 6, vec![(12, 1.0)]),
            ]
        );
    }
}
