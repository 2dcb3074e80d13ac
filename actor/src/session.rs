//! One incarnation of an actor: heartbeats, weights and an uplink per shard, from
//! one join to the next.

pub mod counters;
pub(crate) mod driver;
pub(crate) mod feed;
pub(crate) mod learner_client;
pub mod metrics;
pub(crate) mod unreachable;
pub mod weights;

use std::sync::Arc;
use std::time::Duration;

use common::config::Config;
use common::imaging::dataset::Dataset;
use common::transition::row::RowShape;
use proto::messages::hello::Hello;
use proto::messages::join::JoinReply;
use proto::transport::security::Security;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::error::ActorError;
use crate::session::counters::Counters;
use crate::session::feed::{Feed, Feeding, Incarnation};
use crate::session::learner_client::{LearnerClient, Order};
use crate::uplink::outbox::{Batching, Outbox};
use crate::uplink::{CHUNKS, Phase, Uplink, UplinkError, insert_open};

/// An actor's inputs.
#[derive(Debug, Clone)]
pub struct ActorSetup {
    /// The resolved configuration, the learner's but for the keys that shape
    /// neither rows nor windows.
    pub config: Arc<Config>,
    /// The training scans, the same as the learner's.
    pub dataset: Arc<Dataset>,
    /// The learner, `host:port`.
    pub learner: String,
    /// The run to join; `None` for whatever the learner runs.
    pub run_id: Option<String>,
    /// How this actor authenticates.
    pub security: Security,
    /// The actor's counters; keep a clone to read them from outside.
    pub counters: Arc<Counters>,
}

/// The tasks of one incarnation; dropping the session ends them.
#[derive(Debug)]
pub(crate) struct Session {
    phase: watch::Sender<Phase>,
    uplinks: JoinSet<Result<usize, UplinkError>>,
    beats: JoinSet<Order>,
    _weights: JoinSet<()>,
}

/// An event that the owner of a session must handle.
#[derive(Debug)]
pub(crate) enum Event {
    Order(Order),
    /// A shard refuses this incarnation, which leaves so many rows unacknowledged.
    Replaced {
        shard: usize,
        sentence: String,
        rows: usize,
    },
    Failed(ActorError),
}

impl Session {
    /// Starts all tasks and passes the new incarnation to the rollout. `hello` is
    /// the one of the join request.
    pub(crate) fn start(
        setup: &ActorSetup,
        client: &LearnerClient,
        hello: &Hello,
        joined: &JoinReply,
        feed: &Arc<Feed>,
    ) -> Self {
        let (config, counters) = (&setup.config, &setup.counters);
        let mut hello = hello.clone();
        hello.run_id.clone_from(&joined.run_id);
        let (phase, phases) = watch::channel(Phase::Run);
        let mut uplinks = JoinSet::new();
        let mut senders = Vec::with_capacity(joined.shards.len());
        for (shard, address) in joined.shards.iter().enumerate() {
            let (sender, rows) = mpsc::channel(CHUNKS);
            senders.push(sender);
            let uplink = Uplink {
                shard,
                address: address.clone(),
                security: setup.security.clone(),
                open: insert_open(hello.clone(), joined.writer, config.replay.ack),
                patience: joined.lease,
                outbox: Outbox::new(batching(config, hello.shape)),
                overload: config.replay.overload,
                rows,
                phase: phases.clone(),
                counters: Arc::clone(counters),
            };
            uplinks.spawn(uplink.run().in_current_span());
        }
        let mut watching = JoinSet::new();
        let feeding = Feeding {
            hello,
            feed: Arc::clone(feed),
            counters: Arc::clone(counters),
            newest: 0,
        };
        watching.spawn(weights::watch(client.client(), feeding).in_current_span());
        let mut beats = JoinSet::new();
        let (learner, own_joined) = (client.clone(), joined.clone());
        let beat = learner.beat(own_joined, Arc::clone(counters), Arc::clone(feed));
        beats.spawn(beat.in_current_span());
        feed.begin(Incarnation {
            writer: joined.writer,
            exploration: joined.exploration.clone(),
            uplinks: senders,
        });
        Self {
            phase,
            uplinks,
            beats,
            _weights: watching,
        }
    }

    /// The next event for the owner. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            tokio::select! {
                Some(ended) = self.beats.join_next() => {
                    return match ended {
                        Ok(order) => Event::Order(order),
                        Err(error) => Event::Failed(ActorError::Task(error.to_string())),
                    };
                }
                Some(ended) = self.uplinks.join_next() => match ended {
                    // The rollout has ended, and its thread reports why.
                    Ok(Ok(_)) => {}
                    Ok(Err(UplinkError::Replaced { shard, sentence, rows })) => {
                        return Event::Replaced { shard, sentence, rows };
                    }
                    Ok(Err(error)) => return Event::Failed(ActorError::ShardRefused(error.to_string())),
                    Err(error) => return Event::Failed(ActorError::Task(error.to_string())),
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Ends the uplinks in the given phase; returns the number of unacknowledged rows.
    pub(crate) async fn end(mut self, phase: Phase) -> usize {
        let _ = self.phase.send(phase);
        let mut left = 0;
        while let Some(ended) = self.uplinks.join_next().await {
            if let Ok(Ok(rows) | Err(UplinkError::Replaced { rows, .. })) = ended {
                left += rows;
            }
        }
        left
    }
}

fn batching(config: &Config, shape: RowShape) -> Batching {
    Batching {
        shape,
        rows: config.actor.batch_rows,
        wait: Duration::from_millis(config.actor.batch_wait_ms),
        backlog: config.actor.backlog,
    }
}
