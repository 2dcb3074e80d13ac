//! Shards that keep their rows, stopped and started again in this process.

use crate::client::{SHAPE, Shard, batch, durable, hello, priority, request};
use proto::messages::hello::Hello;
use replay_server::{JournalConfig, ShardConfig};
use std::path::Path;
use std::time::Duration;

const CAPACITY: usize = 1000;

fn config(folder: &Path, incarnation: u64) -> ShardConfig {
    ShardConfig {
        incarnation,
        capacity: CAPACITY,
        journal: Some(JournalConfig::new(folder)),
        ..Default::default()
    }
}

fn another_run() -> Hello {
    Hello {
        run_id: "another".into(),
        ..hello()
    }
}

#[tokio::test]
async fn a_restart_has_rows_priorities_draws_and_writers_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Shard::start(config(folder.path(), 5)).await;
    let alone = Shard::start(ShardConfig {
        journal: None,
        ..config(folder.path(), 5)
    })
    .await;
    for shard in [&kept, &alone] {
        let incarnation = shard.grant(500).await;
        let (mut stream, first) = shard.open(1).await;
        assert_eq!(first.acked, 0);
        for i in 0..10 {
            assert_eq!(stream.insert(batch(i + 1, 30 * i as u32, 30)).await, i + 1);
        }
        let priorities = (0..200).map(|slot| priority(slot, 0, slot as f32 / 20.0));
        let updated = shard.update(incarnation, priorities.collect()).await;
        assert_eq!(updated.unwrap().applied, 200);
        shard.sample(64).await;
    }
    kept.stop().await.unwrap();
    let kept = Shard::start(config(folder.path(), 4)).await;
    // Above the previous incarnation, whatever the clock.
    assert_eq!(kept.grant(100).await, 6);
    let status = kept.status().await;
    assert_eq!((status.summary().rows, status.next_row), (300, 300));
    assert_eq!(status.journal.as_ref().unwrap().durable, 300);
    let expected = alone.status().await.summary().priority_sum;
    assert_eq!(status.summary().priority_sum, expected);
    // Sampling continues at the same random numbers, over the same priorities.
    let (a, b) = (kept.sample(256).await, alone.sample(256).await);
    assert_eq!(a.packed, b.packed);
    assert_eq!(a.probabilities, b.probabilities);
    // A batch sent again, because its acknowledgement was lost.
    let (mut stream, first) = kept.open(1).await;
    assert_eq!(first.acked, 10);
    assert_eq!(stream.insert(batch(10, 270, 30)).await, 10);
    assert_eq!(stream.insert(batch(11, 300, 30)).await, 11);
    let status = kept.status().await;
    assert_eq!((status.summary().rows, status.duplicates), (330, 1));
    kept.stop().await.unwrap();
    alone.stop().await.unwrap();
}

#[tokio::test]
async fn durable_acknowledgements_are_given_once_rows_are_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let slow = JournalConfig {
        sync_every: Duration::from_secs(3600),
        ..JournalConfig::new(folder.path())
    };
    let shard = Shard::start(ShardConfig {
        journal: Some(slow),
        ..config(folder.path(), 5)
    })
    .await;
    shard.grant(500).await;
    let (mut memory, _) = shard.open(1).await;
    assert_eq!(memory.insert(batch(1, 0, 10)).await, 1);
    let status = shard.until(|s| s.unacknowledged == 0).await;
    assert_eq!(status.insert_streams, 1);
    let journal = status.journal.unwrap();
    assert_eq!(journal.durable, 0, "in memory only");
    assert_eq!(journal.queued_bytes, 10 * SHAPE.bytes() as u64);
    let (mut stream, first) = shard.try_open(durable(2)).await.unwrap();
    assert_eq!(first.acked, 0);
    assert_eq!(stream.insert(batch(1, 10, 10)).await, 1);
    let journal = shard.status().await.journal.unwrap();
    assert_eq!(journal.durable, 20, "earlier rows are there too");
    assert!(journal.commits >= 1 && journal.bytes > 0 && journal.failing.is_none());
    assert_eq!(journal.queued_bytes, 0);
    assert_eq!(journal.queued_bytes_max, 32 << 20);
    shard.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_journal_durable_is_refused_with_a_remedy() {
    let shard = Shard::with_credit(10).await;
    let error = shard.try_open(durable(1)).await.err().unwrap();
    assert!(error.message().contains("--journal"), "{error}");
    shard.stop().await.unwrap();
}

#[tokio::test]
async fn a_foreign_journal_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let shard = Shard::start(config(folder.path(), 5)).await;
    shard.grant(500).await;
    let (mut stream, _) = shard.open(1).await;
    stream.insert(batch(1, 0, 10)).await;
    shard.stop().await.unwrap();
    let first = Shard::start(config(folder.path(), 6)).await;
    first.until(|s| s.summary().rows == 10).await;
    let second = Shard::start(config(folder.path(), 7)).await.ended().await;
    let error = second.unwrap_err().to_string();
    assert!(error.contains("is in use by another shard"), "{error}");
    first.stop().await.unwrap();
    let number = ShardConfig {
        shard: 4,
        ..config(folder.path(), 6)
    };
    let run = ShardConfig {
        hello: Some(another_run()),
        ..config(folder.path(), 6)
    };
    for (config, text) in [(number, "of shard 0, not of shard 4"), (run, "\"another\"")] {
        let error = Shard::start(config).await.ended().await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    let shard = Shard::start(config(folder.path(), 6)).await;
    assert_eq!(shard.status().await.summary().rows, 10);
    shard.stop().await.unwrap();
}

/// Folders that each format wrote, priorities included. `LANDMARL_REGEN=1` regenerates the
/// newest; a new format gets a folder of its own.
#[tokio::test]
async fn journals_of_all_formats_open() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    if std::env::var_os("LANDMARL_REGEN").is_some() {
        let newest = data.join("journal-v2");
        let shard = Shard::start(config(&newest, 5)).await;
        let incarnation = shard.grant(500).await;
        let (mut stream, _) = shard.open(1).await;
        for i in 0..4 {
            stream.insert(batch(i + 1, 5 * i as u32, 5)).await;
        }
        let priorities = (0..10).map(|slot| priority(slot, 0, slot as f32));
        let updated = shard.update(incarnation, priorities.collect()).await;
        updated.unwrap();
        shard.stop().await.unwrap();
        std::fs::remove_file(newest.join("lock")).unwrap();
    }
    for format in ["journal-v1", "journal-v2"] {
        opens(&data.join(format)).await;
    }
}

async fn opens(kept: &Path) {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(kept).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let shard = Shard::start(config(folder.path(), 6)).await;
    let status = shard.status().await;
    assert_eq!(status.summary().rows, 20, "{}", kept.display());
    assert_eq!(status.run_id.as_deref(), Some("test"));
    // (min(|TD|, 10) + 0.01)^0.6: |TD| 0 to 9, then ten rows with the inserted |TD| of 1.
    let weight = |td: f64| (td + 0.01).powf(0.6);
    let expected = (0..10).map(|td| weight(f64::from(td))).sum::<f64>() + 10.0 * weight(1.0);
    let found = status.summary().priority_sum;
    assert!((found - expected).abs() < 1e-9 * expected, "{found}");
    let (mut stream, first) = shard.open(1).await;
    assert_eq!(first.acked, 4);
    // It continues in the newest format.
    shard.grant(500).await;
    stream.insert(batch(5, 20, 5)).await;
    shard.stop().await.unwrap();
    let found = replay_server::journal::verify::verify(folder.path()).unwrap();
    assert!(found.is_sound(), "{}", found.as_text());
    assert_eq!(found.as_json()["rows"], 25);
}

/// Its removal failed, or the machine stopped before it.
#[tokio::test]
async fn a_stale_segment_is_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let small = |incarnation| ShardConfig {
        capacity: 100,
        journal: Some(JournalConfig {
            segment_bytes: 4000,
            ..JournalConfig::new(folder.path())
        }),
        ..config(folder.path(), incarnation)
    };
    let first = folder.path().join(format!("{:020}.rows", 0));
    let shard = Shard::start(small(5)).await;
    shard.grant(2000).await;
    let (mut stream, _) = shard.try_open(durable(1)).await.unwrap();
    stream.insert(batch(1, 0, 50)).await;
    let kept = std::fs::read(&first).unwrap();
    for i in 1..20 {
        stream.insert(batch(i + 1, 50 * i as u32, 50)).await;
    }
    shard.stop().await.unwrap();
    assert!(!first.exists(), "a stop leaves nothing to remove");
    std::fs::write(&first, kept).unwrap();
    let found = replay_server::journal::verify::verify(folder.path()).unwrap();
    assert!(found.is_sound(), "{}", found.as_text());
    assert_eq!(found.as_json()["stale_segments"], 1);
    let shard = Shard::start(small(6)).await;
    let status = shard.status().await;
    assert_eq!((status.summary().rows, status.next_row), (100, 1000));
    shard.stop().await.unwrap();
    assert!(!first.exists());
}

/// The error for a client of another run names the folder of the conflicting rows.
#[tokio::test]
async fn the_refusal_of_another_run_names_the_folder_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let shard = Shard::start(config(folder.path(), 5)).await;
    shard.grant(500).await;
    let mut other = request(0, 0, 0);
    other.hello = another_run();
    // Without rows the journal does not decide the run.
    let error = shard.try_sample(other.clone()).await.unwrap_err();
    assert!(!error.message().contains("--journal"), "{error}");
    let (mut stream, _) = shard.open(1).await;
    stream.insert(batch(1, 0, 10)).await;
    shard.stop().await.unwrap();
    let shard = Shard::start(config(folder.path(), 6)).await;
    let error = shard.try_sample(other).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    let path = folder.path().display().to_string();
    for part in [
        "\"another\"",
        &path,
        "restarting it does not help",
        "--journal",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    shard.stop().await.unwrap();
}
