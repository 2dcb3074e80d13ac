//! A disk that is really full: a small file system of its own, where the tests
//! may mount one.

use crate::client::{SHAPE, batch, hello, open};
use crate::process::{Server, output};
use proto::messages::insert::{AckLevel, InsertOpen, InsertReply};
use proto::messages::sample::SampleRequest;
use proto::transport::channel;
use proto::wire;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A file system of two megabytes, unmounted on drop.
struct Small(tempfile::TempDir);

impl Small {
    #[expect(clippy::print_stdout, reason = "skipped tests say so")]
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: a_full_disk_blocks_inserts_until_there_is_room: no right to mount");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn status(address: &str) -> serde_json::Value {
    let output = output(&["status", "--address", address, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the status is as wanted.
async fn until(address: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let status = status(address);
        if wanted(&status) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// 64 batches of 100 rows of 80 bytes: half a megabyte, on a disk with a fifth of one.
async fn too_much() -> (
    mpsc::Sender<wire::InsertRequest>,
    mpsc::Receiver<wire::InsertRequest>,
) {
    let (requests, receiver) = mpsc::channel(100);
    let first = InsertOpen {
        ack: AckLevel::Durable,
        ..open(1)
    };
    requests.send(first.into()).await.unwrap();
    for i in 0..64 {
        let batch = batch(i + 1, 100 * i as u32, 100);
        requests.send(batch.into()).await.unwrap();
    }
    (requests, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_blocks_inserts_until_there_is_room() {
    let Some(disk) = Small::mount() else {
        return;
    };
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 1_800_000]).unwrap();
    let kept = disk.path().join("shard");
    let server = Server::keeping(&kept, 20_000);
    let mut client = channel::replay_client(channel::connect_lazy(&server.address).unwrap());
    let draw = |rows, shard_incarnation| SampleRequest {
        hello: hello(),
        rows,
        insert_limit: 1 << 40,
        shard_incarnation,
    };
    let ask = |request: SampleRequest| wire::SampleRequest::from(request);
    let reply = client.sample(ask(draw(0, 0))).await.unwrap().into_inner();
    let incarnation = reply.summary.unwrap().shard_incarnation;
    client.sample(ask(draw(0, incarnation))).await.unwrap();
    let (_requests, receiver) = too_much().await;
    let replies = client.insert(ReceiverStream::new(receiver)).await.unwrap();
    let mut replies = replies.into_inner();
    let stuck = until(&server.address, |s| !s["journal"]["failing"].is_null()).await;
    let why = stuck["journal"]["failing"].as_str().unwrap();
    assert!(
        why.contains("No space left") && why.contains("free some space"),
        "{why}"
    );
    // Sampling continues, and health does not depend on the disk.
    let drawn = client
        .sample(ask(draw(64, incarnation)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(drawn.rows.len(), 64 * SHAPE.bytes());
    assert!(
        output(&["health", "--address", &server.address])
            .status
            .success()
    );
    std::fs::remove_file(&filler).unwrap();
    let mut acked = 0;
    while acked < 64 {
        let reply = tokio::time::timeout(Duration::from_secs(20), replies.message());
        let reply = reply
            .await
            .expect("acknowledgements go on")
            .unwrap()
            .unwrap();
        acked = InsertReply::try_from(reply).unwrap().acked;
    }
    let done = until(&server.address, |s| s["journal"]["failing"].is_null()).await;
    assert_eq!(done["journal"]["durable"], 6400);
    drop(server);
    let verified = output(&["verify", kept.to_str().unwrap(), "--json"]);
    let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(
        (&verified["rows"], &verified["sound"]),
        (&6400.into(), &true.into()),
        "{verified}"
    );
}
