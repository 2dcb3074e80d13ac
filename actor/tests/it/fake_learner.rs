//! A learner that hands out names and weights, and orders what a test wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::run::baseline::MeanPositionBaseline;
use proto::messages::chunks::{Chunk, Whole};
use proto::messages::evaluator::{EvaluatorBeat, EvaluatorBeatReply};
use proto::messages::heartbeat::{Heartbeat, HeartbeatReply};
use proto::messages::insert::Writer;
use proto::messages::join::{JoinReply, JoinRequest};
use proto::messages::weights::{Receiver, WatchRequest, WeightsVersion};
use proto::transport::channel::learner_server;
use proto::wire;
use proto::wire::learner_server::Learner;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::server::{Reply, Server};

pub const RUN: &str = "run-of-the-test";
const CHUNK: usize = 10_000;

#[derive(Debug, Clone)]
pub struct FakeLearner {
    pub shards: Arc<Mutex<Vec<String>>>,
    pub joins: Arc<Mutex<Vec<JoinRequest>>>,
    pub beats: Arc<Mutex<Vec<Heartbeat>>>,
    pub refusal: Arc<Mutex<Option<Status>>>,
    pub order: Arc<Mutex<HeartbeatReply>>,
    weights: Arc<watch::Sender<(u64, Vec<u8>)>>,
    /// Versions that are sent with a wrong byte once.
    pub garbled: Arc<Mutex<Option<u64>>>,
    pub lease: Duration,
    /// Beats received from evaluators, and the reply to them.
    pub evaluators: Arc<Mutex<Vec<EvaluatorBeat>>>,
    pub reply: Arc<Mutex<EvaluatorBeatReply>>,
    /// Versions and sizes in bytes of weights uploaded as the best.
    pub kept: Arc<Mutex<Vec<(u64, usize)>>>,
}

/// The reply to heartbeats.
pub fn order(rejoin: bool, stop: bool, updates: u64) -> HeartbeatReply {
    HeartbeatReply {
        rejoin,
        stop,
        updates,
        weights_version: 0,
    }
}

impl FakeLearner {
    pub fn new(shards: &[String]) -> Self {
        Self {
            shards: Arc::new(Mutex::new(shards.to_vec())),
            joins: Arc::default(),
            beats: Arc::default(),
            refusal: Arc::default(),
            order: Arc::new(Mutex::new(order(false, false, 0))),
            weights: Arc::new(watch::channel((0, Vec::new())).0),
            garbled: Arc::default(),
            lease: Duration::from_millis(400),
            evaluators: Arc::default(),
            reply: Arc::new(Mutex::new(EvaluatorBeatReply {
                run_id: RUN.into(),
                stop: false,
                wanted: false,
                last_version: None,
                last_evaluation: None,
                best_evaluation: None,
                baseline: MeanPositionBaseline {
                    scans: 2,
                    ras_mm: vec![Some([14.0, 12.0, 10.0]), Some([4.0, 5.0, 6.0])],
                },
            })),
            kept: Arc::default(),
        }
    }

    pub fn publish(&self, version: u64, bytes: Vec<u8>) {
        self.weights.send_replace((version, bytes));
    }

    pub fn serve(&self, address: &str) -> Server {
        Server::start(address, Routes::new(learner_server(self.clone())))
    }

    fn chunks(&self, version: u64, bytes: &[u8]) -> Vec<Chunk> {
        let whole = Whole {
            bytes: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
            weights: Some(WeightsVersion {
                version,
                updates: version.saturating_sub(1) * 10,
                published_us: 0,
            }),
        };
        let mut bytes = bytes.to_vec();
        let garbled = self.garbled.lock().unwrap().take_if(|v| *v == version);
        if garbled.is_some() {
            bytes[20] ^= 1;
        }
        let piece = |(i, data): (usize, &[u8])| Chunk {
            whole,
            offset: (i * CHUNK) as u64,
            data: data.to_vec().into(),
        };
        bytes.chunks(CHUNK).enumerate().map(piece).collect()
    }
}

#[tonic::async_trait]
impl Learner for FakeLearner {
    type WatchWeightsStream = ReceiverStream<Result<wire::Chunk, Status>>;

    async fn join(&self, request: Request<wire::JoinRequest>) -> Reply<wire::JoinReply> {
        if let Some(status) = self.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        let request = JoinRequest::try_from(request.into_inner())?;
        let mut joins = self.joins.lock().unwrap();
        let exploration = vec![0.5; request.slots];
        joins.push(request);
        let reply = JoinReply {
            writer: Writer {
                actor: 6,
                incarnation: u32::try_from(joins.len()).unwrap(),
            },
            shards: self.shards.lock().unwrap().clone(),
            exploration,
            lease: self.lease,
            run_id: RUN.into(),
        };
        Ok(Response::new(reply.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Reply<wire::HeartbeatReply> {
        let beat = Heartbeat::try_from(request.into_inner())?;
        let joined = self.joins.lock().unwrap().len();
        self.beats.lock().unwrap().push(beat);
        let mut order = *self.order.lock().unwrap();
        // Only the first incarnation is ordered to join again.
        order.rejoin &= beat.writer.incarnation == 1 && joined == 1;
        order.weights_version = self.weights.borrow().0;
        Ok(Response::new(order))
    }

    async fn watch_weights(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Reply<Self::WatchWeightsStream> {
        let request = WatchRequest::try_from(request.into_inner())?;
        assert_eq!(request.hello.run_id, RUN);
        let (sender, chunks) = mpsc::channel(2);
        let mut newest = self.weights.subscribe();
        let learner = self.clone();
        tokio::spawn(async move {
            let mut sent = request.newer_than;
            loop {
                let Ok(weights) = newest
                    .wait_for(|(version, _)| *version > sent)
                    .await
                    .map(|w| w.clone())
                else {
                    return;
                };
                sent = weights.0;
                for chunk in learner.chunks(weights.0, &weights.1) {
                    if sender.send(Ok(chunk.into())).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn status(&self, _: Request<wire::LearnerStatusRequest>) -> Reply<wire::LearnerStatus> {
        Err(Status::unimplemented("not for actors"))
    }

    async fn evaluator_beat(
        &self,
        request: Request<wire::EvaluatorBeatRequest>,
    ) -> Reply<wire::EvaluatorBeatReply> {
        if let Some(status) = self.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        let beat = EvaluatorBeat::try_from(request.into_inner())?;
        let mut reply = self.reply.lock().unwrap().clone();
        reply.wanted &= beat.evaluation.is_some();
        self.evaluators.lock().unwrap().push(beat);
        Ok(Response::new(reply.into()))
    }

    async fn keep_best(
        &self,
        request: Request<Streaming<wire::Chunk>>,
    ) -> Reply<wire::KeepBestReply> {
        let (mut chunks, mut receiver) = (request.into_inner(), Receiver::default());
        while let Some(chunk) = chunks.message().await? {
            if let Some(whole) = receiver.push(&Chunk::try_from(chunk)?).unwrap() {
                let kept = (whole.version, whole.bytes.len());
                self.kept.lock().unwrap().push(kept);
            }
        }
        Ok(Response::new(wire::KeepBestReply {}))
    }

    async fn list_checkpoints(
        &self,
        _: Request<wire::ListCheckpointsRequest>,
    ) -> Reply<wire::CheckpointList> {
        Err(Status::unimplemented("not for actors"))
    }

    type PullCheckpointStream = ReceiverStream<Result<wire::Chunk, Status>>;

    async fn pull_checkpoint(
        &self,
        _: Request<wire::PullCheckpointRequest>,
    ) -> Reply<Self::PullCheckpointStream> {
        Err(Status::unimplemented("not for actors"))
    }
}
