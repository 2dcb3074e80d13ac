//! The gRPC service: decodes requests, calls the shard, encodes replies.

pub mod fence;
pub mod insert_stream;
pub mod shared;
pub mod writers;

use crate::error::ShardError;
use crate::service::shared::{SharedShard, Taken};
use crate::shard::Shard;
use crate::table::{Sampled, Update};
use proto::messages::insert::INSERT_WINDOW;
use proto::messages::sample::{RowKey, SampleRequest, SampledBatch};
use proto::messages::status::ShardSummary;
use proto::messages::update::{PriorityUpdate, UpdateReply};
use proto::transport::channel::MESSAGE_BYTES_MAX;
use proto::wire;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

/// Bytes of a sampled row's key and probability in a reply.
const KEY_BYTES: usize = 2 * size_of::<u32>() + size_of::<f64>();
/// Upper bound of a reply's bytes besides its rows.
const REPLY_BYTES: usize = 1024;

/// The gRPC service of one shard.
#[derive(Debug)]
pub struct ReplayService {
    shard: Arc<SharedShard>,
    /// True once the shard stops: insert streams do not end by themselves.
    stopping: watch::Receiver<bool>,
}

impl ReplayService {
    /// Serves `shard` until `stopping` turns true.
    #[must_use]
    pub fn new(shard: Arc<SharedShard>, stopping: watch::Receiver<bool>) -> Self {
        Self { shard, stopping }
    }

    fn draw(&self, request: &SampleRequest) -> Result<SampledBatch, ShardError> {
        let shape = request.hello.shape;
        let fit = (MESSAGE_BYTES_MAX - REPLY_BYTES) / (shape.bytes() + KEY_BYTES);
        if request.rows > fit {
            return Err(ShardError::SampleTooLarge {
                rows: request.rows,
                row_bytes: shape.bytes(),
                fit,
            });
        }
        self.shard.join(&request.hello)?;
        self.shard.admit_learner(request.learner)?;
        let (incarnation, limit) = (request.shard_incarnation, request.insert_limit);
        self.shard.grant(incarnation, limit)?;
        let sample = |shard: &mut Shard, now| (shard.sample(request.rows), shard.summary(now));
        let (sampled, summary) = self.shard.with(sample)?;
        Ok(batch(sampled, summary))
    }

    fn update(&self, update: &PriorityUpdate) -> Result<UpdateReply, ShardError> {
        let updates = update.priorities.iter().map(|p| Update {
            slot: p.slot,
            generation: p.generation,
            td_error: p.td_error,
        });
        let updates: Vec<_> = updates.collect();
        self.shard.join(&update.hello)?;
        self.shard.admit_learner(update.learner)?;
        let updated = self
            .shard
            .with(|shard, _| shard.update(update.shard_incarnation, &updates))??;
        Ok(UpdateReply {
            applied: updated.applied,
            stale: updated.stale,
        })
    }
}

fn batch(sampled: Sampled, summary: ShardSummary) -> SampledBatch {
    let slots = sampled.slots.iter().zip(&sampled.generations);
    let keys = slots.map(|(&slot, &generation)| RowKey {
        shard: summary.shard,
        incarnation: summary.shard_incarnation,
        slot,
        generation,
    });
    SampledBatch {
        packed: sampled.packed.into(),
        keys: keys.collect(),
        probabilities: sampled.probabilities,
        summary,
    }
}

#[tonic::async_trait]
impl wire::replay_server::Replay for ReplayService {
    type InsertStream = ReceiverStream<Result<wire::InsertReply, Status>>;

    async fn insert(
        &self,
        request: Request<Streaming<wire::InsertRequest>>,
    ) -> Result<Response<Self::InsertStream>, Status> {
        let (replies, receiver) = mpsc::channel(INSERT_WINDOW as usize);
        let (shard, stopping) = (self.shard.clone(), self.stopping.clone());
        let requests = request.into_inner();
        let served = insert_stream::serve(shard, requests, replies, stopping);
        tokio::spawn(served.in_current_span());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn sample(
        &self,
        request: Request<wire::SampleRequest>,
    ) -> Result<Response<wire::SampleReply>, Status> {
        let request = SampleRequest::try_from(request.into_inner())?;
        Ok(Response::new(self.draw(&request)?.into()))
    }

    async fn update_priorities(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateReply>, Status> {
        let update = PriorityUpdate::try_from(request.into_inner())?;
        Ok(Response::new(self.update(&update)?))
    }

    async fn status(
        &self,
        _request: Request<wire::ShardStatusRequest>,
    ) -> Result<Response<wire::ShardStatus>, Status> {
        Ok(Response::new(self.shard.status()?))
    }

    async fn snapshot(
        &self,
        _request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        if !self.shard.keeps() {
            return Err(ShardError::Durable.into());
        }
        let taken = self.shard.snapshot().await?;
        let Taken { row, bytes } = taken.unwrap_or_default();
        Ok(Response::new(wire::SnapshotReply { row, bytes }))
    }
}
