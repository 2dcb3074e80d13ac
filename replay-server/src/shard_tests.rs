//! Tests of `shard`.

use super::*;
use crate::table::selector::Selector;

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
    assert!(matches!(
        shard.insert(&batch(1, 1, 1), Place::Arriving, NOW),
        Err(ShardError::NoHello)
    ));
    shard.join(&hello()).unwrap();
    shard.join(&hello()).unwrap();
    assert!(matches!(shard.join(&other), Err(ShardError::Hello(_))));
    let mut configured = Shard::new(ShardConfig {
        hello: Some(other),
        ..Default::default()
    })
    .unwrap();
    assert!(matches!(
        configured.join(&hello()),
        Err(ShardError::Hello(_))
    ));
}

#[test]
fn rows_too_large_for_the_memory_are_refused_and_the_shard_stays_open_to_others() {
    let mut shard = Shard::new(ShardConfig {
        memory_max: 100_000,
        capacity: 1000,
        ..Default::default()
    })
    .unwrap();
    let large = Hello {
        shape: RowShape {
            agents: 5,
            history: 4,
        },
        ..hello()
    };
    let error = shard.join(&large).unwrap_err().to_string();
    assert!(
        error.contains("1000 rows of 416 bytes need 0.4 MB"),
        "{error}"
    );
    shard.join(&hello()).unwrap();
}

#[test]
fn batches_wait_for_credit_and_repeats_do_not() {
    let mut shard = shard();
    shard.join(&hello()).unwrap();
    assert_eq!(
        shard.insert(&batch(1, 1, 3), Place::Arriving, NOW).unwrap(),
        Insertion::NoCredit
    );
    assert!(!shard.grant(8, 100), "credit for another incarnation");
    assert!(shard.grant(9, 4));
    assert_eq!(
        shard.insert(&batch(1, 1, 3), Place::Arriving, NOW).unwrap(),
        Insertion::Stored {
            acked: 1,
            first_row: 0
        }
    );
    assert_eq!(
        shard.insert(&batch(1, 2, 3), Place::Arriving, NOW).unwrap(),
        Insertion::NoCredit
    );
    assert_eq!(
        shard.insert(&batch(1, 1, 3), Place::Arriving, NOW).unwrap(),
        Insertion::Duplicate { acked: 1 }
    );
    let status = shard.status(NOW);
    assert_eq!(
        (
            status.summary().rows,
            status.summary().inserted,
            status.insert_limit
        ),
        (3, 3, 4)
    );
    assert_eq!((status.duplicates, status.gaps), (1, 0));
}

#[test]
fn nobody_overtakes_a_batch_that_waits() {
    let mut shard = shard();
    shard.join(&hello()).unwrap();
    shard.grant(9, 2);
    let large = batch(1, 1, 3);
    assert_eq!(
        shard.insert(&large, Place::Arriving, NOW).unwrap(),
        Insertion::NoCredit
    );
    shard.enter_wait(NOW);
    assert_eq!(
        shard.insert(&batch(2, 1, 1), Place::Arriving, NOW).unwrap(),
        Insertion::NoCredit
    );
    shard.grant(9, 4);
    assert_eq!(
        shard.insert(&large, Place::First, NOW).unwrap(),
        Insertion::Stored {
            acked: 1,
            first_row: 0
        }
    );
    shard.leave_wait(NOW);
    assert_eq!(
        shard.insert(&batch(2, 1, 1), Place::Arriving, NOW).unwrap(),
        Insertion::Stored {
            acked: 1,
            first_row: 3
        }
    );
}

#[test]
fn a_batch_that_fails_costs_no_credit_and_no_sequence_number() {
    let mut shard = shard();
    shard.join(&hello()).unwrap();
    shard.grant(9, 10);
    let mut bad = batch(1, 1, 2);
    bad.td_errors[1] = f32::NAN;
    assert!(matches!(
        shard.insert(&bad, Place::Arriving, NOW),
        Err(ShardError::Table(_))
    ));
    assert_eq!(
        (
            shard.summary(NOW).inserted,
            shard.begin(bad.writer).unwrap()
        ),
        (0, 0)
    );
}

#[test]
fn gaps_stale_updates_and_samples_are_counted() {
    let mut shard = shard();
    shard.join(&hello()).unwrap();
    shard.grant(9, 100);
    shard.insert(&batch(1, 4, 2), Place::Arriving, NOW).unwrap();
    assert_eq!(shard.sample(5).slots.len(), 5);
    let update = [
        Update {
            slot: 0,
            generation: 0,
            td_error: 1.0,
        },
        Update {
            slot: 0,
            generation: 1,
            td_error: 1.0,
        },
    ];
    assert_eq!(
        shard.update(9, &update).unwrap(),
        Updated {
            applied: 1,
            stale: 1
        }
    );
    assert_eq!(
        shard.update(8, &update).unwrap(),
        Updated {
            applied: 0,
            stale: 2
        }
    );
    let status = shard.status(NOW);
    assert_eq!(
        (status.gaps, status.stale_updates, status.summary().sampled),
        (3, 3, 5)
    );
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
        shard
            .insert(&batch(1, 1, 64), Place::Arriving, NOW)
            .unwrap();
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
    shard.insert(&batch(1, 1, 6), Place::Arriving, NOW).unwrap();
    let outline = shard.outline();
    assert_eq!((outline.end, outline.rows), (6, 6));
    assert_eq!(weights(&shard, 0..6), [1.0; 6]);
    shard.insert(&batch(1, 2, 5), Place::Arriving, NOW).unwrap();
    let outline = shard.outline();
    assert_eq!((outline.end, outline.rows), (11, 8));
    assert_eq!(weights(&shard, 0..6), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(weights(&shard, 0..2), [0.0; 2]);
    assert_eq!(weights(&shard, 9..11), [1.0; 2]);
}
