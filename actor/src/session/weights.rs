//! The learner's newest weights: the task that watches.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
pub use proto::messages::assembly::{Assembly, AssemblyError, Published};
use proto::messages::hello::Hello;
use proto::messages::weights::{WatchRequest, WeightsChunk};
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, backoff};
use proto::wire::learner_client::LearnerClient;
use tokio::time::sleep;
use tonic::Status;

use crate::session::counters::Counters;
use crate::session::feed::Feed;

/// Watches for weights, again and again; ends only when it is dropped. A new
/// life of the actor takes whatever comes first, because a learner that resumed
/// may count from an older version.
pub(crate) async fn watch(
    mut client: LearnerClient<Channel>,
    hello: Hello,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
) {
    let mut newest = 0;
    let mut waits = backoff(usize::MAX).build();
    loop {
        let before = newest;
        let request = WatchRequest {
            hello: hello.clone(),
            newer_than: newest,
            bf16: false,
            untrained_first: false,
        };
        let ended = receive(&mut client, request, |weights| {
            let (version, bytes) = (weights.version, weights.bytes.len());
            let received_ms = weights.age().as_secs_f64() * 1e3;
            tracing::debug!(version, bytes, received_ms, "new weights");
            newest = version;
            counters.set_updates(weights.updates);
            feed.publish(weights);
        })
        .await;
        tracing::debug!(code = ?ended.code(), reason = ended.message(), "weights stream ended; watching again");
        if newest > before {
            waits = backoff(usize::MAX).build();
        }
        sleep(waits.next().unwrap_or(CALL_DEADLINE)).await;
    }
}

/// Hands each whole version of one stream to `each`; why the stream ended.
pub async fn receive(
    client: &mut LearnerClient<Channel>,
    request: WatchRequest,
    mut each: impl FnMut(Published),
) -> Status {
    let opened = client.watch_weights(proto::wire::WatchRequest::from(request));
    let mut stream = match tokio::time::timeout(OPEN_DEADLINE, opened).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => {
            return Status::deadline_exceeded("no answer to the opening of the weights stream");
        }
    };
    let mut assembly = Assembly::default();
    loop {
        let chunk = match stream.message().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Status::unavailable("the learner closed the stream"),
            Err(status) => return status,
        };
        let whole = match WeightsChunk::try_from(chunk) {
            Ok(chunk) => assembly.push(chunk),
            Err(error) => return error.into(),
        };
        match whole {
            Ok(None) => {}
            Ok(Some(weights)) => each(weights),
            Err(error) => {
                tracing::warn!(%error, "asking for the weights again");
                return Status::data_loss(error.to_string());
            }
        }
    }
}

/// A learner that has no weights yet may answer late, but not never.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
