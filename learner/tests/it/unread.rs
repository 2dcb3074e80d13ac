//! Peers that send long texts, or do not read what they asked for.

use learner::checkpoint::files::DOWNLOADS;
use proto::messages::weights::WatchRequest;
use proto::wire;
use tokio::time::timeout;
use tonic::Code;

use crate::setup::{Run, config};
use crate::{SOON, join};

/// More than the windows of HTTP/2 take.
const LARGE: usize = 12 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_are_few_and_block_neither_calls_nor_the_stop() {
    let mut run = Run::start(config(|c| c.learner.updates = 1_000_000), false).await;
    let folder = run.run_dir.join("checkpoints");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("large.safetensors"), vec![7; LARGE]).unwrap();
    let request = wire::PullCheckpointRequest {
        name: "large.safetensors".into(),
        ..Default::default()
    };
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..6 {
        let mut client = run.client();
        for _ in 0..12 {
            match client.pull_checkpoint(request.clone()).await {
                Ok(reply) => unread.push(reply),
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((unread.len(), refused), (DOWNLOADS, 72 - DOWNLOADS));

    let watch = WatchRequest {
        hello: run.hello.clone(),
        newer_than: 0,
        bf16: true,
        untrained_first: false,
    };
    let watch = wire::WatchRequest::from(watch);
    let mut client = run.client();
    let mut watched = Vec::new();
    let refused = loop {
        match client.watch_weights(watch.clone()).await {
            Ok(reply) => watched.push(reply),
            Err(status) => break status,
        }
        assert!(watched.len() < 50);
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // A stream that ends makes room.
    watched.pop();
    let again = async {
        while client.watch_weights(watch.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, again).await.unwrap();

    let status = run
        .client()
        .status(wire::LearnerStatusRequest::default())
        .await;
    status.unwrap();
    run.stop();
    run.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_texts_of_peers_are_refused_or_shortened() {
    let mut run = Run::start(config(|_| ()), false).await;
    let long = join(&run, |r| r.host = "h".repeat(1 << 20))
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    assert!(long.message().contains("host"), "{long}");
    let beyond = join(&run, |r| r.manifest_json = vec![b' '; 15 << 20].into()).await;
    assert_eq!(beyond.unwrap_err().code(), Code::OutOfRange);
    let names = join(&run, |request| {
        let mut theirs: serde_json::Value = serde_json::from_slice(&request.manifest_json).unwrap();
        theirs["entries"][0]["name"] = "n".repeat(1 << 20).into();
        theirs["entries"][0]["volume"] = "ab".repeat(32).into();
        request.manifest_json = theirs.to_string().into();
        request.hello.manifest = [9; 32];
    });
    let names = names.await.unwrap_err();
    assert_eq!(names.code(), Code::FailedPrecondition);
    assert!(
        names.message().len() < 2000,
        "{} bytes",
        names.message().len()
    );
    let mut client = run.client();
    let status = client.status(wire::LearnerStatusRequest::default()).await;
    assert!(status.unwrap().into_inner().actors.is_empty());
    run.stop();
    run.ended().await.unwrap();
}
