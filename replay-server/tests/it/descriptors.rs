//! A shard that may open few files: however many connections others open, its journal and its
//! other clients have what they need.

#![cfg(target_os = "linux")]

use crate::client::{batch, durable};
use crate::process::{Server, output, stderr};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// A connection from another address of this machine, which sends these bytes.
pub async fn from_elsewhere(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(server).await.unwrap();
    // The server may have closed it.
    let _ = stream.write_all(bytes).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_take_no_files_from_the_journal_and_no_places_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("shard").display().to_string();
    let args = [
        "--capacity",
        "40000",
        "--segment-mb",
        "1",
        "--journal",
        &journal,
    ];
    let Some(server) = Server::with_files(256, 256, &args) else {
        return;
    };
    server.logged("few files may be open|\"files\":256");
    let address = server.address.parse().unwrap();
    let mut idle = Vec::new();
    for preface in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        for _ in 0..300 {
            idle.push(from_elsewhere(address, preface).await);
        }
    }
    server.logged("connection refused|127.0.0.2|too many connections");
    server.logged("connection refused|127.0.0.2|newer connections needed its place");
    let client = server.client();
    client.grant(1 << 40).await;
    // Three segments.
    let (mut stream, _) = client.try_open(durable(1)).await.unwrap();
    for i in 0..40 {
        stream.send(batch(i + 1, 1000 * i as u32, 1000)).await;
        while stream.reply().await.unwrap().acked < i + 1 {}
    }
    assert!(server.status()["journal"]["segments"].as_u64() >= Some(3));
    let saved = output(&["snapshot", "--address", &server.address]);
    assert!(saved.status.success(), "{}", stderr(&saved));
    let health = output(&["health", "--address", &server.address]);
    assert!(health.status.success(), "{}", stderr(&health));
    drop(idle);
}

#[test]
fn the_soft_limit_on_open_files_is_raised_at_the_start() {
    let Some(server) = Server::with_files(64, 4096, &["--capacity", "100"]) else {
        return;
    };
    let limits = server.kernel("limits", "Max open files");
    let numbers: Vec<_> = limits.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["4096", "4096"]);
}
