//! Everything at once, as in training: batches are drawn and their priorities
//! updated, and as many new rows come in beside that.
//!
//! Drawing and inserting are tasks of their own, as learner and actors are: a
//! draw never waits until an insert is on disk.

use crate::arguments::Arguments;
use crate::insert::Stream;
use crate::latency::{Recorder, Span};
use crate::pool::Pool;
use crate::session::Session;
use crate::{sample, update};
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

/// Batches that drawing may be ahead of inserting when there is no rate.
const AHEAD: usize = 64;

/// Until the time is up: latencies of each of the three operations.
pub async fn run(
    streams: Vec<Stream>,
    session: &Arc<Session>,
    pool: &Arc<Pool>,
    arguments: &Arc<Arguments>,
    span: Span,
) -> Result<Vec<(&'static str, Recorder)>> {
    let turns = Arc::new(Turns::new(arguments, span)?);
    let load = Load {
        session: session.clone(),
        pool: pool.clone(),
        turns,
        rows: arguments.batch,
        span,
    };
    let mut learners = JoinSet::new();
    for _ in 0..arguments.in_flight() {
        learners.spawn(load.clone().learn());
    }
    let mut writers = JoinSet::new();
    for stream in streams {
        writers.spawn(load.clone().write(stream));
    }
    let [mut sampled, mut updated, mut inserted] = [(); 3].map(|()| Recorder::new(span));
    while let Some(task) = learners.join_next().await {
        let [samples, updates] = task??;
        sampled.join(samples);
        updated.join(updates);
    }
    while let Some(task) = writers.join_next().await {
        inserted.join(task??);
    }
    Ok(vec![
        ("sample", sampled),
        ("update", updated),
        ("insert", inserted),
    ])
}

#[derive(Clone)]
struct Load {
    session: Arc<Session>,
    pool: Arc<Pool>,
    turns: Arc<Turns>,
    rows: usize,
    span: Span,
}

impl Load {
    /// Draws a batch and updates its priorities, again and again.
    async fn learn(self) -> Result<[Recorder; 2]> {
        let [mut sampled, mut updated] = [(); 2].map(|()| Recorder::new(self.span));
        let mut round = 0;
        while let Some(due) = self.turns.sample().await {
            let parts = sample::batch(&self.session, self.rows).await?;
            sampled.done(due, self.rows);
            let keys = parts.into_iter().map(|part| part.keys).collect();
            let since = Instant::now();
            update::batch(&self.session, &keys, self.pool.td_errors(round)).await?;
            updated.done(since, self.rows);
            self.turns.sampled();
            round += 1;
        }
        Ok([sampled, updated])
    }

    /// Inserts a batch whenever one is due and the window has room.
    async fn write(self, mut stream: Stream) -> Result<Recorder> {
        let mut recorder = Recorder::new(self.span);
        let mut next = Box::pin(self.turns.insert());
        loop {
            tokio::select! {
                biased;
                due = &mut next, if stream.has_room() => {
                    let Some(due) = due else {
                        break;
                    };
                    stream.send(&self.pool, self.rows, due).await?;
                    next.set(self.turns.insert());
                }
                acknowledged = stream.acknowledged(&mut recorder), if !stream.is_idle() => {
                    acknowledged?;
                }
            }
        }
        while !stream.is_idle() {
            stream.acknowledged(&mut recorder).await?;
        }
        Ok(recorder)
    }
}

/// When the next batch is due, and since when its latency counts.
#[derive(Debug)]
struct Turns {
    span: Span,
    /// With a rate each side has its own times; without one they keep step.
    rate: Option<[Schedule; 2]>,
    /// Batches that may still be drawn before more are inserted.
    ahead: Semaphore,
    /// Batches drawn and not yet inserted.
    owed: Semaphore,
}

impl Turns {
    fn new(arguments: &Arguments, span: Span) -> Result<Self> {
        let schedule = |rate: f64| {
            Ok::<_, anyhow::Error>(Schedule {
                began: Instant::now(),
                between: Duration::try_from_secs_f64(arguments.batch as f64 / rate)?,
                next: AtomicU64::new(0),
            })
        };
        let rate = match arguments.rate {
            Some(rate) => Some([schedule(rate)?, schedule(rate)?]),
            None => None,
        };
        Ok(Self {
            span,
            rate,
            ahead: Semaphore::new(AHEAD),
            owed: Semaphore::new(0),
        })
    }

    /// When a batch is to be drawn; none when the time is up.
    async fn sample(&self) -> Option<Instant> {
        match &self.rate {
            Some([samples, _]) => samples.due(self.span).await,
            None => self.take(&self.ahead).await,
        }
    }

    /// A batch was drawn.
    fn sampled(&self) {
        if self.rate.is_none() {
            self.owed.add_permits(1);
        }
    }

    /// When a batch is to be inserted; none when the time is up.
    async fn insert(&self) -> Option<Instant> {
        let Some([_, inserts]) = &self.rate else {
            let turn = self.take(&self.owed).await?;
            self.ahead.add_permits(1);
            return Some(turn);
        };
        inserts.due(self.span).await
    }

    async fn take(&self, permits: &Semaphore) -> Option<Instant> {
        if self.span.is_over() {
            return None;
        }
        let permit = timeout_at(self.span.until.into(), permits.acquire()).await;
        permit.ok()?.ok()?.forget();
        Some(Instant::now())
    }
}

/// Batch `i` is due at a fixed time whatever became of those before it, and the
/// latency of one that comes late counts from when it was due: a service that
/// stalls cannot hide it by being asked less.
#[derive(Debug)]
struct Schedule {
    began: Instant,
    between: Duration,
    next: AtomicU64,
}

impl Schedule {
    async fn due(&self, span: Span) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + self.between.mul_f64(number as f64);
        let now = Instant::now();
        if due >= span.until || now >= span.until {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        // The timer is up to a millisecond late by itself, which is not the
        // service's doing.
        sleep_until(due.into()).await;
        Some(Instant::now())
    }
}
