//! Malformed input: decoding returns a value or an error, and never panics.
//!
//! The targets take bytes, so that a fuzzer can drive them as well; here they
//! get valid messages with some bytes changed, cut or added, and random bytes.

use bytes::Bytes;
use common::transition::row::RowShape;
use proptest::prelude::*;
use prost::Message;
use proto::messages::chunks::Chunk;
use proto::messages::evaluator::{EvaluatorBeat, EvaluatorBeatReply};
use proto::messages::heartbeat::Heartbeat;
use proto::messages::hello::Hello;
use proto::messages::insert::{
    AckLevel, InsertBatch, InsertOpen, InsertReply, InsertRequest, Writer,
};
use proto::messages::join::{JoinReply, JoinRequest};
use proto::messages::sample::{RowKey, SampleRequest, SampledBatch};
use proto::messages::status::{LearnerStatus, ShardStatus, ShardSummary};
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::messages::weights::{Receiver, WatchRequest};
use proto::wire;

/// Decodes a message and converts it; both may refuse.
fn target<W, T>(bytes: &[u8])
where
    W: Message + Default,
    T: TryFrom<W>,
{
    if let Ok(message) = W::decode(bytes) {
        let _ = T::try_from(message);
    }
}

/// Decodes a message that is used as it is, and prints it.
fn printed<M>(bytes: &[u8])
where
    M: Message + Default + serde::Serialize,
{
    if let Ok(message) = M::decode(bytes) {
        serde_json::to_value(message).expect("every message can be printed");
    }
}

/// Takes bytes, returns, does not panic.
type Target = fn(&[u8]);

const TARGETS: [Target; 15] = [
    target::<wire::Hello, Hello>,
    target::<wire::InsertRequest, InsertRequest>,
    target::<wire::InsertReply, InsertReply>,
    target::<wire::SampleRequest, SampleRequest>,
    target::<wire::SampleReply, SampledBatch>,
    target::<wire::UpdateRequest, PriorityUpdate>,
    printed::<ShardStatus>,
    printed::<LearnerStatus>,
    target::<wire::JoinRequest, JoinRequest>,
    target::<wire::JoinReply, JoinReply>,
    target::<wire::HeartbeatRequest, Heartbeat>,
    target::<wire::WatchRequest, WatchRequest>,
    chunk,
    target::<wire::EvaluatorBeatRequest, EvaluatorBeat>,
    target::<wire::EvaluatorBeatReply, EvaluatorBeatReply>,
];

/// A chunk as the receiver of weights takes it.
fn chunk(bytes: &[u8]) {
    let message = wire::Chunk::decode(bytes).ok();
    if let Some(chunk) = message.and_then(|message| Chunk::try_from(message).ok()) {
        let _ = Receiver::default().push(&chunk);
    }
}

fn hello() -> Hello {
    Hello {
        run_id: "fuzz".into(),
        manifest: [1; 32],
        config_digest: [2; 32],
        shape: RowShape {
            agents: 1,
            history: 1,
        },
    }
}

fn summary() -> ShardSummary {
    ShardSummary {
        shard: 1,
        shard_incarnation: 2,
        rows: 3,
        priority_sum: 4.0,
        inserted: 5,
        sampled: 6,
        insert_blocked_s: 0.5,
        writers_waiting: 1,
        newest_writer: 2,
    }
}

/// Valid messages.
fn seeds() -> Vec<Vec<u8>> {
    let open = InsertOpen {
        hello: hello(),
        writer: Writer {
            actor: 1,
            incarnation: 2,
        },
        ack: AckLevel::Durable,
    };
    let batch = InsertBatch {
        sequence: 7,
        packed: Bytes::from(vec![1; 112]),
        priorities: vec![0.5, 1.5],
    };
    let key = RowKey {
        shard: 1,
        incarnation: 2,
        slot: 3,
        generation: 4,
    };
    let drawn = SampledBatch {
        packed: Bytes::from(vec![1; 56]),
        keys: vec![key],
        probabilities: vec![0.25],
        summary: summary(),
    };
    let update = PriorityUpdate {
        hello: hello(),
        shard_incarnation: 2,
        priorities: vec![SlotPriority {
            slot: 1,
            generation: 0,
            td_error: 0.5,
        }],
        learner: 3,
    };
    let request = SampleRequest {
        hello: hello(),
        rows: 4,
        insert_limit: 9,
        shard_incarnation: 2,
        learner: 3,
    };
    vec![
        wire::InsertRequest::from(open).encode_to_vec(),
        wire::InsertRequest::from(batch).encode_to_vec(),
        wire::SampleReply::from(drawn).encode_to_vec(),
        wire::UpdateRequest::from(update).encode_to_vec(),
        wire::SampleRequest::from(request).encode_to_vec(),
        wire::Hello::from(hello()).encode_to_vec(),
        wire::Chunk {
            total_bytes: 100,
            sha256: Bytes::from(vec![3; 32]),
            offset: 0,
            data: Bytes::from(vec![4; 100]),
            weights: Some(wire::WeightsVersion {
                version: 1,
                updates: 5,
                published_us: 6,
            }),
        }
        .encode_to_vec(),
    ]
}

#[test]
fn valid_messages_are_read() {
    fn read<M: Message + Default, T: TryFrom<M>>(bytes: &[u8]) -> bool {
        M::decode(bytes).is_ok_and(|message| T::try_from(message).is_ok())
    }
    let seeds = seeds();
    let [open, batch, drawn, update, request, hello, chunk] = seeds.as_slice() else {
        panic!("{} seeds", seeds.len());
    };
    assert!(read::<wire::InsertRequest, InsertRequest>(open));
    assert!(read::<wire::InsertRequest, InsertRequest>(batch));
    assert!(read::<wire::SampleReply, SampledBatch>(drawn));
    assert!(read::<wire::UpdateRequest, PriorityUpdate>(update));
    assert!(read::<wire::SampleRequest, SampleRequest>(request));
    assert!(read::<wire::Hello, Hello>(hello));
    assert!(read::<wire::Chunk, Chunk>(chunk));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn altered_messages_do_not_panic(
        seed in 0_usize..7,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        for target in TARGETS {
            target(&bytes);
            target(&bytes[..cut.index(bytes.len())]);
        }
        bytes.extend(more);
        TARGETS.iter().for_each(|target| target(&bytes));
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        TARGETS.iter().for_each(|target| target(&bytes));
    }
}
