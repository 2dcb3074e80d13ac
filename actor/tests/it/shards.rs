//! Rows to shards that come, go, block and forget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actor::Ending;
use actor::uplink::placement::shard_of;
use common::config::OverloadConfig;
use proto::messages::insert::Writer;
use proto::messages::status::ActorState;
use tonic::Status;

use crate::fake_learner::{FakeLearner, RUN};
use crate::fake_shard::{FakeShard, WINDOW};
use crate::server::Server;
use crate::setup::{Running, config, until, weights};

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
    let (shards, servers) = shards::<2>(PLENTY);
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("rows at both shards", || {
        shards.iter().all(|s| s.rows() > 300)
    })
    .await;
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.ending, Ending::Shutdown);
    assert_eq!(
        summary.writer,
        Some(Writer {
            actor: 6,
            incarnation: 1
        })
    );
    let stored: usize = shards.iter().map(FakeShard::rows).sum();
    assert_eq!(
        stored as u64, summary.counts.rows_made,
        "drained at the end"
    );
    assert_eq!(
        (
            summary.counts.rows_acked,
            summary.counts.rows_dropped,
            summary.rows_unsent
        ),
        (stored as u64, 0, 0)
    );
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
    assert!(summary.counts.policy.forward > Duration::ZERO && summary.counts.env_steps > 0);
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
    assert_eq!(
        (before.env_steps, after.rows_dropped),
        (after.env_steps, 0),
        "waiting, not dropping"
    );
    assert!(shards[1].rows() <= 100);
    shards[1].allow(PLENTY);
    until("going on", || shards[1].rows() > 300).await;
    let summary = actor.stop().await.unwrap();
    assert_eq!((summary.counts.rows_dropped, summary.rows_unsent), (0, 0));
    assert_eq!(summary.counts.rows_acked, summary.counts.rows_made);
    shards.iter().for_each(assert_numbered);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_lets_the_rollout_go_on_where_a_shard_blocks() {
    let (shards, servers) = shards::<1>(50);
    let (_learner, server) = learner(&servers);
    let mut config = config();
    config.replay.overload = OverloadConfig::DropOldest;
    let actor = Running::start(&server.address, config);
    until("dropped rows", || actor.counters.read().rows_dropped > 300).await;
    assert!(shards[0].rows() <= 50);
    shards[0].allow(PLENTY);
    until("rows again", || shards[0].rows() > 300).await;
    let summary = actor.stop().await.unwrap();
    let c = summary.counts;
    assert_eq!(
        (c.rows_made, summary.rows_unsent),
        (c.rows_acked + c.rows_dropped, 0)
    );
    assert_numbered(&shards[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_while_blocked_ends_in_bounded_time_and_says_what_is_left() {
    let (shards, servers) = shards::<1>(50);
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("the rollout waits", waits(&shards[0], &actor)).await;
    let start = Instant::now();
    let summary = actor.stop().await.unwrap();
    // Five seconds for rows to go; the rest is for a machine with much to do.
    assert!(start.elapsed() < Duration::from_secs(25));
    let c = summary.counts;
    assert!(summary.rows_unsent > 0);
    assert_eq!(
        c.rows_made,
        c.rows_acked + c.rows_dropped + summary.rows_unsent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_away_costs_its_oldest_rows_and_nobody_else_any() {
    let (shards, mut servers) = shards::<2>(PLENTY);
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("rows at the second", || shards[1].rows() > 50).await;
    let gone = servers.pop().unwrap().address.clone();
    until("dropped rows", || actor.counters.read().rows_dropped > 200).await;
    let others = shards[0].rows();
    until("the first is fed on", || shards[0].rows() > others + 300).await;
    let before = shards[1].rows();
    let _again = shards[1].serve(&gone);
    until("the second is back", || shards[1].rows() > before + 100).await;
    let summary = actor.stop().await.unwrap();
    let c = summary.counts;
    assert_eq!(summary.rows_unsent, 0);
    assert_eq!(c.rows_made, c.rows_acked + c.rows_dropped);
    assert_eq!(
        c.rows_acked as usize,
        shards.iter().map(FakeShard::rows).sum::<usize>()
    );
    // Dropping leaves no gap in the numbers, and nothing is stored twice.
    shards.iter().for_each(assert_numbered);
    let got = shards[1].got.lock().unwrap();
    let keys: BTreeSet<_> = got
        .rows
        .iter()
        .map(|r| (r.header.slot, r.header.episode, r.header.step))
        .collect();
    assert_eq!(keys.len(), got.rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_batches_are_sent_again_under_their_numbers() {
    let (shards, servers) = shards::<1>(PLENTY);
    let (_learner, server) = learner(&servers);
    let actor = Running::start(&server.address, config());
    until("rows", || shards[0].rows() > 50).await;
    // Stored, not acknowledged, then the stream breaks; and the shard forgets.
    *shards[0].silent.lock().unwrap() = Some(WINDOW as usize - 1);
    until("a broken stream", || {
        shards[0].silent.lock().unwrap().is_none()
    })
    .await;
    let before = shards[0].rows();
    until("going on", || shards[0].rows() > before + 200).await;
    let summary = actor.stop().await.unwrap();
    assert_eq!(
        summary.counts.rows_dropped, 0,
        "a short break costs nothing"
    );
    assert_numbered(&shards[0]);
    let got = shards[0].got.lock().unwrap();
    let mut times = BTreeMap::new();
    got.batches
        .iter()
        .for_each(|(_, n)| *times.entry(*n).or_insert(0) += 1);
    let again = times.values().filter(|t| **t > 1).count();
    assert!((1..=WINDOW as usize).contains(&again), "{again} sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_keeps_refusing_ends_the_actor_with_its_sentence() {
    let (shards, servers) = shards::<1>(PLENTY);
    *shards[0].refusal.lock().unwrap() = Some(Status::failed_precondition(
        "runs differ: this shard belongs to another",
    ));
    let (_learner, server) = learner(&servers);
    let error = Running::start(&server.address, config())
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&servers[0].address)
            && error.contains("runs differ: this shard belongs to another"),
        "{error}"
    );
}
