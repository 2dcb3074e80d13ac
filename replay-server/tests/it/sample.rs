//! Samplers: rows, keys, probabilities, new priorities, credit.

use crate::client::{INCARNATION, SHAPE, Shard, batch, hello, open, priority, request, row};
use common::transition::row::Row;
use proto::messages::insert::InsertBatch;
use proto::messages::sample::{SAMPLE_ROWS_MAX, SampleRequest};
use proto::messages::update::PriorityUpdate;
use proto::wire;
use replay_server::ShardConfig;
use replay_server::table::selector::Selector;
use std::collections::HashMap;
use tonic::Code;

/// A shard with rows 0..rows, row `n` with |TD error| n + 1 and alpha 1.
async fn filled(rows: u32, capacity: usize) -> Shard {
    let selector = Selector::prioritised(1.0, 1e-6, 1e3).unwrap();
    let config = ShardConfig {
        incarnation: INCARNATION,
        capacity,
        selector,
        ..Default::default()
    };
    let shard = Shard::start(config).await;
    shard.grant(1_000_000).await;
    let (mut stream, _) = shard.open(1).await;
    let priorities = (1_u16..).map(f32::from).take(rows as usize).collect();
    stream
        .insert(InsertBatch {
            priorities,
            ..batch(1, 0, rows)
        })
        .await;
    shard
}

#[tokio::test]
async fn an_empty_shard_replies_at_once_without_rows() {
    let shard = Shard::with_credit(0).await;
    let sampled = shard.sample(32).await;
    let summary = sampled.summary;
    assert_eq!((sampled.rows(), summary.rows), (0, 0));
    assert_eq!(summary.priority_sum, 0.0);
}

#[tokio::test]
async fn rows_are_returned_as_stored_with_probabilities_that_sum_to_one() {
    let shard = filled(20, 1000).await;
    let sampled = shard.sample(4000).await;
    let rows = SHAPE.split(&sampled.packed, 4000).unwrap();
    let mut probability = HashMap::new();
    for (i, bytes) in rows.enumerate() {
        let found = Row::read(bytes, SHAPE).unwrap();
        let key = sampled.keys[i];
        assert_eq!(
            (key.shard, key.incarnation, key.generation),
            (0, INCARNATION, 0)
        );
        // Row `n` is in slot `n`.
        assert_eq!(found, row(key.slot));
        let expected = (f64::from(key.slot) + 1.0 + 1e-6) / sampled.summary.priority_sum;
        assert!((sampled.probabilities[i] - expected).abs() < 1e-12);
        probability.insert(key.slot, sampled.probabilities[i]);
    }
    // Stratified: a row with 1/210 of the priority sum is certainly among 4000 draws.
    assert_eq!(probability.len(), 20);
    assert!((probability.values().sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(shard.status().await.summary().sampled, 4000);
}

#[tokio::test]
async fn new_priorities_change_only_their_rows() {
    let shard = filled(3, 3).await;
    let updates = [(0, 0, 0.0), (1, 0, 97.0), (2, 1, 500.0)];
    let updates = updates.map(|(slot, generation, td)| priority(slot, generation, td));
    let reply = shard.update(INCARNATION, updates.into()).await.unwrap();
    assert_eq!((reply.applied, reply.stale), (2, 1));
    assert!((shard.sample(0).await.summary.priority_sum - 100.0).abs() < 1e-3);
    // Slots 0 and 1 are taken by newer rows: late updates must not touch them.
    let (mut stream, _) = shard.open(2).await;
    stream.insert(batch(1, 50, 2)).await;
    let late = vec![priority(0, 0, 900.0), priority(1, 0, 900.0)];
    let late = shard.update(INCARNATION, late).await.unwrap();
    assert_eq!((late.applied, late.stale), (0, 2));
    assert!((shard.sample(0).await.summary.priority_sum - 5.0).abs() < 1e-3);
    assert_eq!(shard.status().await.stale_updates, 3);
}

#[tokio::test]
async fn updates_from_another_incarnation_of_the_shard_are_stale() {
    let shard = filled(3, 10).await;
    let update = vec![priority(0, 0, 9.0)];
    let reply = shard.update(INCARNATION - 1, update).await.unwrap();
    assert_eq!((reply.applied, reply.stale), (0, 1));
}

#[tokio::test]
async fn late_credit_and_credit_for_another_incarnation_are_ignored() {
    let shard = Shard::with_credit(10).await;
    for (insert_limit, shard_incarnation) in [(500, INCARNATION - 1), (500, 0), (4, INCARNATION)] {
        let request = request(0, insert_limit, shard_incarnation);
        shard.try_sample(request).await.unwrap();
        assert_eq!(shard.status().await.insert_limit, 10);
    }
}

#[tokio::test]
async fn a_sample_too_large_for_a_message_is_refused_with_the_limit() {
    let shard = Shard::with_credit(0).await;
    let mut large = request(SAMPLE_ROWS_MAX, 0, 0);
    large.hello.shape.agents = 100;
    let status = shard.try_sample(large).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ask for at most"), "{status}");
}

/// Two learners of one run: started twice by mistake, or one that was believed dead.
#[tokio::test]
async fn an_earlier_learner_neither_opens_the_limiter_nor_draws_while_a_later_one_calls() {
    let shard = Shard::with_credit(0).await;
    let call = |learner: u64, insert_limit: u64| {
        let request = request(1, insert_limit, INCARNATION);
        shard.try_sample(SampleRequest { learner, ..request })
    };
    call(7, 10).await.unwrap();
    let refused = call(5, 1_000_000).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let expected = "a learner that started later";
    assert!(refused.message().contains(expected), "{refused}");
    let update = wire::UpdateRequest::from(PriorityUpdate {
        hello: hello(),
        shard_incarnation: INCARNATION,
        priorities: vec![priority(0, 0, 1.0)],
        learner: 5,
    });
    let refused = shard.raw().update_priorities(update).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let status = shard.status().await;
    assert_eq!((status.insert_limit, status.summary().sampled), (10, 0));
    call(9, 20).await.unwrap();
    assert_eq!(shard.status().await.insert_limit, 20);
}

#[tokio::test]
async fn the_learner_sees_the_newest_incarnation_of_any_actor() {
    let shard = filled(2, 10).await;
    assert_eq!(shard.sample(0).await.summary.newest_writer, 1);
    let mut later = open(4);
    later.writer.incarnation = 30;
    let (_stream, _) = shard.try_open(later).await.unwrap();
    assert_eq!(shard.sample(0).await.summary.newest_writer, 30);
}
