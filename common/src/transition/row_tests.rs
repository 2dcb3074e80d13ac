//! Sizes, golden bytes and round trips of rows.

use super::*;
use proptest::prelude::*;

pub(crate) fn any_frame() -> impl Strategy<Value = FrameRef> {
    (prop::array::uniform3(any::<i16>()), 1_u8..9, any::<bool>()).prop_map(
        |(position, stride, valid)| FrameRef {
            position,
            stride,
            valid,
        },
    )
}

fn any_agent(history: usize) -> impl Strategy<Value = AgentStep> {
    let frames = || prop::collection::vec(any_frame(), history);
    (
        any::<u16>(),
        0_u8..8,
        0_u8..8,
        0_u8..6,
        any::<bool>(),
        -9.0_f32..9.0,
        0.0_f32..1.0,
        frames(),
        frames(),
    )
        .prop_map(
            |(agent, scale, next_scale, action, active, reward, discount, state, next)| AgentStep {
                agent,
                scale,
                next_scale,
                action,
                active,
                reward,
                discount,
                state,
                next,
            },
        )
}

pub(crate) fn any_row(shape: RowShape) -> impl Strategy<Value = Row> {
    let header = (
        any::<u16>(),
        any::<u32>(),
        any::<u16>(),
        any::<u32>(),
        any::<u16>(),
        any::<u32>(),
        any::<u16>(),
        0_u64..1 << 48,
    )
        .prop_map(
            |(scan, pose, actor, incarnation, slot, episode, step, weights_version)| RowHeader {
                scan,
                pose,
                actor,
                incarnation,
                slot,
                episode,
                step,
                weights_version,
            },
        );
    let agents = prop::collection::vec(
        any_agent(usize::from(shape.history)),
        usize::from(shape.agents),
    );
    (header, agents).prop_map(|(header, agents)| Row { header, agents })
}

pub(crate) fn any_shape() -> impl Strategy<Value = RowShape> {
    (1_u16..5, 1_u8..5).prop_map(|(agents, history)| RowShape { agents, history })
}

#[test]
fn sizes_stay_within_the_budget_of_the_design() {
    // Index: two f64 nodes of the sum tree per leaf and a generation.
    let with_index = |agents, history| RowShape { agents, history }.bytes() + 2 * 8 + 4;
    assert!(with_index(1, 4) <= 128, "{}", with_index(1, 4));
    assert!(with_index(1, 1) <= 80, "{}", with_index(1, 1));
    let bytes = |history| RowShape { agents: 1, history }.bytes();
    assert_eq!((bytes(4), bytes(1)), (104, 56));
}

#[test]
fn golden_bytes() {
    let frame = |x, valid| FrameRef {
        position: [x, -2, 300],
        stride: 4,
        valid,
    };
    let row = Row {
        header: RowHeader {
            scan: 3,
            pose: 0,
            actor: 7,
            incarnation: 2,
            slot: 5,
            episode: 258,
            step: 9,
            weights_version: 0x0102_0304_0506,
        },
        agents: vec![AgentStep {
            agent: 1,
            scale: 0,
            next_scale: 1,
            action: 5,
            active: true,
            reward: 1.0,
            discount: 0.5,
            state: vec![frame(10, true)],
            next: vec![frame(19, false)],
        }],
    };
    let mut bytes = Vec::new();
    row.write_to(&mut bytes);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "0300000000000700020000000500020100000900060504030201\
         0100000105010000803f0000003f\
         0a00feff2c010401\
         1300feff2c010400"
    );
}

#[test]
fn impossible_field_values_are_refused() {
    let shape = RowShape {
        agents: 1,
        history: 1,
    };
    let row = Row {
        header: RowHeader::default(),
        agents: vec![AgentStep {
            discount: 0.9,
            state: vec![FrameRef::default()],
            next: vec![FrameRef::default()],
            ..Default::default()
        }],
    };
    let mut good = Vec::new();
    row.write_to(&mut good);
    assert_eq!(Row::read(&good, shape).unwrap(), row);
    let [nan, large] = [f32::NAN, 1.5].map(f32::to_le_bytes);
    let fields: [(usize, &[u8], &str); 4] = [
        (4, &[6], "action of agent 0 is 6"),
        (5, &[2], "active of agent 0 is 2"),
        (6, &nan, "reward of agent 0 is NaN"),
        (10, &large, "discount of agent 0 is 1.5"),
    ];
    for (at, with, expected) in fields {
        let mut bytes = good.clone();
        bytes[HEADER_BYTES + at..][..with.len()].copy_from_slice(with);
        let error = Row::read(&bytes, shape).unwrap_err().to_string();
        assert_eq!(error, format!("row field {expected}"));
    }
    let error = Row::read(&good[1..], shape).unwrap_err().to_string();
    assert!(error.contains("56 bytes, got 55"), "{error}");
}

#[test]
fn a_batch_of_another_length_is_refused_with_both_numbers() {
    let shape = RowShape {
        agents: 1,
        history: 1,
    };
    let zeros = [0; 168];
    let error = |bytes, rows| {
        let split = shape.split(&zeros[..bytes], rows);
        split.unwrap_err().to_string()
    };
    assert_eq!(error(111, 2), "2 rows of 56 bytes need 112 bytes, got 111");
    assert!(error(168, 2).ends_with("got 168"));
    assert!(error(56, 0).ends_with("need 0 bytes, got 56"));
    assert!(error(56, usize::MAX).contains("got 56"));
    assert_eq!(shape.split(&[], 0).unwrap().len(), 0);
}

proptest! {
    #[test]
    fn batches_read_back(
        (rows, shape) in any_shape().prop_flat_map(|s| (prop::collection::vec(any_row(s), 0..9), Just(s)))
    ) {
        let mut packed = Vec::new();
        rows.iter().for_each(|r| r.write_to(&mut packed));
        let split = shape.split(&packed, rows.len()).unwrap();
        let read: Vec<Row> = split.map(|bytes| Row::read(bytes, shape).unwrap()).collect();
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn rows_read_back((row, shape) in any_shape().prop_flat_map(|s| (any_row(s), Just(s)))) {
        let mut bytes = Vec::new();
        row.write_to(&mut bytes);
        prop_assert_eq!(bytes.len(), shape.bytes());
        prop_assert_eq!(Row::read(&bytes, shape).unwrap(), row);
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), rows in 0_usize..10, shape in any_shape(),
    ) {
        let _ = Row::read(&bytes, shape);
        if let Ok(split) = shape.split(&bytes, rows) {
            prop_assert_eq!(split.len(), rows);
            for bytes in split {
                let _ = Row::check(bytes, shape);
            }
        }
    }

    /// A corrupted byte either fails the check or leaves a readable row: check and
    /// read never disagree.
    #[test]
    fn checked_rows_read_and_write_back(
        (row, shape) in any_shape().prop_flat_map(|s| (any_row(s), Just(s))),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        row.write_to(&mut bytes);
        let place = place.index(bytes.len());
        bytes[place] = value;
        if Row::check(&bytes, shape).is_ok() {
            let mut again = Vec::new();
            Row::read(&bytes, shape).unwrap().write_to(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
