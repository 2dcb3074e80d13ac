//! Messages that are half sent, too long, or full of long texts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use proto::messages::join::JoinRequest;
use proto::transport::security::Role;
use proto::wire;
use tokio::time::sleep;

use super::{Arena, PAUSE, Tasks};
use crate::http2::{Session, announced, message};
use crate::net::{Port, Protocol};

/// Calls at once on one connection, no more than services allow.
const CALLS: usize = 100;
/// Connections to each port.
const CONNECTIONS: usize = 50;
/// Bytes that are sent of a large message: what the window of a stream takes.
const SENT: usize = 250_000;
/// The same in one frame, which a server hands over and no longer counts as unread: so every call of
/// a connection has one, whatever the windows.
const FRAME: usize = 16_000;
/// Calls whose answers may be unread before they are.
const UNANSWERED: usize = 64;

/// Messages of a method that asks for no token, of four megabytes and of the largest size that it
/// takes.
pub fn health(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for port in arena.of(Protocol::Grpc) {
        for number in 0..CONNECTIONS {
            let (length, sent) = match number % 2 {
                0 => (4 << 20, SENT),
                _ => (4096, 4000),
            };
            half_sent(
                arena,
                tasks,
                port,
                "/grpc.health.v1.Health/Check",
                (length, sent),
            );
        }
    }
    Ok(())
}

/// Messages of the methods that take large ones.
pub fn large(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for (role, path, length) in [
        (Role::Replay, "/landmarl.v1.Replay/Insert", 1 << 20),
        (
            Role::Replay,
            "/landmarl.v1.Replay/UpdatePriorities",
            1 << 17,
        ),
        (Role::Learner, "/landmarl.v1.Learner/Join", 8 << 20),
        (Role::Learner, "/landmarl.v1.Learner/EvaluatorBeat", 8 << 20),
        (Role::Learner, "/landmarl.v1.Learner/KeepBest", 1 << 20),
    ] {
        let port = arena.port(role, Protocol::Grpc)?;
        for number in 0..CONNECTIONS {
            let sent = if number % 2 == 0 { SENT } else { FRAME };
            half_sent(arena, tasks, port, path, (length, sent.min(length - 1)));
        }
    }
    Ok(())
}

/// As many calls as one connection may have, each of which announces a length and sends less.
fn half_sent(
    arena: &Arc<Arena>,
    tasks: &mut Tasks,
    port: Port,
    path: &'static str,
    (length, sent): (usize, usize),
) {
    let arena = Arc::clone(arena);
    tasks.spawn(async move {
        let body = announced(length, vec![7; sent]);
        loop {
            let with = arena.credentials.as_ref();
            if let Ok(session) = Session::open(arena.host(0), port, with).await {
                arena.count("connections");
                let mut session = match path.starts_with("/grpc.health") {
                    true => session.without_token(),
                    false => session,
                };
                for _ in 0..CALLS {
                    if !session.call(path, &body, false).await {
                        break;
                    }
                    arena.count("calls");
                }
                session.until_closed().await;
            }
            sleep(PAUSE).await;
        }
    });
}

/// Whole requests to join whose texts are as long as they may be, or far longer.
pub fn long_names(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    let port = arena.port(Role::Learner, Protocol::Grpc)?;
    for number in 0..CONNECTIONS {
        let host = match number % 3 {
            0 => 250,
            1 => 64 << 10,
            _ => 1 << 20,
        };
        let request = JoinRequest {
            hello: arena.hello.clone(),
            slots: 4,
            host: "h".repeat(host),
            manifest_json: vec![b' '; if host > 250 { 0 } else { 1 << 20 }].into(),
            config_json: vec![b'['; if host > 250 { 0 } else { 200 << 10 }].into(),
        };
        let body = message(&wire::JoinRequest::from(request));
        let arena = Arc::clone(arena);
        tasks.spawn(async move {
            loop {
                let with = arena.credentials.as_ref();
                if let Ok(mut session) = Session::open(arena.host(0), port, with).await {
                    arena.count("connections");
                    let mut calls = 0;
                    while session.call("/landmarl.v1.Learner/Join", &body, true).await {
                        arena.count("calls");
                        calls += 1;
                        if calls % UNANSWERED == 0 {
                            let read = session.read(Duration::from_secs(1)).await;
                            if !matches!(read, Ok(1..)) {
                                break;
                            }
                        }
                    }
                }
                sleep(PAUSE / 10).await;
            }
        });
    }
    Ok(())
}
