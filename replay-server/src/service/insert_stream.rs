//! One writer's stream: batches in, acknowledgements out.
//!
//! Batches are stored one after another. While one waits for credit the next is
//! not read, so HTTP/2 flow control blocks the writer. With durable
//! acknowledgements batches are stored at once: only the acknowledgements wait for
//! the disk.

use crate::error::{BatchError, ShardError};
use crate::service::shared::{Acked, SharedShard};
use crate::shard::CheckedBatch;
use common::transition::row::{Row, RowShape};
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
    counted: Arc<()>,
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
        let ack = Ack {
            acked,
            durable,
            counted: shard.unacknowledged(),
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
        if ack.durable {
            shard.durable(ack.acked.end).await?;
        }
        let reply = InsertReply {
            acked: ack.acked.sequence,
            window: INSERT_WINDOW,
            shard_incarnation,
        };
        if replies.send(Ok(reply.into())).await.is_err() {
            break;
        }
        drop(ack.counted);
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
    check_rows(&batch, open.hello.shape)?;
    Ok(CheckedBatch {
        writer: open.writer,
        sequence: batch.sequence,
        packed: batch.packed,
        td_errors: batch.priorities,
    })
}

/// Checks the packed rows in place. Priorities were checked when the message was
/// decoded.
fn check_rows(batch: &InsertBatch, shape: RowShape) -> Result<(), BatchError> {
    let sequence = batch.sequence;
    let rows = shape.split(&batch.packed, batch.rows());
    let rows = rows.map_err(|why| BatchError::Length { sequence, why })?;
    for (row, bytes) in rows.enumerate() {
        Row::check(bytes, shape).map_err(|why| BatchError::Row { sequence, row, why })?;
    }
    Ok(())
}
