//! Requests that are never whole, to a real server.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::body::tests::{Script, begun};
use super::*;
use crate::transport::endpoint::endpoint;
use crate::transport::security::Security;
use crate::transport::security::tests::Server;

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A call that has sent these bytes: its response once it comes, and the end that keeps it open.
fn call(
    channel: &Channel,
    path: &str,
    bytes: Bytes,
) -> (
    tokio::task::JoinHandle<http::Response<Body>>,
    mpsc::UnboundedSender<Bytes>,
) {
    let (send, receive) = mpsc::unbounded_channel();
    send.send(bytes).unwrap();
    let request = http::Request::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Script(receive)))
        .unwrap();
    let mut channel = channel.clone();
    let response = tokio::spawn(async move {
        poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
        channel.call(request).await.unwrap()
    });
    (response, send)
}

#[tokio::test]
async fn half_sent_messages_beyond_the_limit_end_at_once_and_others_leave_room() {
    let server = Server::start(Security::none()).await;
    let channel = endpoint(&server.address, "http").unwrap().connect_lazy();
    // Without a token, and for an actor: half of four megabytes, many times.
    let mut large = Vec::new();
    for path in [HEALTH, "/landmarl.v1.Replay/Status"] {
        for _ in 0..50 {
            large.push(call(&channel, path, begun(4 << 20, 60_000)));
        }
    }
    for (response, _open) in large {
        let response = timeout(Duration::from_secs(5), response).await;
        let response = response.unwrap().unwrap();
        let status = response.headers().get("grpc-status");
        // Out of range, or not served here.
        assert!(
            status.is_some_and(|s| s == "11" || s == "12"),
            "{response:?}"
        );
    }
    // More than one address may have: those that are small stay until others need the room.
    let mut small = Vec::new();
    let more = endpoint(&server.address, "http").unwrap().connect_lazy();
    let third = endpoint(&server.address, "http").unwrap().connect_lazy();
    for channel in [&channel, &more, &third] {
        for _ in 0..100 {
            small.push(call(channel, HEALTH, begun(1000, 500)));
        }
    }
    for _ in 0..20 {
        server.check(&Security::none()).await.unwrap();
    }
    let ended = small.iter().filter(|(response, _)| response.is_finished());
    assert!(ended.count() >= 300 - 256);
    drop(small);
    server.stop().await;
}
