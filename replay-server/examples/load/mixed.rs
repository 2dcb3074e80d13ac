//! Everything at once, as in training: draw a batch, update its priorities,
//! insert as many new rows.

use crate::arguments::Arguments;
use crate::insert::{self, STREAMS_MAX, Stream};
use crate::latency::{Recorder, Span};
use crate::pool::Pool;
use crate::session::Session;
use crate::{sample, update};
use anyhow::{Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The insert streams of each worker.
pub async fn open(session: &Arc<Session>, arguments: &Arguments) -> Result<Vec<Vec<Stream>>> {
    let workers = u16::try_from(arguments.in_flight())?;
    if workers > STREAMS_MAX {
        bail!("--operation mixed has at most --in-flight {STREAMS_MAX}");
    }
    let mut all = Vec::new();
    for number in 0..workers {
        all.push(insert::open(session, arguments, number).await?);
    }
    Ok(all)
}

/// When rounds are due.
///
/// With a rate, round `i` is due at a fixed time whatever became of those
/// before it, and the sample of a round that comes late counts from when it was
/// due: a service that stalls cannot hide it by being asked less.
struct Schedule {
    began: Instant,
    between: Option<Duration>,
    next: AtomicU64,
}

impl Schedule {
    /// Waits for the next round; since when its latency counts.
    async fn due(&self) -> Instant {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let Some(between) = self.between else {
            return now;
        };
        let due = self.began + between.mul_f64(number as f64);
        if due <= now {
            return due;
        }
        // The timer is up to a millisecond late by itself, which is not the
        // service's doing.
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

/// Rounds until the time is up: latencies of each of the three operations.
pub async fn run(
    workers: Vec<Vec<Stream>>,
    session: &Arc<Session>,
    pool: &Arc<Pool>,
    arguments: &Arc<Arguments>,
    span: Span,
) -> Result<Vec<(&'static str, Recorder)>> {
    let between = arguments
        .rate
        .map(|rate| Duration::try_from_secs_f64(arguments.batch as f64 / rate))
        .transpose()?;
    let schedule = Arc::new(Schedule {
        began: Instant::now(),
        between,
        next: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for streams in workers {
        let worker = Worker {
            session: session.clone(),
            pool: pool.clone(),
            schedule: schedule.clone(),
            streams,
            rows: arguments.batch,
        };
        tasks.spawn(worker.run(span));
    }
    let mut all = [(); 3].map(|()| Recorder::new(span));
    while let Some(task) = tasks.join_next().await {
        for (sum, part) in all.iter_mut().zip(task??) {
            sum.join(part);
        }
    }
    Ok(["sample", "update", "insert"]
        .into_iter()
        .zip(all)
        .collect())
}

struct Worker {
    session: Arc<Session>,
    pool: Arc<Pool>,
    schedule: Arc<Schedule>,
    streams: Vec<Stream>,
    rows: usize,
}

impl Worker {
    async fn run(mut self, span: Span) -> Result<[Recorder; 3]> {
        let mut recorders = [(); 3].map(|()| Recorder::new(span));
        let mut round = 0;
        while !span.is_over() {
            let due = self.schedule.due().await;
            self.round(round, due, &mut recorders).await?;
            round += 1;
        }
        Ok(recorders)
    }

    async fn round(
        &mut self,
        round: usize,
        due: Instant,
        [sampled, updated, inserted]: &mut [Recorder; 3],
    ) -> Result<()> {
        let parts = sample::batch(&self.session, self.rows).await?;
        sampled.done(due, self.rows);
        let keys = parts.into_iter().map(|part| part.keys).collect();
        let since = Instant::now();
        let td_errors = self.pool.td_errors(round as u64);
        update::batch(&self.session, &keys, td_errors).await?;
        updated.done(since, self.rows);
        let shard = round % self.streams.len();
        let stream = &mut self.streams[shard];
        stream.send(&self.pool, self.rows).await?;
        while !stream.is_idle() {
            stream.acknowledged(inserted).await?;
        }
        Ok(())
    }
}
