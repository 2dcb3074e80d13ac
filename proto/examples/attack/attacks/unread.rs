//! Replies that nobody reads.

use std::sync::Arc;

use anyhow::Result;
use proto::messages::weights::WatchRequest;
use proto::transport::security::Role;
use proto::wire;
use tokio::time::sleep;
use tonic_health::pb::HealthCheckRequest;

use super::{Arena, PAUSE, Tasks};
use crate::http2::{Session, message};
use crate::net::{Port, Protocol};

/// Connections to each port that watch its health, and calls on each.
const WATCHES: (usize, usize) = (250, 100);
/// Connections that ask for checkpoints, and calls on each: 690 and some.
const PULLS: (usize, usize) = (70, 10);
/// Connections that ask for weights, and for lists and states.
const OTHERS: usize = 50;
const CALLS: usize = 100;

/// Streams of a service's health, without a token.
pub fn watches(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    let request = message(&HealthCheckRequest::default());
    for port in arena.of(Protocol::Grpc) {
        for _ in 0..WATCHES.0 {
            let calls = vec![("/grpc.health.v1.Health/Watch", request.clone()); WATCHES.1];
            unread(arena, tasks, port, calls);
        }
    }
    Ok(())
}

/// Checkpoints, weights, and the largest other replies of learner and shard.
pub fn pulls(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    let learner = arena.port(Role::Learner, Protocol::Grpc)?;
    let shard = arena.port(Role::Replay, Protocol::Grpc)?;
    let pull = wire::PullCheckpointRequest {
        name: "last".into(),
        ..Default::default()
    };
    let pull = ("/landmarl.v1.Learner/PullCheckpoint", message(&pull));
    for _ in 0..PULLS.0 {
        unread(arena, tasks, learner, vec![pull.clone(); PULLS.1]);
    }
    let watch = wire::WatchRequest::from(WatchRequest {
        hello: arena.hello.clone(),
        newer_than: 0,
        bf16: false,
        untrained_first: true,
    });
    let watch = ("/landmarl.v1.Learner/WatchWeights", message(&watch));
    let list = message(&wire::ListCheckpointsRequest::default());
    let list = ("/landmarl.v1.Learner/ListCheckpoints", list);
    let states = [
        (learner, "/landmarl.v1.Learner/Status"),
        (shard, "/landmarl.v1.Replay/Status"),
    ];
    for _ in 0..OTHERS {
        unread(arena, tasks, learner, vec![watch.clone(); CALLS]);
        unread(arena, tasks, learner, vec![list.clone(); CALLS]);
        for (port, path) in states {
            // Requests without fields.
            unread(arena, tasks, port, vec![(path, list.1.clone()); CALLS]);
        }
    }
    Ok(())
}

/// One connection with these calls that reads nothing; it stays until the services close it, which
/// it finds out when it calls once more.
fn unread(arena: &Arc<Arena>, tasks: &mut Tasks, port: Port, calls: Vec<(&'static str, Vec<u8>)>) {
    let arena = Arc::clone(arena);
    tasks.spawn(async move {
        loop {
            let with = arena.credentials.as_ref();
            if let Ok(mut session) = Session::open(arena.host(0), port, with).await {
                arena.count("connections");
                for (path, body) in &calls {
                    if !session.call(path, body, true).await {
                        break;
                    }
                    arena.count("calls");
                }
                while session.ping().await {
                    sleep(PAUSE).await;
                }
                arena.count("closed");
            }
            sleep(PAUSE).await;
        }
    });
}
