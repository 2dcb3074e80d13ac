//! Tests of `shard`.

use super::*;
use crate::table::selector::Selector;
use common::transition::row::RowShape;

const SHAPE: RowShape = RowShape {
    agents: 1,
    history: 1,
};
const NOW: Duration = Duration::ZERO;

fn hello() -> Hello {
    Hello {
        run_id: "a".into(),
        manifest: [1; 32],
        config_digest: [2; 32],
        shape: SHAPE,
    }
}

fn shard() -> Shard {
    let config = ShardConfig {
        incarnation: 9,
        capacity: 8,
        selector: Selector::Uniform,
        ..Default::default()
    };
    Shard::new(config).unwrap()
}

/// A shard of this run, its first `credit` rows allowed.
fn joined(credit: u64) -> Shard {
    let mut shard = shard();
    shard.join(&hello()).unwrap();
    shard.grant(9, credit);
    shard
}

fn insert(shard: &mut Shard, batch: &CheckedBatch) -> Insertion {
    shard.insert(batch, Place::Arriving, NOW).unwrap()
}

fn batch(actor: u16, sequence: u64, rows: usize) -> CheckedBatch {
    CheckedBatch {
        writer: Writer {
            actor,
            incarnation: 1,
        },
        sequence,
        packed: vec![0; rows * SHAPE.bytes()].into(),
        td_errors: vec![1.0; rows],
    }
}

#[test]
fn the_first_hello_decides_and_the_config_before_it() {
    let mut shard = shard();
    let other = Hello {
        run_id: "b".into(),
        ..hello()
    };
    let early = shard.insert(&batch(1, 1, 1), Place::Arriving, NOW);
    assert!(matches!(early, Err(ShardError::NoHello)));
    shard.join(&hello()).unwrap();
    shard.join(&hello()).unwrap();
    assert!(matches!(shard.join(&other), Err(ShardError::Hello(_))));
    let mut configured = Shard::new(ShardConfig {
        hello: Some(other),
        ..Default::default()
    })
    .unwrap();
    let refused = configured.join(&hello());
    assert!(matches!(refused, Err(ShardError::Hello(_))));
}

#[test]
fn rows_too_large_for_the_memory_are_refused_and_the_shard_stays_open_to_others() {
    let mut shard = Shard::new(ShardConfig {
        memory_max: 100_000,
        capacity: 1000,
        ..Default::default()
    })
    .unwrap();
    let mut large = hello();
    (large.shape.agents, large.shape.history) = (5, 4);
    let error = shard.join(&large).unwrap_err().to_string();
    let expected = "1000 rows of 416 bytes need 0.4 MB";
    assert!(error.contains(expected), "{error}");
    shard.join(&hello()).unwrap();
}

#[test]
fn batches_wait_for_credit_and_repeats_do_not() {
    let mut shard = joined(0);
    let (first, second) = (batch(1, 1, 3), batch(1, 2, 3));
    assert_eq!(insert(&mut shard, &first), Insertion::NoCredit);
    assert!(!shard.grant(8, 100), "credit for another incarnation");
    assert!(shard.grant(9, 4));
    let (acked, first_row) = (1, 0);
    let stored = Insertion::Stored { acked, first_row };
    assert_eq!(insert(&mut shard, &first), stored);
    assert_eq!(insert(&mut shard, &second), Insertion::NoCredit);
    let repeated = Insertion::Duplicate { acked };
    assert_eq!(insert(&mut shard, &first), repeated);
    let status = shard.status(NOW);
    let summary = status.summary();
    assert_eq!((summary.rows, summary.inserted), (3, 3));
    assert_eq!(status.insert_limit, 4);
    assert_eq!((status.duplicates, status.gaps), (1, 0));
}

#[test]
fn no_batch_overtakes_a_waiting_one() {
    let mut shard = joined(2);
    let (large, small) = (batch(1, 1, 3), batch(2, 1, 1));
    let stored = |first_row| Insertion::Stored {
        acked: 1,
        first_row,
    };
    assert_eq!(insert(&mut shard, &large), Insertion::NoCredit);
    shard.enter_wait(NOW);
    assert_eq!(insert(&mut shard, &small), Insertion::NoCredit);
    shard.grant(9, 4);
    let waited = shard.insert(&large, Place::First, NOW).unwrap();
    assert_eq!(waited, stored(0));
    shard.leave_wait(NOW);
    assert_eq!(insert(&mut shard, &small), stored(3));
}

#[test]
fn a_batch_that_fails_costs_no_credit_and_no_sequence_number() {
    let mut shard = joined(10);
    let mut bad = batch(1, 1, 2);
    bad.td_errors[1] = f32::NAN;
    let refused = shard.insert(&bad, Place::Arriving, NOW);
    assert!(matches!(refused, Err(ShardError::Table(_))));
    assert_eq!(shard.summary(NOW).inserted, 0);
    assert_eq!(shard.begin(bad.writer).unwrap(), 0);
}

#[test]
fn gaps_stale_updates_and_samples_are_counted() {
    let mut shard = joined(100);
    insert(&mut shard, &batch(1, 4, 2));
    assert_eq!(shard.sample(5).slots.len(), 5);
    let updates = [0, 1].map(|generation| Update {
        slot: 0,
        generation,
        td_error: 1.0,
    });
    for (incarnation, applied, stale) in [(9, 1, 1), (8, 0, 2)] {
        let updated = shard.update(incarnation, &updates).unwrap();
        assert_eq!(updated, Updated { applied, stale });
    }
    let status = shard.status(NOW);
    assert_eq!((status.gaps, status.stale_updates), (3, 3));
    assert_eq!(status.summary().sampled, 5);
    assert_eq!(status.run_id.as_deref(), Some("a"));
}

#[test]
fn shards_of_one_seed_draw_differently_and_each_repeats_itself() {
    let draw = |shard| {
        let mut shard = Shard::new(ShardConfig {
            shard,
            capacity: 64,
            hello: Some(hello()),
            ..Default::default()
        })
        .unwrap();
        shard.grant(1, 64);
        insert(&mut shard, &batch(1, 1, 64));
        shard.sample(32).slots
    };
    assert_eq!(draw(0), draw(0));
    assert_ne!(draw(0), draw(1));
}

/// A snapshot may request rows that have left the table by then.
#[test]
fn weights_are_found_by_number_and_rows_that_left_have_none() {
    let mut shard = shard();
    let weights = |shard: &Shard, rows| {
        let mut out = Vec::new();
        shard.weights(rows, &mut out);
        out
    };
    assert!(weights(&shard, 0..3).is_empty());
    assert_eq!(shard.outline().rows, 0);
    shard.join(&hello()).unwrap();
    shard.grant(9, 100);
    insert(&mut shard, &batch(1, 1, 6));
    let outline = shard.outline();
    assert_eq!((outline.end, outline.rows), (6, 6));
    assert_eq!(weights(&shard, 0..6), [1.0; 6]);
    insert(&mut shard, &batch(1, 2, 5));
    let outline = shard.outline();
    assert_eq!((outline.end, outline.rows), (11, 8));
    assert_eq!(weights(&shard, 0..6), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(weights(&shard, 0..2), [0.0; 2]);
    assert_eq!(weights(&shard, 9..11), [1.0; 2]);
}
