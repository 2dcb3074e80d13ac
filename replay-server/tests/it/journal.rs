//! Shards that keep their rows, stopped and started again in this process.

use crate::client::{SHAPE, Shard, batch, hello, open};
use proto::messages::insert::{AckLevel, InsertOpen};
use proto::messages::sample::SampleRequest;
use proto::messages::update::SlotPriority;
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

/// The incarnation that the shard gave itself, and credit for it.
async fn credit(shard: &Shard, insert_limit: u64) -> u64 {
    let request = |shard_incarnation| SampleRequest {
        hello: hello(),
        rows: 0,
        insert_limit,
        shard_incarnation,
    };
    let summary = shard.sample_as(request(0)).await.unwrap().summary;
    shard
        .sample_as(request(summary.shard_incarnation))
        .await
        .unwrap();
    summary.shard_incarnation
}

fn durable(actor: u16) -> InsertOpen {
    InsertOpen {
        ack: AckLevel::Durable,
        ..open(actor)
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
        let incarnation = credit(shard, 500).await;
        let (mut stream, first) = shard.open(1).await;
        assert_eq!(first.acked, 0);
        for i in 0..10 {
            assert_eq!(stream.insert(batch(i + 1, 30 * i as u32, 30)).await, i + 1);
        }
        let priorities = (0..200).map(|slot| SlotPriority {
            slot,
            generation: 0,
            td_error: slot as f32 / 20.0,
        });
        let updated = shard
            .update(incarnation, priorities.collect())
            .await
            .unwrap();
        assert_eq!(updated.applied, 200);
        shard.sample(64).await;
    }
    kept.stop().await.unwrap();
    let kept = Shard::start(config(folder.path(), 4)).await;
    let incarnation = credit(&kept, 100).await;
    assert_eq!(
        incarnation, 6,
        "above the previous incarnation, whatever the clock says"
    );
    let status = kept.status().await;
    assert_eq!((status.summary().rows, status.next_row), (300, 300));
    assert_eq!(status.journal.as_ref().unwrap().durable, 300);
    assert_eq!(status.summary().mass, alone.status().await.summary().mass);
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
    let patient = JournalConfig {
        sync_every: Duration::from_secs(3600),
        ..JournalConfig::new(folder.path())
    };
    let shard = Shard::start(ShardConfig {
        journal: Some(patient),
        ..config(folder.path(), 5)
    })
    .await;
    credit(&shard, 500).await;
    let (mut memory, _) = shard.open(1).await;
    assert_eq!(memory.insert(batch(1, 0, 10)).await, 1);
    let status = shard.until(|s| s.unacknowledged == 0).await;
    assert_eq!(status.insert_streams, 1);
    let journal = status.journal.unwrap();
    assert_eq!(journal.durable, 0, "in memory only");
    assert_eq!(journal.queued_bytes, 10 * SHAPE.bytes() as u64);
    let mut stream = shard.stream().await;
    stream.send(durable(2)).await;
    assert_eq!(stream.reply().await.unwrap().acked, 0);
    assert_eq!(stream.insert(batch(1, 10, 10)).await, 1);
    let journal = shard.status().await.journal.unwrap();
    assert_eq!(journal.durable, 20, "whoever came before is there too");
    assert!(journal.commits >= 1 && journal.bytes > 0 && journal.failing.is_none());
    assert_eq!(
        (journal.queued_bytes, journal.queued_bytes_max),
        (0, 32 << 20)
    );
    shard.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_journal_durable_is_refused_with_what_to_do() {
    let shard = Shard::with_credit(10).await;
    let mut stream = shard.stream().await;
    stream.send(durable(1)).await;
    let error = stream.reply().await.unwrap_err();
    assert!(error.message().contains("--journal"), "{error}");
    shard.stop().await.unwrap();
}

#[tokio::test]
async fn anothers_journal_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let shard = Shard::start(config(folder.path(), 5)).await;
    credit(&shard, 500).await;
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
    let error = Shard::start(number).await.ended().await.unwrap_err();
    assert!(
        error.to_string().contains("of shard 0, not of shard 4"),
        "{error}"
    );
    let run = ShardConfig {
        hello: Some(proto::messages::hello::Hello {
            run_id: "another".into(),
            ..hello()
        }),
        ..config(folder.path(), 6)
    };
    let error = Shard::start(run).await.ended().await.unwrap_err();
    assert!(error.to_string().contains("\"another\""), "{error}");
    let shard = Shard::start(config(folder.path(), 6)).await;
    assert_eq!(shard.status().await.summary().rows, 10);
    shard.stop().await.unwrap();
}

/// A folder that format 1 wrote, priorities included. `LANDMARL_REGEN=1`
/// regenerates it; a new format gets a folder of its own.
#[tokio::test]
async fn yesterdays_journal_opens() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-v1");
    if std::env::var_os("LANDMARL_REGEN").is_some() {
        let shard = Shard::start(config(&kept, 5)).await;
        let incarnation = credit(&shard, 500).await;
        let (mut stream, _) = shard.open(1).await;
        for i in 0..4 {
            stream.insert(batch(i + 1, 5 * i as u32, 5)).await;
        }
        let priorities = (0..10).map(|slot| SlotPriority {
            slot,
            generation: 0,
            td_error: slot as f32,
        });
        shard
            .update(incarnation, priorities.collect())
            .await
            .unwrap();
        shard.stop().await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&kept).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let shard = Shard::start(config(folder.path(), 6)).await;
    let status = shard.status().await;
    assert_eq!(status.summary().rows, 20);
    assert_eq!(status.run_id.as_deref(), Some("test"));
    // (min(|TD|, 10) + 0.01)^0.6: |TD| 0 to 9, then ten rows with the inserted |TD| of 1.
    let weight = |td: f64| (td + 0.01).powf(0.6);
    let mass = (0..10).map(|td| weight(f64::from(td))).sum::<f64>() + 10.0 * weight(1.0);
    assert!(
        (status.summary().mass - mass).abs() < 1e-9 * mass,
        "{}",
        status.summary().mass
    );
    let (_, first) = shard.open(1).await;
    assert_eq!(first.acked, 4);
    shard.stop().await.unwrap();
}

/// Its removal failed, or the machine stopped before it.
#[tokio::test]
async fn a_segment_that_should_be_gone_goes_at_the_next_start() {
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
    credit(&shard, 2000).await;
    let mut stream = shard.stream().await;
    stream.send(durable(1)).await;
    stream.reply().await.unwrap();
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
async fn rows_of_another_run_are_named_with_their_folder_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let shard = Shard::start(config(folder.path(), 5)).await;
    credit(&shard, 500).await;
    let other = || SampleRequest {
        hello: proto::messages::hello::Hello {
            run_id: "another".into(),
            ..hello()
        },
        rows: 0,
        insert_limit: 0,
        shard_incarnation: 0,
    };
    let error = shard.sample_as(other()).await.unwrap_err();
    assert!(
        !error.message().contains("--journal"),
        "no rows yet: {error}"
    );
    let (mut stream, _) = shard.open(1).await;
    stream.insert(batch(1, 0, 10)).await;
    shard.stop().await.unwrap();
    let shard = Shard::start(config(folder.path(), 6)).await;
    let error = shard.sample_as(other()).await.unwrap_err();
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
