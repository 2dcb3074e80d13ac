//! Updating: new priorities for rows drawn earlier, routed by key.

use crate::arguments::Arguments;
use crate::insert::joined;
use crate::latency::{Recorder, Span};
use crate::pool::Pool;
use crate::sample;
use crate::session::Session;
use anyhow::Result;
use proto::messages::sample::RowKey;
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// Batches of keys drawn in advance, so that updates meet rows all over the
/// table as a learner's do, not a few that stay in the cache.
const BATCHES: usize = 512;

/// The keys of one batch, by shard.
pub type Keys = Vec<Vec<RowKey>>;

/// Keys to update.
pub async fn keys(session: &Arc<Session>, arguments: &Arguments) -> Result<Vec<Keys>> {
    let mut all = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let parts = sample::batch(session, arguments.batch).await?;
        all.push(parts.into_iter().map(|part| part.keys).collect());
    }
    Ok(all)
}

/// New priorities for the rows of one batch: done when the slowest shard has
/// answered.
pub async fn batch(session: &Arc<Session>, keys: &Keys, td_errors: &[f32]) -> Result<()> {
    let mut left = td_errors;
    if let [only] = &keys[..] {
        return send(session, only, left).await;
    }
    let mut calls = JoinSet::new();
    for part in keys {
        let (these, rest) = left.split_at(part.len().min(left.len()));
        left = rest;
        let (session, part, these) = (session.clone(), part.clone(), these.to_vec());
        calls.spawn(async move { send(&session, &part, &these).await });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}

async fn send(session: &Session, keys: &[RowKey], td_errors: &[f32]) -> Result<()> {
    let Some(first) = keys.first() else {
        return Ok(());
    };
    let priorities = keys
        .iter()
        .zip(td_errors)
        .map(|(key, &td_error)| SlotPriority {
            slot: key.slot,
            generation: key.generation,
            td_error,
        });
    let update = PriorityUpdate {
        hello: session.hello.clone(),
        shard_incarnation: first.incarnation,
        priorities: priorities.collect(),
    };
    let found = session
        .shards
        .iter()
        .position(|shard| shard.incarnation == first.incarnation);
    let index = found.unwrap_or(0);
    let mut client = session.shards[index].client.clone();
    unary(wire::UpdateRequest::from(update), CALL_DEADLINE, |r| {
        client.update_priorities(r)
    })
    .await
    .map_err(|status| session.failed(index, "update", &status))?;
    Ok(())
}

/// Updates until the time is up.
pub async fn run(
    session: &Arc<Session>,
    keys: &Arc<Vec<Keys>>,
    pool: &Arc<Pool>,
    arguments: &Arc<Arguments>,
    span: Span,
) -> Result<Recorder> {
    let turn = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.in_flight() {
        let (session, keys, pool) = (session.clone(), keys.clone(), pool.clone());
        let (turn, rows) = (turn.clone(), arguments.batch);
        tasks.spawn(async move {
            let mut recorder = Recorder::new(span);
            while !span.is_over() {
                let number = turn.fetch_add(1, Ordering::Relaxed);
                let place = usize::try_from(number).unwrap_or(0) % keys.len();
                let since = Instant::now();
                batch(&session, &keys[place], pool.td_errors(number)).await?;
                recorder.done(since, rows);
            }
            Ok(recorder)
        });
    }
    joined(tasks, span).await
}
