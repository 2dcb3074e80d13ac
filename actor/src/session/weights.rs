//! Watches the learner for its newest weights.

use std::convert::Infallible;
use std::time::Duration;

use backon::BackoffBuilder;
use proto::messages::chunks::Chunk;
use proto::messages::weights::{Published, Receiver, WatchRequest};
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, backoff};
use proto::wire::learner_client::LearnerClient;
use tokio::time::sleep;
use tonic::Status;

/// A learner that has no weights yet may open the stream late.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// A consumer of weights: what it requests, and what it does with them.
pub(crate) trait Watcher {
    /// The request that opens the next stream.
    fn request(&self) -> WatchRequest;
    /// Takes a version that is newer than those before it on this stream.
    fn take(&mut self, weights: Published);
}

/// Watches until it is dropped: reopens the stream whenever it ends.
pub(crate) async fn watch(mut client: LearnerClient<Channel>, mut watcher: impl Watcher) {
    let mut waits = backoff(usize::MAX).build();
    loop {
        let mut received = false;
        let Err(ended) = receive(&mut client, watcher.request(), |weights| {
            received = true;
            watcher.take(weights);
        })
        .await;
        let (code, reason) = (ended.code(), ended.message());
        tracing::debug!(?code, reason, "weights stream ended; watching again");
        if received {
            waits = backoff(usize::MAX).build();
        }
        sleep(waits.next().unwrap_or(CALL_DEADLINE)).await;
    }
}

/// Passes each complete version of one stream to `each`, until the stream ends.
async fn receive(
    client: &mut LearnerClient<Channel>,
    request: WatchRequest,
    mut each: impl FnMut(Published),
) -> Result<Infallible, Status> {
    let opened = client.watch_weights(proto::wire::WatchRequest::from(request));
    let opened = tokio::time::timeout(OPEN_DEADLINE, opened).await;
    let late = |_| Status::deadline_exceeded("the learner did not open the weights stream");
    let mut stream = opened.map_err(late)??.into_inner();
    let mut receiver = Receiver::default();
    loop {
        let chunk = stream.message().await?;
        let chunk = chunk.ok_or_else(|| Status::unavailable("the learner closed the stream"))?;
        let whole = receiver.push(&Chunk::try_from(chunk)?).map_err(|error| {
            tracing::warn!(%error, "requesting the weights again");
            Status::data_loss(error.to_string())
        })?;
        if let Some(weights) = whole {
            let (version, bytes) = (weights.version, weights.bytes.len());
            let received_ms = weights.age().as_secs_f64() * 1e3;
            tracing::debug!(version, bytes, received_ms, "new weights");
            each(weights);
        }
    }
}
