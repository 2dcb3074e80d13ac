//! One writer's stream: batches in, acknowledgements out.
//!
//! Batches are stored one after another. While one waits for credit the next is
//! not read, HTTP/2 flow control fills up, and the writer waits too.

use crate::batch;
use crate::error::ShardError;
use crate::shard::CheckedBatch;
use crate::shared::SharedShard;
use proto::insert::{AckLevel, INSERT_WINDOW, InsertBatch, InsertOpen, InsertReply, InsertRequest};
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
    let ended = tokio::select! {
        ended = read(&shard, requests, &replies) => ended,
        // Without this a writer that went away while it waits for credit would keep its place.
        () = replies.closed() => Ok(()),
        _ = stopping.wait_for(|stop| *stop) => Err(Status::unavailable("this shard is shutting down")),
    };
    if let Err(status) = ended {
        tracing::debug!(code = ?status.code(), reason = status.message(), "insert stream ended");
        let _ = replies.send(Err(status)).await;
    }
}

async fn read(
    shard: &SharedShard,
    mut requests: Streaming<wire::InsertRequest>,
    replies: &Replies,
) -> Result<(), Status> {
    let Some(first) = requests.message().await? else {
        return Ok(());
    };
    let open = open(shard, first)?;
    let acked = shard.with(|shard, _| shard.acked(open.writer))?;
    let mut going_on = reply(shard, replies, acked).await?;
    while going_on {
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
        let acked = shard.insert(&batch).await?;
        going_on = reply(shard, replies, acked).await?;
    }
    Ok(())
}

fn open(shard: &SharedShard, message: wire::InsertRequest) -> Result<InsertOpen, ShardError> {
    let InsertRequest::Open(open) = message.try_into()? else {
        return Err(ShardError::Order(
            "an insert stream begins with an open, not with a batch",
        ));
    };
    shard.with(|shard, _| shard.join(&open.hello))??;
    match open.ack {
        AckLevel::Memory => Ok(open),
        AckLevel::Durable => Err(ShardError::Durable),
    }
}

fn check(open: &InsertOpen, message: wire::InsertRequest) -> Result<CheckedBatch, ShardError> {
    let InsertRequest::Batch(batch) = message.try_into()? else {
        return Err(ShardError::Order("an insert stream is opened once"));
    };
    let packed = batch::unpack(&batch, open.hello.shape)?;
    let InsertBatch {
        sequence,
        priorities,
        ..
    } = batch;
    Ok(CheckedBatch {
        writer: open.writer,
        sequence,
        packed,
        td_errors: priorities,
    })
}

/// Sends an acknowledgement; false when nobody listens any more.
async fn reply(shard: &SharedShard, replies: &Replies, acked: u64) -> Result<bool, ShardError> {
    let shard_incarnation = shard.with(|shard, now| shard.summary(now).shard_incarnation)?;
    let reply = InsertReply {
        acked,
        window: INSERT_WINDOW,
        shard_incarnation,
    };
    Ok(replies.send(Ok(reply.into())).await.is_ok())
}
