//! Inserting: one stream per shard, its window kept full.

use crate::arguments::Arguments;
use crate::latency::{Recorder, Span};
use crate::pool::Pool;
use crate::session::Session;
use anyhow::{Context as _, Result, bail};
use proto::messages::insert::{InsertOpen, InsertReply, Writer};
use proto::wire;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
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
    /// Batches not yet acknowledged, oldest first: number, when sent, rows.
    sent: VecDeque<(u64, Instant, usize)>,
}

/// Opens a stream to every shard.
pub async fn open(session: &Arc<Session>, arguments: &Arguments) -> Result<Vec<Stream>> {
    let writer = Writer {
        actor: arguments.client,
        incarnation: 1,
    };
    let mut streams = Vec::new();
    for shard in 0..session.shards.len() {
        streams.push(Stream::open(session, shard, writer, arguments).await?);
    }
    Ok(streams)
}

impl Stream {
    async fn open(
        session: &Arc<Session>,
        shard: usize,
        writer: Writer,
        arguments: &Arguments,
    ) -> Result<Self> {
        let open = InsertOpen {
            hello: session.hello.clone(),
            writer,
            ack: arguments.ack.level(),
        };
        let window = arguments.insert_window();
        let (requests, receiver) = mpsc::channel(window);
        requests.send(open.into()).await?;
        let mut client = session.shards[shard].client.clone();
        let replies = client
            .insert(ReceiverStream::new(receiver))
            .await
            .map_err(|status| session.failed(shard, "insert", &status))?
            .into_inner();
        let mut stream = Self {
            session: session.clone(),
            shard,
            requests,
            replies,
            sequence: 0,
            window: 1,
            sent: VecDeque::new(),
        };
        let first = stream.reply().await?;
        // The same writer may have written before: its numbers go on.
        stream.sequence = first.acked;
        stream.window = window.min(first.window as usize);
        Ok(stream)
    }

    async fn reply(&mut self) -> Result<InsertReply> {
        let message = self
            .replies
            .message()
            .await
            .map_err(|status| self.session.failed(self.shard, "insert", &status))?;
        let Some(message) = message else {
            bail!("a shard ended an insert stream without a reason");
        };
        InsertReply::try_from(message).context("an acknowledgement is none")
    }

    /// Sends one batch; its latency counts from `since`.
    pub async fn send(&mut self, pool: &Pool, rows: usize, since: Instant) -> Result<()> {
        self.sequence += 1;
        let batch = pool.batch(self.sequence);
        self.sent.push_back((self.sequence, since, rows));
        if self.requests.send(batch.into()).await.is_err() {
            // The reason is in the replies.
            self.reply().await?;
            bail!("a shard ended an insert stream");
        }
        Ok(())
    }

    /// Waits for the next acknowledgement and records what it covers.
    pub async fn acknowledged(&mut self, recorder: &mut Recorder) -> Result<()> {
        let reply = self.reply().await?;
        while let Some(&(sequence, since, rows)) = self.sent.front()
            && sequence <= reply.acked
        {
            recorder.done(since, rows);
            self.sent.pop_front();
        }
        Ok(())
    }

    /// Whether another batch may be sent.
    pub fn has_room(&self) -> bool {
        self.sent.len() < self.window
    }

    /// Whether everything sent is acknowledged.
    pub fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    /// Keeps the window full while `more` says so, then waits for what is in flight.
    async fn write(
        &mut self,
        pool: &Pool,
        rows: usize,
        recorder: &mut Recorder,
        mut more: impl FnMut() -> bool,
    ) -> Result<()> {
        loop {
            while self.has_room() && more() {
                self.send(pool, rows, Instant::now()).await?;
            }
            if self.is_idle() {
                return Ok(());
            }
            self.acknowledged(recorder).await?;
        }
    }
}

/// Inserts into every shard until the time is up.
pub async fn run(
    streams: Vec<Stream>,
    pool: &Arc<Pool>,
    arguments: &Arc<Arguments>,
    span: Span,
) -> Result<Recorder> {
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        let (pool, rows) = (pool.clone(), arguments.batch);
        tasks.spawn(async move {
            let mut recorder = Recorder::new(span);
            let more = || !span.is_over();
            stream.write(&pool, rows, &mut recorder, more).await?;
            Ok::<_, anyhow::Error>(recorder)
        });
    }
    joined(tasks, span).await
}

/// Inserts `--rows` rows, as many into each shard.
pub async fn fill(
    streams: Vec<Stream>,
    pool: &Arc<Pool>,
    arguments: &Arc<Arguments>,
) -> Result<Recorder> {
    let span = Span::open();
    let mut tasks = JoinSet::new();
    let each = arguments.rows.div_ceil(streams.len());
    for mut stream in streams {
        let (pool, rows) = (pool.clone(), arguments.batch);
        tasks.spawn(async move {
            let mut recorder = Recorder::new(span);
            let mut batches = each.div_ceil(rows);
            let more = || {
                batches = batches.saturating_sub(1);
                batches > 0
            };
            stream.send(&pool, rows, Instant::now()).await?;
            stream.write(&pool, rows, &mut recorder, more).await?;
            Ok::<_, anyhow::Error>(recorder)
        });
    }
    let mut recorder = joined(tasks, span).await?;
    recorder.end_now();
    Ok(recorder)
}

/// What all tasks recorded, or the first failure.
pub async fn joined(mut tasks: JoinSet<Result<Recorder>>, span: Span) -> Result<Recorder> {
    let mut all = Recorder::new(span);
    while let Some(task) = tasks.join_next().await {
        all.join(task??);
    }
    Ok(all)
}
