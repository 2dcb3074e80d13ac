//! Clients of another run, and clients that send invalid messages.

use crate::client::{
    INCARNATION, SHAPE, Shard, batch, durable, hello, malformed, open, packed, priority, request,
    row,
};
use common::transition::row::AgentStep;
use proto::messages::hello::Hello;
use proto::messages::insert::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use proto::wire;
use tonic::{Code, Status};

/// The status that ends a stream of these requests.
async fn refused(shard: &Shard, requests: impl IntoIterator<Item = wire::InsertRequest>) -> Status {
    let mut stream = shard.stream().await.unwrap();
    for request in requests {
        stream.send(request).await;
    }
    loop {
        if let Err(status) = stream.reply().await {
            return status;
        }
    }
}

#[tokio::test]
async fn a_client_of_another_run_gets_a_one_sentence_error() {
    let shard = Shard::with_credit(100).await;
    let cases: [(fn(&mut Hello), _); 4] = [
        (
            |h| h.run_id = "other".into(),
            "runs differ: the server belongs to run \"test\"",
        ),
        (|h| h.manifest = [9; 32], "training data differ"),
        (|h| h.config_digest = [9; 32], "configurations differ"),
        (|h| h.shape.agents = 3, "row shapes differ"),
    ];
    for (change, sentence) in cases {
        let (mut open, mut request) = (open(1), request(1, 0, 0));
        change(&mut open.hello);
        change(&mut request.hello);
        let inserting = refused(&shard, [open.into()]).await;
        let sampling = shard.try_sample(request).await.unwrap_err();
        for status in [inserting, sampling] {
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().contains(sentence), "{status}");
        }
    }
}

#[tokio::test]
async fn a_client_of_another_version_gets_a_one_sentence_error() {
    let shard = Shard::with_credit(100).await;
    for (change, sentence) in [
        (
            // A client of protocol 1 names no row version.
            (|h| (h.protocol, h.row_version) = (1, 0)) as fn(&mut wire::Hello),
            "protocol versions differ: the server speaks 2, the client 1: \
             use one landmarl version everywhere",
        ),
        (
            |h| h.row_version = 9,
            "row layouts differ: the server reads version 1, the client sends version 9: \
             use one landmarl version everywhere",
        ),
    ] {
        let mut other = wire::Hello::from(hello());
        change(&mut other);
        let mut opening = wire::InsertRequest::from(open(1));
        match &mut opening.kind {
            Some(wire::insert_request::Kind::Open(open)) => open.hello = Some(other.clone()),
            _ => unreachable!("an open is an open"),
        }
        let inserting = refused(&shard, [opening, batch(1, 0, 2).into()]).await;
        let request = wire::SampleRequest {
            hello: Some(other),
            ..Default::default()
        };
        let sampling = shard.raw().sample(request).await.unwrap_err();
        for status in [inserting, sampling] {
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(status.message(), sentence);
        }
    }
    assert_eq!(shard.status().await.summary().rows, 0);
}

#[tokio::test]
async fn durable_acknowledgements_need_a_journal() {
    let shard = Shard::with_credit(100).await;
    let status = refused(&shard, [durable(1).into()]).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    let expected = "this shard keeps rows in memory only";
    assert!(status.message().starts_with(expected), "{status}");
}

#[tokio::test]
async fn a_stream_is_opened_first_and_once() {
    let shard = Shard::with_credit(100).await;
    let unopened = refused(&shard, [batch(1, 0, 1).into()]).await;
    let twice = refused(&shard, [open(1).into(), open(1).into()]).await;
    let empty = refused(&shard, [wire::InsertRequest { kind: None }]).await;
    for (status, text) in [
        (unopened, "begins with an open"),
        (twice, "opened once"),
        (empty, "kind is missing"),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{status}");
    }
}

/// A batch of two rows with other priorities.
fn priorities(values: &[f32]) -> wire::InsertRequest {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    malformed(batch(1, 0, 2), |b| b.priorities = bytes.into())
}

/// A batch of two priorities with these bytes as rows.
fn rows(bytes: Vec<u8>) -> wire::InsertRequest {
    malformed(batch(1, 0, 2), |b| b.rows = bytes.into())
}

/// A batch of two rows, the second changed.
fn second_row(change: fn(&mut AgentStep)) -> wire::InsertRequest {
    let mut both = [row(0), row(1)];
    change(&mut both[1].agents[0]);
    rows(packed(&both))
}

/// Rows of zeros, as inactive agents have.
fn zeros(count: usize) -> wire::InsertRequest {
    malformed(batch(1, 0, 2), |b| {
        b.rows = vec![0; count * SHAPE.bytes()].into();
        b.priorities = vec![0; 4 * count].into();
    })
}

#[tokio::test]
async fn invalid_batches_are_refused_by_row_and_field_and_change_nothing() {
    let shard = Shard::with_credit(100_000).await;
    let batches = [
        (priorities(&[1.0, f32::NAN]), "row 1 has NaN"),
        (priorities(&[f32::INFINITY, 1.0]), "row 0 has inf"),
        (priorities(&[1.0, -2.0]), "row 1 has -2"),
        (
            priorities(&[1.0]),
            "batch 1: 1 rows of 72 bytes need 72 bytes, got 144",
        ),
        (
            rows(vec![1; 10]),
            "batch 1: 2 rows of 72 bytes need 144 bytes, got 10",
        ),
        (
            rows(vec![0; 3 * SHAPE.bytes()]),
            "batch 1: 2 rows of 72 bytes need 144 bytes, got 216",
        ),
        (
            rows(vec![200; 2 * SHAPE.bytes()]),
            "batch 1, row 0: row field action of agent 0 is 200",
        ),
        (rows(vec![1; BATCH_BYTES_MAX + 1]), "field rows"),
        (
            second_row(|a| a.reward = f32::NAN),
            "batch 1, row 1: row field reward of agent 0 is NaN",
        ),
        (
            second_row(|a| a.action = 6),
            "batch 1, row 1: row field action of agent 0 is 6",
        ),
        (
            second_row(|a| a.next[1].stride = 0),
            "batch 1, row 1: row field frame of agent 0",
        ),
        (zeros(BATCH_ROWS_MAX + 1), "4097 rows"),
        (zeros(0), "0 rows"),
        (malformed(batch(1, 0, 2), |b| b.sequence = 0), "sequence"),
    ];
    let count = batches.len() as u64;
    for (request, text) in batches {
        let status = refused(&shard, [open(1).into(), request]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(text), "{text}: {status}");
    }
    let status = shard.status().await;
    assert_eq!(status.refused_batches, count);
    let summary = status.summary();
    assert_eq!((summary.rows, summary.inserted), (0, 0));
    // The same writer may send a valid batch with the same number.
    let (mut stream, _) = shard.open(1).await;
    assert_eq!(stream.insert(batch(1, 0, 2)).await, 1);
}

#[tokio::test]
async fn invalid_updates_and_samples_are_refused() {
    let shard = Shard::with_credit(100).await;
    let (mut stream, _) = shard.open(1).await;
    stream.insert(batch(1, 0, 2)).await;
    let before = shard.sample(0).await.summary.priority_sum;
    for value in [f32::NAN, -1.0, f32::INFINITY] {
        let update = vec![priority(0, 0, value)];
        let status = shard.update(INCARNATION, update).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let request = wire::SampleRequest {
        hello: Some(hello().into()),
        rows: u32::MAX,
        ..Default::default()
    };
    let status = shard.raw().sample(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let request = wire::SampleRequest::default();
    let status = shard.raw().sample(request).await.unwrap_err();
    assert!(status.message().contains("hello is missing"), "{status}");
    assert_eq!(shard.sample(0).await.summary.priority_sum, before);
}
