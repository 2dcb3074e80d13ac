//! Inserting: one stream per shard, its window kept full.

use crate::load::Load;
use crate::pace::Pace;
use crate::session::{Session, Shard};
use anyhow::{Context as _, Result, bail};
use proto::messages::insert::{AckLevel, InsertOpen, InsertReply, Writer};
use proto::wire;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// An insert stream to one shard.
pub struct Stream {
    session: Arc<Session>,
    shard: usize,
    requests: mpsc::Sender<wire::InsertRequest>,
    replies: Streaming<wire::InsertReply>,
    sequence: u64,
    window: usize,
    /// Batches not yet acknowledged, oldest first: number, and since when the latency counts.
    sent: VecDeque<(u64, Instant)>,
}

impl Stream {
    pub async fn open(
        session: &Arc<Session>,
        shard: usize,
        actor: u16,
        ack: AckLevel,
        window: usize,
    ) -> Result<Self> {
        let open = InsertOpen {
            hello: session.hello.clone(),
            writer: Writer {
                actor,
                incarnation: 1,
            },
            ack,
        };
        let (requests, receiver) = mpsc::channel(window);
        requests.send(open.into()).await?;
        let mut client = session.shards[shard].client.clone();
        let replies = client.insert(ReceiverStream::new(receiver)).await;
        let replies = replies.map_err(|status| session.shards[shard].failed("insert", &status))?;
        let mut stream = Self {
            session: session.clone(),
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

    fn shard(&self) -> &Shard {
        &self.session.shards[self.shard]
    }

    async fn reply(&mut self) -> Result<InsertReply> {
        let message = self.replies.message().await;
        let message = message.map_err(|status| self.shard().failed("insert", &status))?;
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
        while let Some(&(sequence, since)) = self.sent.front()
            && sequence <= reply.acked
        {
            load.measured.done("insert", since, load.rows);
            self.sent.pop_front();
        }
        Ok(())
    }

    /// Inserts a batch whenever one is due and the window has room, then waits
    /// for the batches in flight.
    pub async fn write(mut self, load: Load, pace: Arc<Pace>) -> Result<()> {
        let due = || async {
            let since = pace.due(load.measured.until).await?;
            load.draws.give();
            Some(since)
        };
        let mut next = Box::pin(due());
        loop {
            tokio::select! {
                biased;
                since = &mut next, if self.sent.len() < self.window => {
                    let Some(since) = since else {
                        break;
                    };
                    self.send(&load, since).await?;
                    next.set(due());
                }
                done = self.acknowledged(&load), if !self.sent.is_empty() => done?,
            }
        }
        while !self.sent.is_empty() {
            self.acknowledged(&load).await?;
        }
        Ok(())
    }
}
