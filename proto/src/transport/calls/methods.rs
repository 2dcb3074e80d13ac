//! How large the messages are that each method takes.

use crate::messages::chunks::CHUNK_BYTES_MAX;
use crate::messages::evaluator::LINE_BYTES_MAX;
use crate::messages::insert::BATCH_BYTES_MAX;
use crate::messages::join::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::messages::update::UPDATE_ROWS_MAX;

/// Numbers, names and a hello. Messages up to this size need no budget.
pub(super) const SMALL: usize = 4 << 10;

/// What the requests of one method may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// Bytes of one message.
    pub(super) message: usize,
    /// Whether a request is a stream of messages, without a limit on its time.
    pub(super) stream: bool,
    pub(super) reply: Reply,
}

/// What is sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// One small reply, or a stream of them.
    Small,
    /// One reply, which may be large.
    Large,
    /// A stream of pieces, of up to [`CHUNK_BYTES_MAX`] each.
    Stream,
}

const fn one(message: usize) -> Method {
    Method {
        message,
        stream: false,
        reply: Reply::Small,
    }
}

const fn many(message: usize) -> Method {
    let stream = true;
    Method {
        stream,
        ..one(message)
    }
}

const fn large_reply(message: usize) -> Method {
    Method {
        reply: Reply::Large,
        ..one(message)
    }
}

const fn pieces(message: usize) -> Method {
    Method {
        reply: Reply::Stream,
        ..one(message)
    }
}

/// The methods with more than one small message and one small reply. Some limits are generous: the service
/// refuses with the name of the field.
const TABLE: &[(&str, Method)] = &[
    (
        "/landmarl.v1.Learner/Join",
        large_reply(MANIFEST_BYTES_MAX + CONFIG_BYTES_MAX + SMALL),
    ),
    ("/landmarl.v1.Learner/Status", large_reply(SMALL)),
    ("/landmarl.v1.Learner/ListCheckpoints", large_reply(SMALL)),
    ("/landmarl.v1.Learner/WatchWeights", pieces(SMALL)),
    ("/landmarl.v1.Learner/PullCheckpoint", pieces(SMALL)),
    ("/landmarl.v1.Replay/Sample", large_reply(SMALL)),
    (
        "/landmarl.v1.Learner/EvaluatorBeat",
        one(MANIFEST_BYTES_MAX + CONFIG_BYTES_MAX + LINE_BYTES_MAX + SMALL),
    ),
    (
        "/landmarl.v1.Learner/KeepBest",
        many(CHUNK_BYTES_MAX + SMALL),
    ),
    ("/landmarl.v1.Replay/Insert", many(2 * BATCH_BYTES_MAX)),
    // Three numbers of four bytes for each row.
    (
        "/landmarl.v1.Replay/UpdatePriorities",
        one(16 * UPDATE_ROWS_MAX),
    ),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        many(SMALL),
    ),
];

/// What the method at this path takes; unknown ones are refused later.
pub(super) fn of(path: &str) -> Method {
    let found = TABLE.iter().find(|(known, _)| *known == path);
    found.map_or(one(SMALL), |(_, method)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::channel::MESSAGE_BYTES_MAX;
    use crate::wire;
    use protox::prost_reflect::DescriptorPool;

    #[test]
    fn every_method_with_a_stream_of_requests_is_in_the_table() {
        let pool = DescriptorPool::decode(wire::DESCRIPTORS).unwrap();
        for method in pool
            .services()
            .flat_map(|s| s.methods().collect::<Vec<_>>())
        {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            assert_eq!(of(&path).stream, method.is_client_streaming(), "{path}");
            let streams = method.is_client_streaming() || method.is_server_streaming();
            assert!(of(&path).reply != Reply::Large || !streams, "{path}");
            assert!(of(&path).reply != Reply::Stream || method.is_server_streaming());
        }
    }

    #[test]
    fn calls_without_a_token_are_small_and_none_is_beyond_the_limit_of_all() {
        assert_eq!(of("/grpc.health.v1.Health/Check"), one(SMALL));
        assert_eq!(of("/grpc.health.v1.Health/Watch"), one(SMALL));
        assert_eq!(of("/nothing"), one(SMALL));
        for (path, method) in TABLE {
            assert!(method.message <= MESSAGE_BYTES_MAX, "{path}");
        }
    }
}
