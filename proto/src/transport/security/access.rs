//! The table of who may call what.

use super::role::{Role, Roles};

/// One entry: a path, or a prefix of paths if it ends with a slash.
struct Entry {
    path: &'static str,
    roles: Roles,
    /// Whether the join token is required.
    token: bool,
}

const fn only(path: &'static str, roles: &[Role]) -> Entry {
    Entry {
        path,
        roles: Roles::of(roles),
        token: true,
    }
}

/// For probes; the response is one word.
const fn probe(path: &'static str) -> Entry {
    Entry {
        token: false,
        ..only(path, &Role::ALL)
    }
}

/// Roles that may join a run.
const ACTORS: &[Role] = &[Role::Actor, Role::Evaluator];

/// Roles that may download checkpoints.
const PULLERS: &[Role] = &[Role::Operator, Role::Evaluator, Role::Learner];

/// Every path that may be called; all others are refused.
const TABLE: &[Entry] = &[
    only("/landmarl.v1.Learner/Join", ACTORS),
    only("/landmarl.v1.Learner/Heartbeat", ACTORS),
    only(
        "/landmarl.v1.Learner/WatchWeights",
        &[Role::Actor, Role::Evaluator, Role::Operator],
    ),
    only("/landmarl.v1.Learner/Status", &Role::ALL),
    only("/landmarl.v1.Learner/EvaluatorBeat", &[Role::Evaluator]),
    only("/landmarl.v1.Learner/KeepBest", &[Role::Evaluator]),
    // A process with the learner's certificate has the files anyway.
    only("/landmarl.v1.Learner/ListCheckpoints", PULLERS),
    only("/landmarl.v1.Learner/PullCheckpoint", PULLERS),
    only("/landmarl.v1.Replay/Insert", &[Role::Actor]),
    only("/landmarl.v1.Replay/Sample", &[Role::Learner]),
    only("/landmarl.v1.Replay/UpdatePriorities", &[Role::Learner]),
    only(
        "/landmarl.v1.Replay/Snapshot",
        &[Role::Learner, Role::Operator],
    ),
    only("/landmarl.v1.Replay/Status", &Role::ALL),
    probe("/grpc.health.v1.Health/"),
    only("/grpc.reflection.v1.ServerReflection/", &[Role::Operator]),
    // Over HTTP.
    probe("/health"),
    only("/metrics", &[Role::Monitor, Role::Operator]),
    only("/log-level", &[Role::Operator]),
    only("/checkpoints", PULLERS),
    only("/checkpoints/", PULLERS),
];

/// The roles that may call a path, and whether it requires the token; `None` for
/// an unknown path.
pub(super) fn needed(path: &str) -> Option<(Roles, bool)> {
    let found = TABLE.iter().find(|entry| {
        entry.path == path || (entry.path.ends_with('/') && path.starts_with(entry.path))
    });
    found.map(|entry| (entry.roles, entry.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    /// The paths of all methods that a server offers.
    fn methods(descriptors: &[u8]) -> Vec<String> {
        let pool = protox::prost_reflect::DescriptorPool::decode(descriptors).unwrap();
        let methods = pool.services().flat_map(|service| {
            let paths = service
                .methods()
                .map(|method| format!("/{}/{}", service.full_name(), method.name()));
            paths.collect::<Vec<_>>()
        });
        methods.collect()
    }

    #[test]
    fn every_method_is_in_the_table() {
        for descriptors in [wire::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let all = methods(descriptors);
            assert!(all.len() >= 2, "{all:?}");
            assert!(all.iter().all(|path| needed(path).is_some()), "{all:?}");
        }
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert!(needed(reflection).is_some());
    }

    #[test]
    fn rows_come_from_actors_and_go_to_the_learner() {
        let may = |role, path: &str| needed(path).unwrap().0.has(role);
        for role in Role::ALL {
            let inserts = may(role, "/landmarl.v1.Replay/Insert");
            assert_eq!(inserts, role == Role::Actor, "{role}");
            let samples = may(role, "/landmarl.v1.Replay/Sample");
            assert_eq!(samples, role == Role::Learner, "{role}");
            let pulls = may(role, "/checkpoints/last.safetensors");
            assert_eq!(pulls, PULLERS.contains(&role), "{role}");
            assert!(may(role, "/landmarl.v1.Learner/Status"));
        }
        assert_eq!(needed("/landmarl.v1.Replay/Erase"), None);
        assert_eq!(needed("/landmarl.v1.Replay/"), None);
        assert_eq!(needed("/healthy"), None);
        let asks_for_token = |path| needed(path).unwrap().1;
        assert!(!asks_for_token("/grpc.health.v1.Health/Check"));
        assert!(asks_for_token("/landmarl.v1.Learner/Status"));
    }
}
