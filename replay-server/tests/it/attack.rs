//! The built binary under several attacks at once, with an honest client beside them.

#![cfg(target_os = "linux")]

use crate::descriptors::from_elsewhere;
use crate::process::{Server, output, stderr};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a call without a token, as literals of HPACK.
fn head(path: &str) -> Vec<u8> {
    // POST, http, and names of the static table: authority, path, content-type.
    let mut block = vec![0x83, 0x86, 1, 1, b'x', 4, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x0f, 0x10, 16]);
    block.extend(b"application/grpc\0\x02te\x08trailers");
    block
}

/// Begins as many calls as a connection may have, and sends some of a message that is announced
/// with this length.
async fn half_sent(server: SocketAddr, path: &str, announced: u32, sent: usize) -> TcpStream {
    let mut stream = from_elsewhere(server, PREFACE).await;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream.read_exact(&mut [0; 9]).await.unwrap();
    let acknowledged = 1;
    stream
        .write_all(&frame(SETTINGS, acknowledged, 0, &[]))
        .await
        .unwrap();
    let end_headers = 4;
    let mut message = vec![0];
    message.extend(announced.to_be_bytes());
    message.resize(5 + sent, 7);
    for call in 0..100 {
        let id = 2 * call + 1;
        let mut frames = frame(HEADERS, end_headers, id, &head(path));
        for part in message.chunks(1 << 14) {
            frames.extend(frame(DATA, 0, id, part));
        }
        // What the windows do not take is lost, and the server may end the connection.
        let write = stream.write_all(&frames);
        let written = tokio::time::timeout(Duration::from_millis(200), write).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    stream
}

/// Resident memory in KiB.
fn resident(server: &Server) -> u64 {
    let line = server.kernel("status", "VmRSS:");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_messages_and_idle_connections_leave_memory_and_honest_calls_alone() {
    let server = Server::serve(&["--capacity", "1000"]);
    let address: SocketAddr = server.address.parse().unwrap();
    let client = server.client();
    client.status().await;
    let before = resident(&server);
    let mut attack = Vec::new();
    for _ in 0..4 {
        for (path, announced, sent) in [
            ("/grpc.health.v1.Health/Check", 4 << 20, 250_000),
            ("/grpc.health.v1.Health/Check", 4096, 4000),
            ("/landmarl.v1.Replay/UpdatePriorities", 1 << 20, 250_000),
            ("/landmarl.v1.Replay/Insert", 4 << 20, 250_000),
        ] {
            attack.push(half_sent(address, path, announced, sent).await);
        }
        for _ in 0..200 {
            attack.push(from_elsewhere(address, &PREFACE[..1]).await);
        }
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begun = Instant::now();
        client.status().await;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health = output(&["health", "--address", &server.address]);
    assert!(health.status.success(), "{}", stderr(&health));
    let grown = resident(&server).saturating_sub(before);
    // Of some 400 MB that were sent.
    assert!(grown < 64 << 10, "{grown} KiB");
    // Generous, because other tests run beside this one.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    drop(attack);
}
