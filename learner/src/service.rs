//! The learner's gRPC service: who may act, and with which weights.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::manifest::TrainingManifest;
use proto::heartbeat::{Heartbeat, HeartbeatReply};
use proto::hello::{Difference, Hello};
use proto::join::{JoinReply, JoinRequest};
use proto::learner_status::{ActorStatus, LearnerStatus};
use proto::weights::WatchRequest;
use proto::wire;
use proto::wire::learner_server::Learner;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::broadcast::{self, Newest, Published};
use crate::registry::Registry;
use crate::store::Store;

/// Chunks on their way to one watcher.
const CHUNKS_IN_FLIGHT: usize = 2;

/// What the service tells about the run.
#[derive(Debug)]
pub struct Shared {
    /// What everyone who joins must agree with.
    pub hello: Hello,
    /// The training data, so that a refusal can name what differs.
    pub manifest: TrainingManifest,
    /// What the config digest was made from.
    pub config_json: String,
    /// Shard addresses as actors reach them.
    pub shards: Vec<String>,
    /// Lease of an actor.
    pub lease: Duration,
    /// Updates to do.
    pub updates_total: u64,
    /// Updates done.
    pub updates: Arc<AtomicU64>,
    /// Walks that ended, of all actors.
    pub episodes: Arc<AtomicU64>,
    /// The run is over: actors are told to stop.
    pub over: AtomicBool,
    /// The actors.
    pub registry: Mutex<Registry>,
    /// The shards.
    pub store: Arc<Store>,
    /// The newest weights.
    pub newest: Newest,
    /// When the registry's time began.
    pub began: Instant,
}

impl Shared {
    /// The registry; never held across a wait.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // Counters and leases: a panic elsewhere leaves nothing half done.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry's time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn weights_version(&self) -> u64 {
        self.newest.borrow().as_ref().map_or(0, |p| p.version)
    }

    /// Refuses whoever trains something else, naming what differs.
    fn agree(&self, request: &JoinRequest) -> Result<(), Status> {
        let Err(mismatch) = self.hello.check(&request.hello) else {
            return Ok(());
        };
        let mut sentences = Vec::new();
        for difference in &mismatch.differences {
            sentences.push(match difference {
                Difference::Manifest { .. } => {
                    manifest_sentence(&self.manifest, &request.manifest_json)
                        .unwrap_or_else(|| difference.to_string())
                }
                Difference::Config { .. } => {
                    config_sentence(&self.config_json, &request.config_json)
                        .unwrap_or_else(|| difference.to_string())
                }
                other => other.to_string(),
            });
        }
        let sentence = sentences.join("; ");
        tracing::warn!(host = request.host, why = sentence, "actor refused");
        Err(Status::failed_precondition(sentence))
    }
}

/// Which scans differ, in words; `None` where the actor sent no readable manifest.
fn manifest_sentence(ours: &TrainingManifest, theirs: &[u8]) -> Option<String> {
    let theirs: TrainingManifest = serde_json::from_slice(theirs).ok()?;
    let diff = ours.diff(&theirs);
    Some(format!(
        "the training data of learner and actor differ: {diff}; give both the same list files"
    ))
}

/// Which keys differ, in words.
fn config_sentence(ours: &str, theirs: &[u8]) -> Option<String> {
    let ours: serde_json::Value = serde_json::from_str(ours).ok()?;
    let theirs: serde_json::Value = serde_json::from_slice(theirs).ok()?;
    let mut keys = Vec::new();
    for (section, value) in ours.as_object()? {
        match (value.as_object(), theirs.get(section)) {
            (Some(entries), Some(other)) => {
                let differing = entries.iter().filter(|(k, v)| other.get(k) != Some(v));
                keys.extend(differing.map(|(k, _)| format!("{section}.{k}")));
            }
            (_, other) if other != Some(value) => keys.push(section.clone()),
            _ => {}
        }
    }
    (!keys.is_empty()).then(|| {
        format!(
            "the configurations of learner and actor differ in {}: start both with the same configuration",
            keys.join(", ")
        )
    })
}

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct LearnerService {
    shared: Arc<Shared>,
    half: fn(&Published) -> Option<Published>,
}

impl LearnerService {
    /// A service over the shared state; `half` turns weights into bf16.
    #[must_use]
    pub fn new(shared: Arc<Shared>, half: fn(&Published) -> Option<Published>) -> Self {
        Self { shared, half }
    }
}

type WeightsStream = Pin<Box<dyn Stream<Item = Result<wire::WeightsChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Learner for LearnerService {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinReply>, Status> {
        let request = JoinRequest::try_from(request.into_inner())?;
        let shared = &self.shared;
        shared.agree(&request)?;
        if shared.over.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the run is over"));
        }
        let now = shared.now();
        let joined = shared
            .registry()
            .join(now, request.slots, &request.host)
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
        let known = shared.registry().heartbeat(shared.now(), &heartbeat, stop);
        let reply = HeartbeatReply {
            rejoin: !known,
            stop,
            updates: shared.updates.load(Ordering::Relaxed),
        };
        Ok(Response::new(reply.into()))
    }

    type WatchWeightsStream = WeightsStream;

    async fn watch_weights(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<WeightsStream>, Status> {
        let request = WatchRequest::try_from(request.into_inner())?;
        // An evaluator may hold other scans: only the run has to be the same.
        let mut hello = self.shared.hello.clone();
        hello.manifest = request.hello.manifest;
        hello.check(&request.hello).map_err(Status::from)?;
        let (out, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let half = request.bf16.then_some(self.half);
        let newest = self.shared.newest.clone();
        tokio::spawn(broadcast::stream(newest, request.newer_than, half, out));
        let chunks = ReceiverStream::new(chunks).map(|c| Ok(c.into()));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn status(
        &self,
        _: Request<wire::LearnerStatusRequest>,
    ) -> Result<Response<wire::LearnerStatus>, Status> {
        let shared = &self.shared;
        let now = shared.now();
        let actors = shared.registry().actors().to_vec();
        let actors = actors.into_iter().map(|a| ActorStatus {
            writer: a.writer,
            host: a.host,
            alive: a.alive,
            heartbeat_age_s: now.saturating_sub(a.seen).as_secs_f64(),
            env_steps: a.env_steps,
            weights_version: a.weights_version,
        });
        let (samples_per_insert, why) = shared
            .store
            .with_ledger(|l| (l.samples_per_insert(), l.why_blocked()));
        let status = LearnerStatus {
            run_id: shared.hello.run_id.clone(),
            updates: shared.updates.load(Ordering::Relaxed),
            updates_total: shared.updates_total,
            weights_version: shared.weights_version(),
            actors: actors.collect(),
            shards: shared.store.links(),
            samples_per_insert,
            limiter: why.unwrap_or_else(|| "open".into()),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(Response::new(status.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_config_keys_are_named() {
        let ours = r#"{"rules":{"history":1,"max_steps":150},"gamma":0.9}"#;
        let theirs = br#"{"rules":{"history":4,"max_steps":150},"gamma":0.8}"#;
        let sentence = config_sentence(ours, theirs).unwrap();
        assert!(
            sentence.contains("differ in gamma, rules.history:"),
            "{sentence}"
        );
        assert!(config_sentence(ours, ours.as_bytes()).is_none());
        assert!(config_sentence(ours, b"not json").is_none());
    }
}
