//! One writer's stream: batches in, acknowledgements out.
//!
//! Batches are stored one after another. While one waits for credit the next is
//! not read, HTTP/2 flow control fills up, and the writer waits too. Batches
//! whose writer asked for durable acknowledgements are stored meanwhile: only
//! their acknowledgement waits for the disk.

use crate::error::ShardError;
use crate::service::counted::Counted;
use crate::service::decode as batch;
use crate::service::shared::{Acked, SharedShard};
use crate::shard::CheckedBatch;
use proto::messages::insert::{
    AckLevel, INSERT_WINDOW, InsertBatch, InsertOpen, InsertReply, InsertRequest,
};
use proto::wire;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

/// Where acknowledgements go.
pub type Replies = mpsc::Sender<Result<wire::InsertReply, Status>>;

/// Serves one writer until it ends the stream, goes away or breaks the
/// contract, or until the shard stops.
pub async fn serve(
    shard: Arc<SharedShard>,
    requests: Streaming<wire::InsertRequest>,
    replies: Replies,
    mut stopping: watch::Receiver<bool>,
) {
    let _counted = shard.stream();
    let (stored, acks) = mpsc::channel(INSERT_WINDOW as usize);
    let ended = tokio::select! {
        ended = async { tokio::try_join!(read(&shard, requests, stored), acknowledge(&shard, acks, &replies)) } => ended.map(drop),
        // Without this a writer that went away while it waits for credit would keep its place.
        () = replies.closed() => Ok(()),
        _ = stopping.wait_for(|stop| *stop) => Err(Status::unavailable("this shard is shutting down")),
    };
    if let Err(status) = ended {
        tracing::debug!(code = ?status.code(), reason = status.message(), "insert stream ended");
        let _ = replies.send(Err(status)).await;
    }
}

/// An acknowledgement to give.
struct Ack {
    acked: Acked,
    /// Not before it is on the disk.
    durable: bool,
    counted: Counted,
}

/// Stores what comes; ends when the writer ends or nobody listens any more.
async fn read(
    shard: &SharedShard,
    mut requests: Streaming<wire::InsertRequest>,
    stored: mpsc::Sender<Ack>,
) -> Result<(), Status> {
    let Some(first) = requests.message().await? else {
        return Ok(());
    };
    let open = open(shard, first)?;
    let durable = open.ack == AckLevel::Durable;
    let mut acked = shard.begin(open.writer)?;
    loop {
        let counted = shard.unacknowledged();
        let ack = Ack {
            acked,
            durable,
            counted,
        };
        if stored.send(ack).await.is_err() {
            break;
        }
        let Some(message) = requests.message().await? else {
            break;
        };
        let batch = match check(&open, message) {
            Ok(batch) => batch,
            Err(error) => {
                shard.with(|shard, _| shard.count_refused())?;
                let writer = open.writer;
                tracing::warn!(actor = writer.actor, incarnation = writer.incarnation, %error, "batch refused");
                return Err(error.into());
            }
        };
        acked = shard.insert(batch, durable).await?;
    }
    Ok(())
}

/// Gives acknowledgements in the order of the batches.
async fn acknowledge(
    shard: &SharedShard,
    mut acks: mpsc::Receiver<Ack>,
    replies: &Replies,
) -> Result<(), Status> {
    let shard_incarnation = shard.with(|shard, _| shard.config().incarnation)?;
    while let Some(ack) = acks.recv().await {
        let Ack {
            acked,
            durable,
            counted,
        } = ack;
        if durable {
            shard.durable(acked.end).await?;
        }
        let reply = InsertReply {
            acked: acked.sequence,
            window: INSERT_WINDOW,
            shard_incarnation,
        };
        if replies.send(Ok(reply.into())).await.is_err() {
            break;
        }
        drop(counted);
    }
    Ok(())
}

fn open(shard: &SharedShard, message: wire::InsertRequest) -> Result<InsertOpen, ShardError> {
    let InsertRequest::Open(open) = message.try_into()? else {
        return Err(ShardError::Order(
            "an insert stream begins with an open, not with a batch",
        ));
    };
    shard.join(&open.hello)?;
    match open.ack {
        AckLevel::Durable if !shard.keeps() => Err(ShardError::Durable),
        AckLevel::Durable | AckLevel::Memory => Ok(open),
    }
}

fn check(open: &InsertOpen, message: wire::InsertRequest) -> Result<CheckedBatch, ShardError> {
    let InsertRequest::Batch(batch) = message.try_into()? else {
        return Err(ShardError::Order("an insert stream is opened once"));
    };
    batch::check(&batch, open.hello.shape)?;
    let InsertBatch {
        sequence,
        packed,
        priorities,
    } = batch;
    Ok(CheckedBatch {
        writer: open.writer,
        sequence,
        packed,
        td_errors: priorities,
    })
}
