//! The learner's gRPC service: membership and weight distribution.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::run::telemetry::in_current_span;
use proto::messages::checkpoints::{CheckpointList, PullCheckpoint};
use proto::messages::chunks::Chunk;
use proto::messages::evaluator::{EvaluatorBeat, EvaluatorBeatReply};
use proto::messages::heartbeat::{Heartbeat, HeartbeatReply};
use proto::messages::join::{JoinReply, JoinRequest};
use proto::messages::weights::{Receiver, WatchRequest};
use proto::transport::security::Connection;
use proto::wire;
use proto::wire::learner_server::Learner;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use crate::actors::broadcast::{self, Half, Halves};
use crate::actors::evaluations::KeepError;
use crate::checkpoint::files::FilesError;
use crate::checkpoint::stream as checkpoint_stream;
use crate::report::status;
use crate::shared::Shared;

/// Chunks in flight to one receiver.
const CHUNKS_IN_FLIGHT: usize = 2;

/// From the start of `KeepBest` until its weights are saved.
const KEEP_WITHIN: Duration = Duration::from_secs(60);
/// Bytes that kept weights may have more than the newest ones: their metadata differ.
const KEEP_SLACK: u64 = 1 << 20;

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct LearnerService {
    shared: Arc<Shared>,
    halves: Halves,
    /// Held while an evaluator's weights arrive.
    keeping: Arc<Semaphore>,
}

impl LearnerService {
    /// A service over the shared state; `half` converts weights to bf16.
    pub fn new(shared: Arc<Shared>, half: Half) -> Self {
        let halves = Halves::new(half);
        Self {
            shared,
            halves,
            keeping: Arc::new(Semaphore::new(1)),
        }
    }
}

impl LearnerService {
    /// Receives weights in memory: of one evaluator at a time, and no more than weights of this
    /// run have.
    async fn receive_best(
        &self,
        mut chunks: Streaming<wire::Chunk>,
    ) -> Result<Response<wire::KeepBestReply>, Status> {
        // Never closed.
        let _one = self.keeping.acquire().await.ok();
        let newest = self.shared.newest.borrow().as_ref().map(|p| p.bytes.len());
        let most = newest.unwrap_or(0) as u64 + KEEP_SLACK;
        let mut receiver = Receiver::default();
        while let Some(chunk) = chunks.message().await? {
            let chunk = Chunk::try_from(chunk)?;
            if chunk.whole.bytes > most {
                let found = chunk.whole.bytes;
                let why = format!("{found} bytes of weights: this run's have at most {most}");
                return Err(Status::invalid_argument(why));
            }
            let whole = receiver.push(&chunk);
            if let Some(weights) = whole.map_err(|e| Status::data_loss(e.to_string()))? {
                let shared = Arc::clone(&self.shared);
                let (version, bytes) = (weights.version, weights.bytes);
                let keep = move || shared.evaluations().keep_best(version, &bytes);
                blocking(keep).await?.map_err(|e| refusal(&e))?;
                return Ok(Response::new(wire::KeepBestReply {}));
            }
        }
        Err(Status::data_loss("the weights are truncated"))
    }
}

type ChunkStream = Pin<Box<dyn Stream<Item = Result<wire::Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl Learner for LearnerService {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinReply>, Status> {
        let request = JoinRequest::try_from(request.into_inner())?;
        let shared = Arc::clone(&self.shared);
        let (request, agreed) = blocking(move || {
            let agreed = shared.agree(&request);
            (request, agreed)
        })
        .await?;
        agreed?;
        let shared = &self.shared;
        if shared.over.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the run is over"));
        }
        let joined = shared
            .join(request.slots, &request.host)
            .map_err(|e| Status::resource_exhausted(e.to_string()))?;
        let reply = JoinReply {
            writer: joined.writer,
            shards: shared.shards.clone(),
            exploration: joined.exploration,
            lease: shared.lease,
            run_id: shared.hello.run_id.clone(),
        };
        Ok(Response::new(reply.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatReply>, Status> {
        let heartbeat = Heartbeat::try_from(request.into_inner())?;
        let shared = &self.shared;
        let stop = shared.over.load(Ordering::Relaxed);
        let newest = shared.weights_version();
        let known = shared
            .registry()
            .heartbeat(shared.now(), &heartbeat, newest, stop);
        let reply = HeartbeatReply {
            rejoin: !known,
            stop,
            updates: shared.updates.load(Ordering::Relaxed),
            weights_version: newest,
        };
        Ok(Response::new(reply))
    }

    type WatchWeightsStream = ChunkStream;

    async fn watch_weights(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        let place = reply_stream(&request)?;
        let request = WatchRequest::try_from(request.into_inner())?;
        // An evaluator may hold other scans: only the run must match.
        let mut hello = self.shared.hello.clone();
        hello.manifest = request.hello.manifest;
        hello.check(&request.hello).map_err(Status::from)?;
        let (out, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let half = request.bf16.then(|| self.halves.clone());
        let newest = self.shared.newest.clone();
        let first = self.shared.untrained.clone();
        let first = first.filter(|_| request.untrained_first && request.newer_than == 0);
        let sent = broadcast::stream(newest, first, request.newer_than, half, out);
        let sent = async move {
            sent.await;
            drop(place);
        };
        tokio::spawn(sent.in_current_span());
        let chunks = ReceiverStream::new(chunks).map(|c| Ok(c.into()));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn status(
        &self,
        request: Request<wire::LearnerStatusRequest>,
    ) -> Result<Response<wire::LearnerStatus>, Status> {
        let (shared, host) = (Arc::clone(&self.shared), request.into_inner().host);
        let status = blocking(move || status::status(&shared, &host)).await?;
        Ok(Response::new(status))
    }

    async fn evaluator_beat(
        &self,
        request: Request<wire::EvaluatorBeatRequest>,
    ) -> Result<Response<wire::EvaluatorBeatReply>, Status> {
        let beat = EvaluatorBeat::try_from(request.into_inner())?;
        let shared = Arc::clone(&self.shared);
        // `beat` may write to a slow disk.
        let stop = shared.over.load(Ordering::Relaxed);
        let keep = move || {
            shared.may_evaluate(&beat)?;
            let mut evaluations = shared.evaluations();
            let wanted = evaluations.beat(shared.now(), &beat, stop);
            Ok::<_, Status>((wanted, evaluations.last(), evaluations.best()))
        };
        let (kept, last_evaluation, best_evaluation) = blocking(keep).await??;
        let reply = EvaluatorBeatReply {
            run_id: self.shared.hello.run_id.clone(),
            stop,
            wanted: kept.map_err(|e| refusal(&e))?,
            last_version: Some(self.shared.last_version.load(Ordering::Relaxed)).filter(|v| *v > 0),
            last_evaluation,
            best_evaluation,
            baseline: self.shared.baseline.clone(),
        };
        Ok(Response::new(reply.into()))
    }

    async fn keep_best(
        &self,
        request: Request<Streaming<wire::Chunk>>,
    ) -> Result<Response<wire::KeepBestReply>, Status> {
        let kept = self.receive_best(request.into_inner());
        let late = |_| {
            Err(Status::deadline_exceeded(
                "the weights did not arrive in time",
            ))
        };
        timeout(KEEP_WITHIN, kept).await.unwrap_or_else(late)
    }

    async fn list_checkpoints(
        &self,
        _: Request<wire::ListCheckpointsRequest>,
    ) -> Result<Response<wire::CheckpointList>, Status> {
        let files = Arc::clone(&self.shared.checkpoints);
        let list = CheckpointList {
            run_id: self.shared.hello.run_id.clone(),
            checkpoints: blocking(move || files.list()).await?,
        };
        Ok(Response::new(list.into()))
    }

    type PullCheckpointStream = ChunkStream;

    async fn pull_checkpoint(
        &self,
        request: Request<wire::PullCheckpointRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        let place = reply_stream(&request)?;
        let request = PullCheckpoint::try_from(request.into_inner())?;
        let files = Arc::clone(&self.shared.checkpoints);
        let download = files.download().map_err(|e| failed(&e))?;
        let opened = blocking(move || checkpoint_stream::open(&files, &request)).await?;
        let (opened, offset) = opened.map_err(|e| failed(&e))?;
        let (out, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let sent = async move {
            checkpoint_stream::send(opened, offset, out).await;
            drop((place, download));
        };
        tokio::spawn(sent.in_current_span());
        let chunks = ReceiverStream::new(chunks).map(|c| c.map(Into::into));
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// Threads that calls may block at once. The runtime has some hundred: the others are left to
/// checkpoints, files over HTTP and metrics.
static THREADS: Semaphore = Semaphore::const_new(32);

/// Runs disk-bound work off the executor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    // Never closed.
    let _thread = THREADS.acquire().await.ok();
    spawn_blocking(in_current_span(work))
        .await
        .map_err(|_| Status::internal("a task of the learner failed; see its log"))
}

/// A place for a stream of large replies on the connection of this request.
fn reply_stream<T>(request: &Request<T>) -> Result<Option<OwnedSemaphorePermit>, Status> {
    // Absent where the call did not come from a socket.
    let Some(connection) = request.extensions().get::<Connection>() else {
        return Ok(None);
    };
    let place = connection.reply_stream();
    let many = "this connection has too many streams of weights and checkpoints: read and end some";
    place
        .map(Some)
        .ok_or_else(|| Status::resource_exhausted(many))
}

fn failed(error: &FilesError) -> Status {
    match error {
        FilesError::NotFound { .. } => Status::not_found(error.to_string()),
        FilesError::Busy => Status::resource_exhausted(error.to_string()),
        FilesError::Read { .. } => Status::data_loss(error.to_string()),
    }
}

fn refusal(error: &KeepError) -> Status {
    match error {
        KeepError::NotWanted(_) => Status::failed_precondition(error.to_string()),
        KeepError::Unpublished(_) => {
            tracing::warn!(%error, "the weights of an evaluator are not kept");
            Status::invalid_argument(error.to_string())
        }
        KeepError::Line(_) | KeepError::Weights(_) => Status::invalid_argument(error.to_string()),
        KeepError::Write { .. } | KeepError::Disk(_) => {
            tracing::error!(%error, "evaluation not saved");
            Status::unavailable(error.to_string())
        }
    }
}
