//! Connections that say too little or nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::{Arena, CONNECTIONS, PAUSE, Tasks};
use crate::http2::{PREFACE, Session};
use crate::net::{self, Port, Protocol, until_closed};

/// Of each port, of clients that begin with plain text.
const NON_HANDSHAKES_PER_S: u32 = 250;

/// One byte, then silence.
pub fn one_byte(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    silent(arena, tasks, |port, _| match port.protocol {
        Protocol::Grpc => PREFACE[..1].to_vec(),
        Protocol::Http => b"G".to_vec(),
    });
    Ok(())
}

/// A part of what every client sends first, then silence.
pub fn half_preface(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    silent(arena, tasks, |port, _| match port.protocol {
        Protocol::Grpc => PREFACE[..16].to_vec(),
        Protocol::Http => b"GET /health HTTP/1.1\r\nHo".to_vec(),
    });
    Ok(())
}

/// Half of a handshake's first message, or all of it, then silence.
pub fn half_handshakes(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    let credentials = arena.credentials.as_ref();
    let credentials = credentials.context("this cluster has no TLS")?;
    let mut hellos = Vec::new();
    for port in &arena.ports {
        hellos.push((port.address, credentials.client_hello(*port)?));
    }
    silent(arena, tasks, move |port, number| {
        let hello = hellos.iter().find(|(address, _)| *address == port.address);
        let hello = hello.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let sent = if number % 2 == 0 {
            hello.len() / 2
        } else {
            hello.len()
        };
        hello[..sent].to_vec()
    });
    Ok(())
}

/// Many connections to each port, each of which says `first` and is then silent until it is
/// closed; then it comes again.
fn silent(arena: &Arc<Arena>, tasks: &mut Tasks, first: impl Fn(Port, usize) -> Vec<u8>) {
    for port in &arena.ports {
        for number in 0..CONNECTIONS {
            let (arena, port, first) = (Arc::clone(arena), *port, first(*port, number));
            tasks.spawn(async move {
                loop {
                    match net::tcp(arena.host(number), port.address).await {
                        Ok(mut stream) => {
                            arena.count("connections");
                            let _ = stream.write_all(&first).await;
                            until_closed(&mut stream).await;
                            arena.count("closed");
                        }
                        Err(_) => arena.count("not connected"),
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
}

/// Connections that are whole, with all that HTTP/2 begins with, and are then idle; of HTTP, after
/// one request.
pub fn idle(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for port in &arena.ports {
        for number in 0..CONNECTIONS {
            let (arena, port) = (Arc::clone(arena), *port);
            tasks.spawn(async move {
                loop {
                    let host = arena.host(number);
                    match port.protocol {
                        Protocol::Grpc => {
                            if let Ok(mut session) = Session::open(host, port, None).await {
                                arena.count("connections");
                                session.until_closed().await;
                                arena.count("closed");
                            }
                        }
                        Protocol::Http => {
                            let request =
                                format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", port.address);
                            if let Ok(mut stream) = net::tcp(host, port.address).await {
                                arena.count("connections");
                                let _ = stream.write_all(request.as_bytes()).await;
                                until_closed(&mut stream).await;
                                arena.count("closed");
                            }
                        }
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
    Ok(())
}

/// Hundreds of connections a second that speak plain text to a port with TLS.
pub fn non_handshakes(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for port in &arena.ports {
        let (arena, port) = (Arc::clone(arena), *port);
        tasks.spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_secs(1) / NON_HANDSHAKES_PER_S);
            let mut open = Tasks::new();
            loop {
                turns.tick().await;
                while open.try_join_next().is_some() {}
                let arena = Arc::clone(&arena);
                open.spawn(async move {
                    if let Ok(mut stream) = net::tcp(arena.host(0), port.address).await {
                        arena.count("connections");
                        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
                        until_closed(&mut stream).await;
                        arena.count("closed");
                    }
                });
            }
        });
    }
    Ok(())
}
