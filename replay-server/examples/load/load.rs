//! The operations that this client repeats, as tasks that run side by side.
//!
//! Drawing and inserting are separate tasks, as learner and actors are separate
//! processes: a draw never waits until an insert is on disk.

use crate::insert::Stream;
use crate::measured::{Measured, OPEN_END_S};
use crate::pool::Pool;
use crate::session::{Keys, Session};
use crate::{Arguments, Operation};
use anyhow::{Context as _, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

/// Batches that drawing may be ahead of inserting when there is no rate.
const AHEAD: usize = 64;
/// Batches of keys drawn before updates are measured: these meet rows all over
/// the table as a learner's do, not a few that stay in the cache.
const KEPT: usize = 512;
/// Calls in flight by default: enough that neither side waits for the other.
const IN_FLIGHT: usize = 4;

/// What all tasks share.
pub struct Load {
    pub session: Arc<Session>,
    pub pool: Pool,
    pub measured: Measured,
    /// When batches are drawn or updated.
    pub draws: Pace,
    /// When batches are inserted.
    pub inserts: Pace,
    operation: Operation,
    /// Rows per batch.
    rows: usize,
    /// Keys to update without drawing.
    keys: Vec<Keys>,
    turn: AtomicUsize,
}

/// Runs the load until the time is over, or until the shards are full, and
/// returns what was measured.
pub async fn run(arguments: &Arguments) -> Result<serde_json::Value> {
    let (operation, rows) = (arguments.operation, arguments.batch);
    let fills = operation == Operation::Fill;
    let session = Arc::new(Session::open(arguments).await?);
    let (mut streams, mut keys) = (Vec::new(), Vec::new());
    if fills || matches!(operation, Operation::Insert | Operation::Mixed) {
        for shard in &session.shards {
            streams.push(Stream::open(shard, &session.hello, arguments).await?);
        }
    }
    if operation == Operation::Update {
        for _ in 0..KEPT {
            keys.push(session.draw(rows).await?);
        }
    }
    let pool = Pool::new(arguments);
    if arguments.wait {
        begin_together().await?;
    }
    let measured = match operation {
        Operation::Fill => Measured::new(0.0, OPEN_END_S)?,
        _ => Measured::new(arguments.warm_up, arguments.seconds)?,
    };
    let [draws, inserts] = match (operation, arguments.rate) {
        (Operation::Mixed, Some(rate)) => [Pace::rate(rate, rows)?, Pace::rate(rate, rows)?],
        (Operation::Mixed, None) => [AHEAD, 0].map(|turns| Pace::Turns(Semaphore::new(turns))),
        _ => [Pace::Free, Pace::Free],
    };
    let load = Arc::new(Load {
        session,
        pool,
        measured,
        draws,
        inserts,
        operation,
        rows,
        keys,
        turn: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    let batches = match operation {
        Operation::Fill => arguments.rows.div_ceil(streams.len()).div_ceil(rows),
        _ => usize::MAX,
    };
    for stream in streams {
        tasks.spawn(stream.write(load.clone(), batches));
    }
    if !fills && operation != Operation::Insert {
        for _ in 0..arguments.in_flight.unwrap_or(IN_FLIGHT) {
            tasks.spawn(learn(load.clone()));
        }
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let end = match operation {
        Operation::Fill => Instant::now(),
        _ => load.measured.until,
    };
    Ok(serde_json::json!({
        "operation": operation,
        "ack": arguments.ack,
        "client": arguments.client,
        "shards": arguments.shards.len(),
        "batch": rows,
        "rate": arguments.rate,
        "processor_s": load.measured.processor_s(),
        "parts": load.measured.as_json(end, rows, arguments.histogram),
    }))
}

/// Waits for a line of standard input: several clients begin together.
async fn begin_together() -> Result<()> {
    eprintln!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await?
        .context("standard input cannot be read")?;
    Ok(())
}

/// Draws batches, updates their priorities, or both, again and again.
async fn learn(load: Arc<Load>) -> Result<()> {
    let (session, measured) = (&load.session, &load.measured);
    while let Some(mut since) = load.draws.due(measured.until).await {
        let turn = load.turn.fetch_add(1, Ordering::Relaxed);
        let drawn;
        let keys = if load.operation == Operation::Update {
            &load.keys[turn % load.keys.len()]
        } else {
            drawn = session.draw(load.rows).await?;
            measured.done("sample", since);
            since = Instant::now();
            &drawn
        };
        if load.operation != Operation::Sample {
            session.update(keys, load.pool.td_errors(turn)).await?;
            measured.done("update", since);
        }
        load.inserts.give();
    }
    Ok(())
}

/// When the next batch is due.
pub enum Pace {
    /// As fast as possible.
    Free,
    /// Batch `i` at a fixed time: start, interval, next `i`. The latency of a
    /// late batch counts from when it was due, so a service that stalls cannot hide
    /// it by receiving fewer requests.
    Rate(Instant, Duration, AtomicU64),
    /// One batch per turn given by the other side.
    Turns(Semaphore),
}

impl Pace {
    /// Batches of `rows` rows that make `rate` rows per second.
    fn rate(rate: f64, rows: usize) -> Result<Self> {
        let between = Duration::try_from_secs_f64(rows as f64 / rate)?;
        Ok(Self::Rate(Instant::now(), between, AtomicU64::new(0)))
    }

    /// Waits until the next batch is due and returns the start of its latency; `None`
    /// if `until` is earlier.
    pub async fn due(&self, until: Instant) -> Option<Instant> {
        let now = Instant::now();
        if now >= until {
            return None;
        }
        match self {
            Self::Free => return Some(now),
            Self::Rate(began, between, next) => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = *began + between.mul_f64(number as f64);
                if due <= now || due >= until {
                    return (due < until).then_some(due);
                }
                // The timer itself is up to a millisecond late, which must not
                // count as latency of the service.
                sleep_until(due.into()).await;
            }
            Self::Turns(turns) => {
                let turn = timeout_at(until.into(), turns.acquire()).await;
                turn.ok()?.ok()?.forget();
            }
        }
        Some(Instant::now())
    }

    /// Gives one turn to the waiting side.
    pub fn give(&self) {
        if let Self::Turns(turns) = self {
            turns.add_permits(1);
        }
    }
}
