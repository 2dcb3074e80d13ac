//! One writer's stream: batches in, acknowledgements out.
//!
//! Batches are stored one after another. While one waits for credit the next is
//! not read, so HTTP/2 flow control blocks the writer. With durable
//! acknowledgements batches are stored at once: only the acknowledgements wait for
//! the disk.

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

/// Sends acknowledgements to the writer.
pub type Replies = mpsc::Sender<Result<wire::InsertReply, Status>>;

/// Serves one writer until it ends the stream, disconnects or violates the
/// protocol, or until the shard stops.
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
        // Otherwise a writer that disconnects while it waits for credit would stay in the queue.
        () = replies.closed() => Ok(()),
        _ = stopping.wait_for(|stop| *stop) => Err(Status::unavailable("this shard is shutting down")),
    };
    if let Err(status) = ended {
        tracing::debug!(code = ?status.code(), reason = status.message(), "insert stream ended");
        let _ = replies.send(Err(status)).await;
    }
}

/// A pending acknowledgement.
struct Ack {
    acked: Acked,
    /// Send it only once the batch is on the disk.
    durable: bool,
    counted: Counted,
}

/// Stores batches until the writer ends the stream or its acknowledgements are no
/// longer received.
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

/// Sends acknowledgements in the order of the batches.
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
