//! Rows to shards that come, go, block and forget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actor::Ending;
use actor::uplink::placement::shard_of;
use common::config::{Config, OverloadConfig};
use proto::messages::insert::Writer;
use proto::messages::status::ActorState;
use tonic::Status;

use crate::fake_learner::{FakeLearner, RUN};
use crate::fake_shard::{FakeShard, WINDOW};
use crate::server::Server;
use crate::setup::{Running, assert_rows_add_up, config, until, weights};

const PLENTY: usize = usize::MAX;

fn shards<const N: usize>(credit: usize) -> ([FakeShard; N], Vec<Server>) {
    let shards = [(); N].map(|()| FakeShard::new(credit));
    let servers = shards
        .iter()
        .map(|shard| shard.serve("127.0.0.1:0"))
        .collect();
    (shards, servers)
}

fn learner(shards: &[Server]) -> (FakeLearner, Server) {
    let addresses: Vec<String> = shards.iter().map(|s| s.address.clone()).collect();
    let learner = FakeLearner::new(&addresses);
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    (learner, server)
}

/// An actor, its shards and learner, and their servers.
fn acting<const N: usize>(
    credit: usize,
    config: Config,
) -> ([FakeShard; N], Vec<Server>, (FakeLearner, Server), Running) {
    let (shards, servers) = shards(credit);
    let learner = learner(&servers);
    let actor = Running::start(&learner.1.address, config);
    (shards, servers, learner, actor)
}

/// The shard takes no more, and the rollout waits and has made no step for a while.
fn waits(shard: &FakeShard, actor: &Running) -> impl FnMut() -> bool {
    let (counters, waits) = (Arc::clone(&actor.counters), Arc::clone(&shard.waits));
    let mut last = (u64::MAX, Instant::now());
    move || {
        let now = counters.read();
        if now.env_steps != last.0 {
            last = (now.env_steps, Instant::now());
        }
        let blocked = now.state == ActorState::Blocked && waits.load(Ordering::Relaxed);
        blocked && last.1.elapsed() > Duration::from_millis(300)
    }
}

/// Batches numbered from 1 without a gap, repeats left out.
fn assert_numbered(shard: &FakeShard) {
    let got = shard.got.lock().unwrap();
    let numbers: BTreeSet<u64> = got.batches.iter().map(|b| b.1).collect();
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u64),
        "{numbers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_arrives_once_at_the_shard_of_its_episode() {
    let (shards, _servers, _learner, actor) = acting::<2>(PLENTY, config());
    until("rows at both shards", || {
        shards.iter().all(|s| s.rows() > 300)
    })
    .await;
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.ending, Ending::Shutdown);
    let (actor, incarnation) = (6, 1);
    assert_eq!(summary.writer, Some(Writer { actor, incarnation }));
    let stored = shards.iter().map(FakeShard::rows).sum::<usize>() as u64;
    let c = summary.counts;
    assert_eq!(stored, c.rows_made, "drained at the end");
    assert_eq!((c.rows_acked, c.rows_dropped), (stored, 0));
    assert_eq!(summary.rows_unsent, 0);
    let mut steps = BTreeSet::new();
    for (number, shard) in shards.iter().enumerate() {
        assert_numbered(shard);
        let got = shard.got.lock().unwrap();
        assert_eq!(got.runs, [RUN], "the run id from the learner");
        for (row, priority) in got.rows.iter().zip(&got.priorities) {
            let h = &row.header;
            assert_eq!((h.actor, h.incarnation, h.weights_version), (6, 1, 1));
            assert_eq!(shard_of(h, 2), number);
            assert!(*priority >= 0.0 && steps.insert((h.slot, h.episode, h.step)));
        }
    }
    assert!(c.policy.forward > Duration::ZERO && c.env_steps > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_shard_stops_the_rollout_and_loses_nothing() {
    let (shards, servers) = shards::<2>(PLENTY);
    shards[1].allow(100);
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("the rollout waits", waits(&shards[1], &actor)).await;
    let before = actor.counters.read();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = actor.counters.read();
    // Waiting, not dropping.
    assert_eq!(before.env_steps, after.env_steps);
    assert_eq!(after.rows_dropped, 0);
    assert!(shards[1].rows() <= 100);
    shards[1].allow(PLENTY);
    until("rows again", || shards[1].rows() > 300).await;
    let summary = actor.stop().await.unwrap();
    assert_eq!((summary.counts.rows_dropped, summary.rows_unsent), (0, 0));
    assert_eq!(summary.counts.rows_acked, summary.counts.rows_made);
    shards.iter().for_each(assert_numbered);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_lets_the_rollout_continue_while_a_shard_blocks() {
    let mut config = config();
    config.replay.overload = OverloadConfig::DropOldest;
    let (shards, _servers, _learner, actor) = acting::<1>(50, config);
    until("dropped rows", || actor.counters.read().rows_dropped > 300).await;
    assert!(shards[0].rows() <= 50);
    shards[0].allow(PLENTY);
    until("rows again", || shards[0].rows() > 300).await;
    let summary = actor.stop().await.unwrap();
    assert_rows_add_up(&summary);
    assert_eq!(summary.rows_unsent, 0);
    assert_numbered(&shards[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_while_blocked_ends_in_bounded_time_and_counts_unsent_rows() {
    let (shards, _servers, _learner, actor) = acting::<1>(50, config());
    until("the rollout waits", waits(&shards[0], &actor)).await;
    let start = Instant::now();
    let summary = actor.stop().await.unwrap();
    // Five seconds for rows to go; the rest is for a machine with much to do.
    assert!(start.elapsed() < Duration::from_secs(25));
    assert!(summary.rows_unsent > 0);
    assert_rows_add_up(&summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_shard_loses_its_oldest_rows_and_the_others_none() {
    let (shards, mut servers, _learner, actor) = acting::<2>(PLENTY, config());
    until("rows at the second", || shards[1].rows() > 50).await;
    let gone = servers.pop().unwrap().address.clone();
    until("dropped rows", || actor.counters.read().rows_dropped > 200).await;
    let others = shards[0].rows();
    until("more rows at the first", || shards[0].rows() > others + 300).await;
    let before = shards[1].rows();
    let _again = shards[1].serve(&gone);
    until("the second is back", || shards[1].rows() > before + 100).await;
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.rows_unsent, 0);
    assert_rows_add_up(&summary);
    let stored: usize = shards.iter().map(FakeShard::rows).sum();
    assert_eq!(summary.counts.rows_acked as usize, stored);
    // Dropping leaves no gap in the numbers, and nothing is stored twice.
    shards.iter().for_each(assert_numbered);
    let got = shards[1].got.lock().unwrap();
    let headers = got.rows.iter().map(|r| r.header);
    let keys: BTreeSet<_> = headers.map(|h| (h.slot, h.episode, h.step)).collect();
    assert_eq!(keys.len(), got.rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_batches_are_sent_again_under_their_numbers() {
    let ([shard], _servers, _learner, actor) = acting::<1>(PLENTY, config());
    until("rows", || shard.rows() > 50).await;
    // Stored, not acknowledged, then the stream breaks; and the shard forgets.
    *shard.silent.lock().unwrap() = Some(WINDOW as usize - 1);
    let broken = || shard.silent.lock().unwrap().is_none();
    until("a broken stream", broken).await;
    let before = shard.rows();
    until("rows again", || shard.rows() > before + 200).await;
    let summary = actor.stop().await.unwrap();
    // A short break costs nothing.
    assert_eq!(summary.counts.rows_dropped, 0);
    assert_numbered(&shard);
    let got = shard.got.lock().unwrap();
    let mut times = BTreeMap::new();
    for (_, number) in &got.batches {
        *times.entry(*number).or_insert(0) += 1;
    }
    let again = times.values().filter(|t| **t > 1).count();
    assert!((1..=WINDOW as usize).contains(&again), "{again} sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_keeps_refusing_ends_the_actor_with_its_reason() {
    let (shards, servers) = shards::<1>(PLENTY);
    let reason = "runs differ: this shard belongs to another";
    *shards[0].refusal.lock().unwrap() = Some(Status::failed_precondition(reason));
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    let error = actor.ended().await.unwrap_err().to_string();
    assert!(
        error.contains(&servers[0].address) && error.contains(reason),
        "{error}"
    );
}

/// A learner whose clock is behind the last one's gives out incarnations that shards refuse.
#[tokio::test(flavor = "multi_thread")]
async fn an_actor_joins_again_until_no_shard_knows_a_later_incarnation() {
    let (shards, servers) = shards::<2>(PLENTY);
    *shards[1].newest.lock().unwrap() = 3;
    let (learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("rows at the second", || shards[1].rows() > 50).await;
    assert_eq!(learner.joins.lock().unwrap().len(), 3);
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.writer.map(|w| w.incarnation), Some(3));
    assert_rows_add_up(&summary);
    let got = shards[1].got.lock().unwrap();
    assert!(got.rows.iter().all(|row| row.header.incarnation == 3));
}
