//! Requests over HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::{Arena, PAUSE, Tasks};
use crate::net::{self, Port, Protocol, Stream, until_closed};

/// Connections to each port: all that it serves.
const CONNECTIONS: usize = 256;
/// Requests on a connection that reads no answer.
const REQUESTS: usize = 500;
/// A path that only those may read whom the service knows.
const CHECKPOINT: &str = "/checkpoints/last.safetensors";

/// A level without its body on many connections, and one with a host of others, which has to be
/// refused.
pub fn bodies(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for port in arena.of(Protocol::Http) {
        for _ in 0..CONNECTIONS {
            let arena = Arc::clone(arena);
            tasks.spawn(async move {
                let head = format!(
                    "PUT /log-level HTTP/1.1\r\nHost: {}\r\nContent-Length: 4000\r\n\r\ninfo",
                    port.address
                );
                loop {
                    if let Ok(mut stream) = arena.http(0, port).await {
                        arena.count("connections");
                        let _ = stream.write_all(head.as_bytes()).await;
                        until_closed(&mut stream).await;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        for (host, origin) in [
            ("evil.example", ""),
            ("evil.example", "evil.example"),
            ("", "evil.example"),
        ] {
            let arena = Arc::clone(arena);
            tasks.spawn(async move {
                loop {
                    match arena.foreign(port, host, origin).await {
                        Ok(answer) if answer.contains(" 403 ") => arena.count("foreign refused"),
                        // No answer sets no level.
                        Ok(answer) if answer.is_empty() => arena.count("no answer"),
                        Err(_) => arena.count("no answer"),
                        Ok(_) => arena.count("wrong: foreign accepted"),
                    }
                    sleep(PAUSE / 10).await;
                }
            });
        }
    }
    Ok(())
}

/// Checkpoints and metrics that nobody reads.
pub fn unread(arena: &Arc<Arena>, tasks: &mut Tasks) -> Result<()> {
    for port in arena.of(Protocol::Http) {
        for number in 0..CONNECTIONS {
            let arena = Arc::clone(arena);
            let path = if number % 2 == 0 {
                CHECKPOINT
            } else {
                "/metrics"
            };
            tasks.spawn(async move {
                let token = arena.credentials.as_ref().map(|with| &with.token);
                let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
                let authorization = authorization.unwrap_or_default();
                let host = port.address;
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
                loop {
                    if let Ok(mut stream) = arena.http(0, port).await {
                        arena.count("connections");
                        let requests = request.repeat(REQUESTS);
                        let _ = stream.write_all(requests.as_bytes()).await;
                        // Fails once the service has closed the connection.
                        while stream.write_all(request.as_bytes()).await.is_ok() {
                            sleep(PAUSE).await;
                        }
                        arena.count("closed");
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
    Ok(())
}

impl Arena {
    async fn http(&self, number: usize, port: Port) -> Result<Stream> {
        let host: IpAddr = self.host(number);
        net::open(host, port, self.credentials.as_ref()).await
    }

    /// Sets a level as a page of another host would; returns how the answer begins.
    async fn foreign(&self, port: Port, host: &str, origin: &str) -> Result<String> {
        let mut stream = self.http(0, port).await?;
        let own = port.address.to_string();
        let host = if host.is_empty() { &own } else { host };
        let origin = match origin {
            "" => String::new(),
            origin => format!("Origin: http://{origin}\r\n"),
        };
        let request = format!(
            "PUT /log-level HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 4\r\n\r\nwarn"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }
}
