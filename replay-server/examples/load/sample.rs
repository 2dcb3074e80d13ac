//! Sampling: batches spread over the shards by mass, several in flight.

use crate::arguments::Arguments;
use crate::insert::joined;
use crate::latency::{Recorder, Span};
use crate::session::Session;
use anyhow::Result;
use proto::messages::sample::SampledBatch;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// One batch from all shards: done when the slowest has answered.
pub async fn batch(session: &Arc<Session>, rows: usize) -> Result<Vec<SampledBatch>> {
    let shares = session.shares(rows);
    let mut wanted = shares.into_iter().enumerate().filter(|(_, rows)| *rows > 0);
    if session.shards.len() == 1 {
        return match wanted.next() {
            Some((shard, rows)) => Ok(vec![session.sample(shard, rows).await?]),
            None => Ok(Vec::new()),
        };
    }
    let mut calls = JoinSet::new();
    for (shard, rows) in wanted {
        let session = session.clone();
        calls.spawn(async move { session.sample(shard, rows).await });
    }
    let mut parts = Vec::new();
    while let Some(part) = calls.join_next().await {
        parts.push(part??);
    }
    Ok(parts)
}

/// Samples until the time is up.
pub async fn run(
    session: &Arc<Session>,
    arguments: &Arc<Arguments>,
    span: Span,
) -> Result<Recorder> {
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.in_flight() {
        let (session, rows) = (session.clone(), arguments.batch);
        tasks.spawn(async move {
            let mut recorder = Recorder::new(span);
            while !span.is_over() {
                let since = Instant::now();
                batch(&session, rows).await?;
                recorder.done(since, rows);
            }
            Ok(recorder)
        });
    }
    joined(tasks, span).await
}
