//! Writers: acknowledgements, repeats, gaps, credit.

use crate::client::{INCARNATION, Shard, batch};
use proto::messages::insert::{INSERT_WINDOW, InsertReply};
use proto::transport::health;
use proto::transport::security::{Role, Security};
use replay_server::ShardConfig;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_shard_is_healthy_before_the_first_write_and_until_it_stops() {
    let shard = Shard::start(ShardConfig::default()).await;
    let address = shard.address.clone();
    let check = || async { health::check(&address, &Security::none(), Role::Replay).await };
    check().await.unwrap();
    shard.stop().await.unwrap();
    let error = check().await.unwrap_err().to_string();
    assert!(error.contains("does not respond"), "{error}");
}

#[tokio::test]
async fn batches_are_acknowledged_in_order_and_can_be_sampled() {
    let shard = Shard::with_credit(100).await;
    let (mut stream, first) = shard.open(1).await;
    assert_eq!(
        first,
        InsertReply {
            acked: 0,
            window: INSERT_WINDOW,
            shard_incarnation: INCARNATION
        }
    );
    for sequence in 1..=5 {
        stream.send(batch(sequence, 0, 10)).await;
    }
    for sequence in 1..=5 {
        assert_eq!(stream.reply().await.unwrap().acked, sequence);
    }
    let status = shard.status().await;
    let summary = status.summary();
    assert_eq!((summary.rows, summary.inserted), (50, 50));
    assert_eq!(status.insert_limit, 100);
    assert_eq!(status.run_id.as_deref(), Some("test"));
    shard.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_sent_again_after_a_reconnect_is_stored_once() {
    let shard = Shard::with_credit(100).await;
    let (mut stream, _) = shard.open(1).await;
    assert_eq!(stream.insert(batch(1, 0, 4)).await, 1);
    assert_eq!(stream.insert(batch(2, 4, 4)).await, 2);
    drop(stream);
    let (mut again, first) = shard.open(1).await;
    assert_eq!(first.acked, 2);
    assert_eq!(again.insert(batch(2, 4, 4)).await, 2);
    assert_eq!(again.insert(batch(3, 8, 4)).await, 3);
    let status = shard.status().await;
    assert_eq!(
        (status.summary().rows, status.duplicates, status.gaps),
        (12, 1, 0)
    );
}

#[tokio::test]
async fn missing_batches_are_counted() {
    let shard = Shard::with_credit(100).await;
    let (mut stream, _) = shard.open(1).await;
    stream.insert(batch(1, 0, 1)).await;
    assert_eq!(stream.insert(batch(5, 0, 1)).await, 5);
    let (mut other, _) = shard.open(2).await;
    other.insert(batch(3, 0, 1)).await;
    assert_eq!(shard.status().await.gaps, 3 + 2);
}

#[tokio::test]
async fn without_credit_inserts_wait_and_samples_do_not() {
    let shard = Shard::with_credit(5).await;
    let (mut stream, _) = shard.open(1).await;
    assert_eq!(stream.insert(batch(1, 0, 4)).await, 1);
    stream.send(batch(2, 4, 4)).await;
    let blocked = shard.until_waiting(1).await;
    assert_eq!((blocked.summary().inserted, blocked.insert_limit), (4, 5));
    assert_eq!(shard.sample(3).await.rows(), 3);
    // Not enough for the whole batch.
    shard.grant(7).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let summary = shard.status().await.summary();
    assert_eq!((summary.inserted, summary.writers_waiting), (4, 1));
    assert!(summary.insert_blocked_s >= 0.05, "{summary:?}");
    shard.grant(8).await;
    assert_eq!(stream.reply().await.unwrap().acked, 2);
    let summary = shard.status().await.summary();
    assert_eq!((summary.inserted, summary.writers_waiting), (8, 0));
}

#[tokio::test]
async fn one_grant_releases_all_writers_it_suffices_for() {
    let shard = Shard::with_credit(0).await;
    let mut streams = Vec::new();
    for actor in 1..=4 {
        let (mut stream, _) = shard.open(actor).await;
        stream.send(batch(1, 0, 10)).await;
        streams.push(stream);
    }
    shard.until_waiting(4).await;
    shard.grant(40).await;
    for stream in &mut streams {
        assert_eq!(stream.reply().await.unwrap().acked, 1);
    }
    assert_eq!(shard.status().await.summary().inserted, 40);
}

#[tokio::test]
async fn a_writer_that_disconnects_leaves_the_queue() {
    let shard = Shard::with_credit(0).await;
    let (mut gone, _) = shard.open(1).await;
    gone.send(batch(1, 0, 100)).await;
    shard.until_waiting(1).await;
    let (mut stays, _) = shard.open(2).await;
    stays.send(batch(1, 0, 5)).await;
    shard.until_waiting(2).await;
    drop(gone);
    shard.until_waiting(1).await;
    shard.grant(5).await;
    assert_eq!(stays.reply().await.unwrap().acked, 1);
    assert_eq!(shard.status().await.summary().inserted, 5);
}

#[tokio::test]
async fn stopping_ends_streams_even_those_that_wait() {
    let shard = Shard::start(ShardConfig::default()).await;
    let (mut waits, _) = shard.open(1).await;
    waits.send(batch(1, 0, 5)).await;
    let (mut idle, _) = shard.open(2).await;
    shard.until_waiting(1).await;
    let started = std::time::Instant::now();
    shard.stop().await.unwrap();
    // Streams ended by themselves.
    assert!(started.elapsed() < proto::transport::serve::DRAIN_GRACE);
    for stream in [&mut waits, &mut idle] {
        let status = stream.reply().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

/// It keeps sending and never reads an acknowledgement. HTTP/2 flow control bounds
/// the memory it can hold, and other writers are not affected.
#[tokio::test]
async fn a_writer_that_reads_nothing_does_not_affect_others() {
    let shard = Shard::with_credit(1 << 40).await;
    let (mut silent, _) = shard.open(1).await;
    let sending = async {
        for sequence in 1..=20_000 {
            silent.send(batch(sequence, 0, 1)).await;
        }
    };
    let sent = tokio::time::timeout(Duration::from_secs(2), sending).await;
    let (mut stream, _) = shard.open(2).await;
    for sequence in 1..=20 {
        assert_eq!(stream.insert(batch(sequence, 0, 30)).await, sequence);
    }
    assert_eq!(shard.sample(100).await.rows(), 100);
    let before = shard.status().await.summary().inserted;
    drop(silent);
    // Unread acknowledgements are dropped with the stream.
    assert_eq!(stream.insert(batch(21, 0, 30)).await, 21);
    assert!(
        before >= 600,
        "{before} rows, all sent in time: {}",
        sent.is_ok()
    );
    shard.stop().await.unwrap();
}
