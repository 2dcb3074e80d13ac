//! Inserting: one stream per shard, its window kept full.

use crate::load::Load;
use crate::session::Shard;
use crate::{Arguments, Operation};
use anyhow::{Context as _, Result, bail};
use proto::messages::hello::Hello;
use proto::messages::insert::{AckLevel, INSERT_WINDOW, InsertOpen, InsertReply, Writer};
use proto::wire;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// An insert stream to one shard.
pub struct Stream {
    shard: Shard,
    requests: mpsc::Sender<wire::InsertRequest>,
    replies: Streaming<wire::InsertReply>,
    sequence: u64,
    window: usize,
    /// Batches not yet acknowledged, oldest first: number, and since when the latency counts.
    sent: VecDeque<(u64, Instant)>,
}

impl Stream {
    pub async fn open(shard: &Shard, hello: &Hello, arguments: &Arguments) -> Result<Self> {
        let open = InsertOpen {
            hello: hello.clone(),
            writer: Writer {
                actor: arguments.client,
                incarnation: 1,
            },
            ack: match arguments.ack.as_str() {
                "durable" => AckLevel::Durable,
                _ => AckLevel::Memory,
            },
        };
        let window = match arguments.in_flight {
            // With `mixed`, `--in-flight` is the number of calls.
            Some(batches) if arguments.operation != Operation::Mixed => batches,
            _ => INSERT_WINDOW as usize,
        };
        let (requests, receiver) = mpsc::channel(window);
        requests.send(open.into()).await?;
        let mut shard = shard.clone();
        let replies = shard.client.insert(ReceiverStream::new(receiver)).await;
        let replies = replies.map_err(|status| shard.failed("insert", &status))?;
        let mut stream = Self {
            shard,
            requests,
            replies: replies.into_inner(),
            sequence: 0,
            window,
            sent: VecDeque::new(),
        };
        let first = stream.reply().await?;
        // The writer may have written before; its sequence numbers continue.
        stream.sequence = first.acked;
        stream.window = window.min(first.window as usize);
        Ok(stream)
    }

    async fn reply(&mut self) -> Result<InsertReply> {
        let message = self.replies.message().await;
        let message = message.map_err(|status| self.shard.failed("insert", &status))?;
        let Some(message) = message else {
            bail!("a shard ended an insert stream without a reason");
        };
        InsertReply::try_from(message).context("a shard sent an invalid acknowledgement")
    }

    /// Sends one batch; its latency counts from `since`.
    async fn send(&mut self, load: &Load, since: Instant) -> Result<()> {
        self.sequence += 1;
        let batch = load.pool.batch(self.sequence);
        self.sent.push_back((self.sequence, since));
        if self.requests.send(batch.into()).await.is_err() {
            // The reason is in the replies.
            self.reply().await?;
            bail!("a shard ended an insert stream");
        }
        Ok(())
    }

    /// Waits for the next acknowledgement and counts what it covers.
    async fn acknowledged(&mut self, load: &Load) -> Result<()> {
        let reply = self.reply().await?;
        while let Some((_, since)) = self
            .sent
            .pop_front_if(|(sequence, _)| *sequence <= reply.acked)
        {
            load.measured.done("insert", since);
        }
        Ok(())
    }

    /// Inserts at most this many batches, one whenever it is due and the window has
    /// room, then waits for the batches in flight.
    pub async fn write(mut self, load: Arc<Load>, mut batches: usize) -> Result<()> {
        let due = || async {
            let since = load.inserts.due(load.measured.until).await?;
            load.draws.give();
            Some(since)
        };
        let mut next = Box::pin(due());
        loop {
            tokio::select! {
                biased;
                since = &mut next, if batches > 0 && self.sent.len() < self.window => {
                    let Some(since) = since else {
                        break;
                    };
                    self.send(&load, since).await?;
                    batches -= 1;
                    next.set(due());
                }
                done = self.acknowledged(&load), if !self.sent.is_empty() => done?,
                else => break,
            }
        }
        while !self.sent.is_empty() {
            self.acknowledged(&load).await?;
        }
        Ok(())
    }
}
