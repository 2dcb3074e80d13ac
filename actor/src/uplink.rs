//! One task per shard: its own insert stream, its own outbox.
//!
//! A shard is *unreachable* when no stream to it has been open for longer than
//! `GRACE`. The uplink then still takes rows from the rollout and drops the
//! oldest batches beyond the backlog, so that the other shards still receive
//! theirs. A reachable shard that acknowledges nothing is *blocked* (its rate
//! limiter waits for the learner). The uplink then takes no more rows, the channel
//! fills, and the rollout waits, unless `replay.overload` is to drop the oldest
//! rows instead.

pub(crate) mod outbox;
pub mod placement;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff};
use common::config::{AckConfig, OverloadConfig};
use proto::messages::hello::Hello;
use proto::messages::insert::{AckLevel, InsertOpen, InsertReply, Writer};
use proto::transport::channel::{Channel, replay_client};
use proto::transport::endpoint::AddressError;
use proto::transport::retry::{CALL_DEADLINE, backoff, is_refusal, reason};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::session::counters::Counters;
use crate::session::unreachable::Unreachable;
use crate::uplink::outbox::{Chunk, Outbox};

/// Chunks of rows between the rollout and the uplink: enough that a step need not
/// wait for the task to wake, few enough that blocked rows stay fresh.
pub(crate) const CHUNKS: usize = 4;

const WINDOW_MAX: u32 = 64;

/// Sealed batches that may wait for the window of a reachable shard.
const WAITING_MAX: usize = 1;

/// How long a stream may be broken before its shard counts as unreachable: a
/// shard that returns at once loses no rows.
const GRACE: Duration = Duration::from_secs(1);

/// The phase of an uplink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    /// Send rows as they arrive.
    Run,
    /// No new rows will arrive: finish, at the latest at this time.
    Drain(Instant),
    /// Stop at once.
    Abandon,
}

/// Why a shard will never store this actor's rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UplinkError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("shard {shard} at {address} refuses rows of this actor: {sentence}")]
    Refused {
        shard: usize,
        address: String,
        sentence: String,
    },
    /// The shard knows a later incarnation of this actor. An actor that joins again gets one
    /// that is later still.
    #[error("shard {shard} refuses this incarnation: {sentence}")]
    Replaced {
        shard: usize,
        sentence: String,
        /// Unacknowledged rows.
        rows: usize,
    },
}

/// The task that sends rows to one shard.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) shard: usize,
    pub(crate) address: String,
    pub(crate) security: Security,
    pub(crate) open: InsertOpen,
    /// A refusal is final only after this time: a shard may know a restarted
    /// learner's run before our next heartbeat.
    pub(crate) patience: Duration,
    pub(crate) outbox: Outbox,
    /// Whether rows are taken from the rollout although the shard is blocked.
    pub(crate) overload: OverloadConfig,
    pub(crate) rows: mpsc::Receiver<Chunk>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) counters: Arc<Counters>,
}

struct Stream {
    requests: mpsc::Sender<wire::InsertRequest>,
    replies: Streaming<wire::InsertReply>,
    first: InsertReply,
}

/// Failures since the last acknowledgement.
struct Failures {
    waits: ExponentialBackoff,
    refused_since: Option<Instant>,
    unreachable: Unreachable,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            waits: backoff(usize::MAX).build(),
            refused_since: None,
            unreachable: Unreachable::default(),
        }
    }
}

/// Why a state of the task ended.
enum Turn {
    Opened(Box<Stream>),
    Lost(Status),
    Finished,
}

impl Uplink {
    /// Runs until nothing is left to send, or its phase ends it. Returns the
    /// number of unacknowledged rows.
    pub(crate) async fn run(mut self) -> Result<usize, UplinkError> {
        let client = replay_client(self.security.connect(&self.address, Role::Replay)?);
        let mut failures = Failures::default();
        let mut closed = false;
        let mut wait = Duration::ZERO;
        let mut grace_until = Instant::now() + GRACE;
        loop {
            match self.connect(&client, wait, grace_until, &mut closed).await {
                Turn::Finished => return Ok(self.left()),
                Turn::Lost(status) => self.handle(&status, &mut failures)?,
                Turn::Opened(stream) => {
                    tracing::info!(shard = self.shard, address = %self.address, "connected to shard");
                    match self.online(stream, &mut closed, &mut failures).await {
                        Turn::Lost(status) => {
                            grace_until = Instant::now() + GRACE;
                            tracing::warn!(shard = self.shard, address = %self.address, code = ?status.code(), reason = reason(&status), "lost shard; its rows wait");
                            self.handle(&status, &mut failures)?;
                        }
                        Turn::Finished | Turn::Opened(_) => return Ok(self.left()),
                    }
                }
            }
            wait = failures.waits.next().unwrap_or(CALL_DEADLINE);
        }
    }

    /// Number of unacknowledged rows, including those still in the channel.
    fn left(&mut self) -> usize {
        self.rows.close();
        let waiting: usize = std::iter::from_fn(|| self.rows.try_recv().ok())
            .map(|chunk| chunk.len())
            .sum();
        self.outbox.rows() + waiting
    }

    /// Returns an error for a permanent refusal and for one of this incarnation, and logs all
    /// other failures.
    fn handle(&mut self, status: &Status, failures: &mut Failures) -> Result<(), UplinkError> {
        if status.code() == Code::Aborted {
            return Err(UplinkError::Replaced {
                shard: self.shard,
                sentence: status.message().to_owned(),
                rows: self.left(),
            });
        }
        if !is_refusal(status) {
            failures.refused_since = None;
            if let Some(lasted) = failures.unreachable.warning() {
                tracing::warn!(
                    shard = self.shard, address = %self.address, away_s = lasted.as_secs(),
                    code = ?status.code(), reason = reason(status),
                    "the shard does not answer; trying again"
                );
            }
            return Ok(());
        }
        let reason = status.message();
        tracing::warn!(shard = self.shard, reason, "shard refuses this actor");
        let since = failures.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.patience {
            return Ok(());
        }
        Err(UplinkError::Refused {
            shard: self.shard,
            address: self.address.clone(),
            sentence: status.message().to_owned(),
        })
    }

    /// Tries once to open a stream, after a pause; takes rows meanwhile.
    async fn connect(
        &mut self,
        client: &ReplayClient<Channel>,
        wait: Duration,
        grace_until: Instant,
        closed: &mut bool,
    ) -> Turn {
        let first = self.open.clone();
        let opening = async {
            sleep(wait).await;
            open(client.clone(), first).await
        };
        tokio::pin!(opening);
        loop {
            if *closed && self.outbox.is_empty() {
                return Turn::Finished;
            }
            let phase = *self.phase.borrow_and_update();
            let due = self.outbox.due();
            let unreachable = Instant::now() >= grace_until;
            let room = unreachable || !self.outbox.is_full();
            let accepting = !*closed && (room || phase != Phase::Run);
            tokio::select! {
                opened = &mut opening => return match opened {
                    Ok(stream) => Turn::Opened(Box::new(stream)),
                    Err(status) => Turn::Lost(status),
                },
                chunk = self.rows.recv(), if accepting => take(&mut self.outbox, chunk, closed),
                () = until(due), if due.is_some() => self.outbox.seal(),
                () = sleep_until(grace_until.into()), if !unreachable => continue,
                () = give_up(phase) => return Turn::Finished,
                changed = self.phase.changed() => if changed.is_err() { return Turn::Finished },
            }
            if unreachable {
                self.trim("dropped the oldest rows for an unreachable shard");
            }
        }
    }

    /// Drops the batches beyond the backlog.
    fn trim(&mut self, why: &'static str) {
        let dropped = self.outbox.trim();
        if dropped > 0 {
            self.counters.dropped(dropped);
            tracing::debug!(shard = self.shard, dropped, "{why}");
        }
    }

    /// Sends and waits for acknowledgements until the stream breaks.
    async fn online(
        &mut self,
        mut stream: Box<Stream>,
        closed: &mut bool,
        failures: &mut Failures,
    ) -> Turn {
        let mut window = window_of(&stream.first);
        self.counters
            .acked(self.outbox.reopened(stream.first.acked));
        loop {
            while let Some(batch) = self.outbox.next(window) {
                if stream.requests.try_send(batch.into()).is_err() {
                    return Turn::Lost(Status::unavailable("the stream takes no more requests"));
                }
            }
            if *closed && self.outbox.is_empty() {
                return Turn::Finished;
            }
            let phase = *self.phase.borrow_and_update();
            let due = self.outbox.due();
            let dropping = self.overload == OverloadConfig::DropOldest;
            let room = dropping || self.outbox.unsent() < WAITING_MAX;
            let accepting = !*closed && (room || phase != Phase::Run);
            tokio::select! {
                reply = stream.replies.message() => match received(reply) {
                    Ok(reply) => {
                        window = window_of(&reply);
                        let rows = self.outbox.acknowledged(reply.acked);
                        self.counters.acked(rows);
                        if rows > 0 {
                            *failures = Failures::default();
                        }
                    }
                    Err(status) => return Turn::Lost(status),
                },
                chunk = self.rows.recv(), if accepting => take(&mut self.outbox, chunk, closed),
                () = until(due), if due.is_some() => self.outbox.seal(),
                () = give_up(phase) => return Turn::Finished,
                changed = self.phase.changed() => if changed.is_err() { return Turn::Finished },
            }
            if dropping && phase == Phase::Run {
                self.trim("dropped the oldest rows for a blocked shard");
            }
        }
    }
}

fn take(outbox: &mut Outbox, chunk: Option<Chunk>, closed: &mut bool) {
    match chunk {
        Some(rows) => outbox.push(rows, Instant::now()),
        None => {
            *closed = true;
            outbox.seal();
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due.into()).await;
    }
}

/// Completes when the phase's time limit has passed.
async fn give_up(phase: Phase) {
    match phase {
        Phase::Run => std::future::pending().await,
        Phase::Drain(limit) => sleep_until(limit.into()).await,
        Phase::Abandon => {}
    }
}

async fn open(mut client: ReplayClient<Channel>, open: InsertOpen) -> Result<Stream, Status> {
    // Everything in this channel is unacknowledged, so the window bounds it.
    let (requests, outgoing) = mpsc::channel(WINDOW_MAX as usize + 1);
    let full = |_| Status::unavailable("the stream takes no requests");
    requests.try_send(open.into()).map_err(full)?;
    let reply = async {
        let response = client.insert(ReceiverStream::new(outgoing)).await?;
        let mut replies = response.into_inner();
        let first = received(replies.message().await)?;
        Ok((replies, first))
    };
    let late = || Status::deadline_exceeded("no reply to the opening of the stream");
    let (replies, first) = timeout(CALL_DEADLINE, reply)
        .await
        .unwrap_or_else(|_| Err(late()))?;
    Ok(Stream {
        requests,
        replies,
        first,
    })
}

fn received(reply: Result<Option<wire::InsertReply>, Status>) -> Result<InsertReply, Status> {
    let reply = reply?.ok_or_else(|| Status::unavailable("the shard closed the stream"))?;
    Ok(InsertReply::try_from(reply)?)
}

fn window_of(reply: &InsertReply) -> usize {
    reply.window.min(WINDOW_MAX) as usize
}

/// The first message of every stream of one incarnation.
pub(crate) fn insert_open(hello: Hello, writer: Writer, ack: AckConfig) -> InsertOpen {
    let ack = match ack {
        AckConfig::Memory => AckLevel::Memory,
        AckConfig::Durable => AckLevel::Durable,
    };
    InsertOpen { hello, writer, ack }
}
