//! What this client does all the time, as tasks that run side by side.
//!
//! Drawing and inserting are tasks of their own, as learner and actors are: a
//! draw never waits until an insert is on disk.

use crate::arguments::{Arguments, Operation};
use crate::insert::Stream;
use crate::measured::Measured;
use crate::pace::Pace;
use crate::pool::Pool;
use crate::session::{Keys, Session};
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Batches that drawing may be ahead of inserting when there is no rate.
const AHEAD: usize = 64;
/// Batches of keys drawn before updates are measured: these meet rows all over
/// the table as a learner's do, not a few that stay in the cache.
const KEPT: usize = 512;

#[derive(Clone)]
pub struct Load {
    pub session: Arc<Session>,
    pub pool: Arc<Pool>,
    pub measured: Arc<Measured>,
    /// Rows per batch.
    pub rows: usize,
    /// When batches are drawn or updated.
    pub draws: Arc<Pace>,
    /// When batches are inserted.
    inserts: Arc<Pace>,
    operation: Operation,
    /// Keys to update without drawing.
    keys: Arc<Vec<Keys>>,
    turn: Arc<AtomicU64>,
}

/// Everything that is made before the clock starts.
pub struct Prepared {
    session: Arc<Session>,
    pool: Pool,
    streams: Vec<Stream>,
    keys: Vec<Keys>,
}

impl Prepared {
    pub async fn new(arguments: &Arguments) -> Result<Self> {
        let session = Arc::new(Session::open(arguments).await?);
        let (mut streams, mut keys) = (Vec::new(), Vec::new());
        match arguments.operation {
            Operation::Fill | Operation::Insert | Operation::Mixed => {
                let (actor, ack) = (arguments.client, arguments.ack.into());
                for shard in 0..session.shards.len() {
                    let window = arguments.insert_window();
                    streams.push(Stream::open(&session, shard, actor, ack, window).await?);
                }
            }
            Operation::Sample => {}
            Operation::Update => {
                for _ in 0..KEPT {
                    keys.push(session.draw(arguments.batch).await?);
                }
            }
        }
        Ok(Self {
            session,
            pool: Pool::new(arguments),
            streams,
            keys,
        })
    }

    /// Runs the load until the span is over, or until the shards are full.
    pub async fn run(self, arguments: &Arguments, measured: Arc<Measured>) -> Result<()> {
        let rows = arguments.batch;
        let [draws, inserts] = match (arguments.operation, arguments.rate) {
            (Operation::Mixed, Some(rate)) => [Pace::rate(rate, rows)?, Pace::rate(rate, rows)?],
            (Operation::Mixed, None) => [AHEAD, 0].map(|n| Pace::Turns(Semaphore::new(n))),
            _ => [Pace::Free, Pace::Free],
        };
        let load = Load {
            session: self.session,
            pool: Arc::new(self.pool),
            measured,
            rows,
            draws: Arc::new(draws),
            inserts: Arc::new(inserts),
            operation: arguments.operation,
            keys: Arc::new(self.keys),
            turn: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        let each = arguments.rows.div_ceil(self.streams.len().max(1));
        for stream in self.streams {
            let pace = match arguments.operation {
                Operation::Fill => Arc::new(Pace::Count(each.div_ceil(rows).into())),
                _ => load.inserts.clone(),
            };
            tasks.spawn(stream.write(load.clone(), pace));
        }
        if !matches!(arguments.operation, Operation::Fill | Operation::Insert) {
            for _ in 0..arguments.in_flight() {
                tasks.spawn(load.clone().learn());
            }
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok(())
    }
}

impl Load {
    /// Draws batches, updates their priorities, or both, again and again.
    async fn learn(self) -> Result<()> {
        let Self {
            session, measured, ..
        } = &self;
        while let Some(mut since) = self.draws.due(measured.until).await {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let drawn;
            let keys = if self.operation == Operation::Update {
                let place = usize::try_from(turn)? % self.keys.len();
                &self.keys[place]
            } else {
                drawn = session.draw(self.rows).await?;
                measured.done("sample", since, self.rows);
                since = Instant::now();
                &drawn
            };
            if self.operation != Operation::Sample {
                let td_errors = self.pool.td_errors(turn);
                session.update(keys, td_errors).await?;
                measured.done("update", since, self.rows);
            }
            self.inserts.give();
        }
        Ok(())
    }
}
