//! Joining, heartbeats and weights of a learner that comes and goes.

use std::time::Duration;

use actor::{ActorError, Ending};
use common::config::Config;
use proto::messages::status::ActorState;
use tonic::Status;

use crate::fake_learner::{FakeLearner, order};
use crate::fake_shard::FakeShard;
use crate::server::Server;
use crate::setup::{Running, assert_rows_add_up, config, until, weights};

fn one_shard() -> (FakeShard, Server, Vec<String>) {
    let shard = FakeShard::new(usize::MAX);
    let server = shard.serve("127.0.0.1:0");
    let addresses = vec![server.address.clone()];
    (shard, server, addresses)
}

/// An actor of a learner with these weights, its only shard, and their servers.
fn acting(
    version: u64,
    weights: Vec<u8>,
    config: Config,
) -> (FakeShard, FakeLearner, [Server; 2], Running) {
    let (shard, shard_server, addresses) = one_shard();
    let learner = FakeLearner::new(&addresses);
    learner.publish(version, weights);
    let server = learner.serve("127.0.0.1:0");
    let actor = Running::start(&server.address, config);
    (shard, learner, [shard_server, server], actor)
}

fn versions(shard: &FakeShard) -> Vec<u64> {
    let got = shard.got.lock().unwrap();
    let mut all: Vec<u64> = got.rows.iter().map(|r| r.header.weights_version).collect();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_and_names_the_reason() {
    let learner = FakeLearner::new(&["127.0.0.1:1".into()]);
    *learner.refusal.lock().unwrap() = Some(Status::failed_precondition(
        "1 of 8 scans differ: mouse-3 is missing here",
    ));
    let server = learner.serve("127.0.0.1:0");
    let actor = Running::start(&server.address, config());
    match actor.ended().await.unwrap_err() {
        ActorError::Refused { sentence, .. } => {
            assert!(sentence.starts_with("1 of 8 scans differ"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_waits_for_a_learner_that_is_not_there_yet() {
    let (shard, _server, addresses) = one_shard();
    // A port that was free a moment ago.
    let gone = FakeLearner::new(&addresses).serve("127.0.0.1:0");
    let address = gone.address.clone();
    drop(gone);
    let actor = Running::start(&address, config());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let learner = FakeLearner::new(&addresses);
    learner.publish(3, weights(1, 1));
    let _learner = learner.serve(&address);
    until("rows", || shard.rows() > 50).await;
    let request = learner.joins.lock().unwrap()[0].clone();
    assert_eq!((request.hello.run_id.as_str(), request.slots), ("", 4));
    let manifest: common::imaging::manifest::TrainingManifest =
        serde_json::from_slice(&request.manifest_json).unwrap();
    assert_eq!(manifest.digest(), request.hello.manifest);
    assert_eq!(actor.stop().await.unwrap().ending, Ending::Shutdown);
    // An actor that waits for an absent learner stops at once on request.
    let idle = Running::start("127.0.0.1:1", config());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(idle.stop().await.unwrap().writer, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_weights_are_used_and_garbled_ones_requested_again() {
    let (shard, learner, _servers, actor) = acting(1, weights(1, 1), config());
    until("version 1", || versions(&shard).contains(&1)).await;
    learner.publish(2, weights(2, 1));
    until("version 2", || versions(&shard).contains(&2)).await;
    *learner.garbled.lock().unwrap() = Some(5);
    learner.publish(5, weights(3, 1));
    until("version 5", || versions(&shard).contains(&5)).await;
    assert!(learner.garbled.lock().unwrap().is_none());
    assert_eq!(actor.counters.read().weights_version, 5);
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.counts.weights_version, 5);
    assert_eq!(versions(&shard), [1, 2, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_another_network_end_the_actor_and_name_the_difference() {
    let (_shard, _learner, _servers, actor) = acting(1, weights(1, 4), config());
    let error = actor.ended().await.unwrap_err().to_string();
    let difference = "history is 4 in the network and 1 in the configuration";
    assert!(error.contains(difference), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_makes_a_new_incarnation() {
    let (shard, learner, _servers, actor) = acting(9, weights(1, 1), config());
    until("rows of the first incarnation", || shard.rows() > 50).await;
    // The learner came back from an older checkpoint.
    learner.publish(4, weights(2, 1));
    *learner.order.lock().unwrap() = order(true, false, 0);
    let incarnations = || -> Vec<u32> {
        let got = shard.got.lock().unwrap();
        let mut all: Vec<u32> = got.rows.iter().map(|r| r.header.incarnation).collect();
        all.dedup();
        all
    };
    until("rows of the second", || incarnations() == [1, 2]).await;
    until("the older weights", || versions(&shard).contains(&4)).await;
    let summary = actor.stop().await.unwrap();
    assert_eq!(summary.writer.map(|w| w.incarnation), Some(2));
    assert_rows_add_up(&summary);
    let got = shard.got.lock().unwrap();
    let second = got.batches.iter().filter(|(w, _)| w.incarnation == 2);
    let numbers: Vec<u64> = second.map(|b| b.1).collect();
    // They begin anew.
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_continues_without_its_learner_and_stops_when_the_run_is_over() {
    let (shard, learner, [_shard, server], actor) = acting(1, weights(1, 1), config());
    until("heartbeats and rows", || {
        learner.beats.lock().unwrap().len() > 2 && shard.rows() > 0
    })
    .await;
    let address = server.address.clone();
    drop(server);
    tokio::time::sleep(learner.lease * 2).await;
    let before = shard.rows();
    until("acting without a learner", || shard.rows() > before + 200).await;
    *learner.order.lock().unwrap() = order(false, true, 77);
    let _learner = learner.serve(&address);
    let summary = actor.ended().await.unwrap();
    assert_eq!(summary.ending, Ending::RunOver);
    assert_eq!(summary.counts.updates, 77);
    let beats = learner.beats.lock().unwrap();
    let last = beats.last().unwrap();
    assert!(last.report.env_steps > 0 && last.report.weights_version == 1);
    assert!(last.episodes > 0 && last.rows_sent > 0);
    let mut beats = beats.iter();
    assert!(beats.any(|b| b.episode_errors > 0 && b.episode_error > 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_weights_are_not_used_until_the_learner_is_back() {
    let mut config = config();
    config.actor.max_staleness = 1.0;
    let (shard, learner, [_shard, server], actor) = acting(1, weights(1, 1), config);
    // The learner publishes nothing new, and reports this version as the newest.
    until("steps with old weights", || {
        let seen = actor.counters.read();
        seen.weights_age > Some(Duration::from_secs(2)) && seen.state == ActorState::Acting
    })
    .await;
    until("a heartbeat with their age", || {
        let beats = learner.beats.lock().unwrap();
        let report = beats.last().map(|b| b.report);
        report.is_some_and(|r| r.weights_age_s > 1.0 && r.exploration > 0.0)
    })
    .await;
    let address = server.address.clone();
    drop(server);
    let state = || actor.counters.read().state;
    until("a pause", || state() == ActorState::Stale).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (steps, rows) = (actor.counters.read().env_steps, shard.rows());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(actor.counters.read().env_steps, steps);
    let _server = learner.serve(&address);
    // Acting, or blocked for a moment by a shard that takes its time.
    until("new steps", || {
        shard.rows() > rows + 100 && state() != ActorState::Stale
    })
    .await;
    actor.stop().await.unwrap();
}
