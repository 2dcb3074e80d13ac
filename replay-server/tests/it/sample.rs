//! Samplers: rows, keys, probabilities, new priorities, credit.

use crate::client::{INCARNATION, SHAPE, Shard, batch, hello, row};
use common::transition::row::Row;
use proto::messages::insert::InsertBatch;
use proto::messages::sample::{SAMPLE_ROWS_MAX, SampleRequest};
use proto::messages::update::SlotPriority;
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
async fn an_empty_shard_answers_at_once_with_nothing() {
    let shard = Shard::with_credit(0).await;
    let sampled = shard.sample(32).await;
    assert_eq!(
        (sampled.rows(), sampled.summary.rows, sampled.summary.mass),
        (0, 0, 0.0)
    );
}

#[tokio::test]
async fn rows_come_as_stored_with_probabilities_that_sum_to_one() {
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
        assert_eq!(
            found,
            row(key.slot),
            "row {} lies in the slot of that number",
            key.slot
        );
        let expected = (f64::from(key.slot) + 1.0 + 1e-6) / sampled.summary.mass;
        assert!((sampled.probabilities[i] - expected).abs() < 1e-12);
        probability.insert(key.slot, sampled.probabilities[i]);
    }
    // Stratified: a row of 1/210 of the mass is among 4000 draws for certain.
    assert_eq!(probability.len(), 20);
    assert!((probability.values().sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(shard.status().await.summary().sampled, 4000);
}

#[tokio::test]
async fn new_priorities_reach_the_row_and_only_that_row() {
    let shard = filled(3, 3).await;
    let one = |slot, generation, td_error| SlotPriority {
        slot,
        generation,
        td_error,
    };
    let reply = shard
        .update(
            INCARNATION,
            vec![one(0, 0, 0.0), one(1, 0, 97.0), one(2, 1, 500.0)],
        )
        .await
        .unwrap();
    assert_eq!((reply.applied, reply.stale), (2, 1));
    assert!((shard.sample(0).await.summary.mass - 100.0).abs() < 1e-3);
    // Slots 0 and 1 are taken by newer rows: late updates must not touch them.
    let (mut stream, _) = shard.open(2).await;
    stream.insert(batch(1, 50, 2)).await;
    let late = shard
        .update(INCARNATION, vec![one(0, 0, 900.0), one(1, 0, 900.0)])
        .await
        .unwrap();
    assert_eq!((late.applied, late.stale), (0, 2));
    assert!((shard.sample(0).await.summary.mass - 5.0).abs() < 1e-3);
    assert_eq!(shard.status().await.stale_updates, 3);
}

#[tokio::test]
async fn updates_from_another_incarnation_of_the_shard_are_stale() {
    let shard = filled(3, 10).await;
    let update = vec![SlotPriority {
        slot: 0,
        generation: 0,
        td_error: 9.0,
    }];
    let reply = shard.update(INCARNATION - 1, update).await.unwrap();
    assert_eq!((reply.applied, reply.stale), (0, 1));
}

#[tokio::test]
async fn credit_for_another_incarnation_is_ignored_and_late_credit_too() {
    let shard = Shard::with_credit(10).await;
    for (insert_limit, shard_incarnation) in [(500, INCARNATION - 1), (500, 0), (4, INCARNATION)] {
        let request = SampleRequest {
            hello: hello(),
            rows: 0,
            insert_limit,
            shard_incarnation,
        };
        shard.sample_as(request).await.unwrap();
        assert_eq!(shard.status().await.insert_limit, 10);
    }
}

#[tokio::test]
async fn a_sample_that_fits_no_message_is_refused_with_the_number_that_does() {
    let shard = Shard::with_credit(0).await;
    let mut large = hello();
    large.shape.agents = 100;
    let request = SampleRequest {
        hello: large,
        rows: SAMPLE_ROWS_MAX,
        insert_limit: 0,
        shard_incarnation: 0,
    };
    let status = shard.sample_as(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ask for at most"), "{status}");
}
