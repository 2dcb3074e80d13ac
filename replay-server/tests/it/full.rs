//! A disk that is really full: a small file system of its own, where the tests
//! may mount one.

use crate::client::{SHAPE, batch, durable};
use crate::process::{Server, output};
use std::path::Path;
use std::process::Command;

/// A file system of two megabytes, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    #[expect(clippy::print_stdout, reason = "a skipped test reports it")]
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

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_blocks_inserts_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 1_800_000]).unwrap();
    let kept = disk.path().join("shard");
    let server = Server::keeping(&kept, 20_000);
    let client = server.client();
    client.grant(1 << 40).await;
    // 64 batches of 100 rows of 80 bytes: half a megabyte, on a disk with a fifth of one.
    let (mut stream, _) = client.try_open(durable(1)).await.unwrap();
    for i in 0..64 {
        stream.send(batch(i + 1, 100 * i as u32, 100)).await;
    }
    client
        .until(|s| s.journal.as_ref().is_some_and(|j| j.failing.is_some()))
        .await;
    let stuck = server.status();
    let why = stuck["journal"]["failing"].as_str().unwrap();
    for part in ["No space left", "free some space"] {
        assert!(why.contains(part), "{why}");
    }
    // Sampling continues, and health does not depend on the disk.
    assert_eq!(client.sample(64).await.packed.len(), 64 * SHAPE.bytes());
    let health = output(&["health", "--address", &server.address]);
    assert!(health.status.success());
    std::fs::remove_file(&filler).unwrap();
    while stream.reply().await.unwrap().acked < 64 {}
    client
        .until(|s| s.journal.as_ref().is_some_and(|j| j.failing.is_none()))
        .await;
    assert_eq!(server.status()["journal"]["durable"], 6400);
    drop(server);
    let verified = output(&["verify", kept.to_str().unwrap(), "--json"]);
    let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(
        (&verified["rows"], &verified["sound"]),
        (&6400.into(), &true.into()),
        "{verified}"
    );
}
