//! The service's view of the run, and the checks on who may join.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::imaging::manifest::TrainingManifest;
use common::run::baseline::MeanPositionBaseline;
use common::run::run_folder::run_name;
use proto::messages::evaluator::EvaluatorBeat;
use proto::messages::hello::Hello;
use proto::messages::join::JoinRequest;
use proto::messages::mismatch::Difference;
use proto::messages::weights::Published;
use tokio::sync::watch;
use tonic::Status;

use crate::actors::broadcast::Newest;
use crate::actors::evaluations::Evaluations;
use crate::actors::registry::{FullError, Joined, Registry};
use crate::checkpoint::files::CheckpointFiles;
use crate::replay::shards::ReplayClient;
use crate::report::progress::Progress;
use crate::training::stop::StopRules;

/// Characters of one difference that a refusal and the log show.
const SENTENCE_CHARS: usize = 1000;

/// State shared by the service's handlers.
#[derive(Debug)]
pub struct Shared {
    /// What every member must agree on.
    pub hello: Hello,
    /// The training data, so that a refusal can name the differences.
    pub manifest: TrainingManifest,
    /// The mean-position baseline that evaluators compare errors with.
    pub baseline: MeanPositionBaseline,
    /// Input of the config digest.
    pub config_json: String,
    /// Shard addresses as seen by actors.
    pub shards: Vec<String>,
    pub lease: Duration,
    /// When training ends.
    pub stop_rules: StopRules,
    pub updates: Arc<AtomicU64>,
    /// Finished episodes of all actors.
    pub episodes: Arc<AtomicU64>,
    /// The run is over: heartbeat replies have `stop` set.
    pub over: AtomicBool,
    pub registry: Mutex<Registry>,
    pub replay: Arc<ReplayClient>,
    pub newest: Newest,
    /// The first weights, if they are untrained.
    pub untrained: Option<Arc<Published>>,
    /// Zero of the registry's clock.
    pub began: Instant,
    /// Expected number of actors; `None`: all that have joined and not left.
    pub actors_expected: Option<usize>,
    /// Rows required before the first update.
    pub min_rows: u64,
    pub evaluations: Mutex<Evaluations>,
    /// Checkpoints for download.
    pub checkpoints: Arc<CheckpointFiles>,
    pub progress: watch::Receiver<Progress>,
    /// The last weights version of a finished run; 0 while it is running.
    pub last_version: AtomicU64,
    /// Held while a peer's manifest or configuration is compared.
    pub comparing: Mutex<()>,
}

impl Shared {
    /// Locks the registry; never held across an await.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic elsewhere cannot leave the counters and leases half-updated.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an actor an incarnation that no shard refuses.
    pub(crate) fn join(&self, slots: usize, host: &str) -> Result<Joined, FullError> {
        let newest = self.replay.newest_writer();
        let mut registry = self.registry();
        registry.later_than(newest);
        registry.join(self.now(), slots, host)
    }

    /// Locks the evaluations. The lock is held during writes to disk: only for threads that
    /// may block.
    pub fn evaluations(&self) -> MutexGuard<'_, Evaluations> {
        // Every change is complete before the lock is released.
        self.evaluations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Time on the registry's clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Expected number of actors.
    pub fn expected(&self, registry: &Registry) -> usize {
        self.actors_expected.unwrap_or_else(|| registry.present())
    }

    pub(crate) fn weights_version(&self) -> u64 {
        self.newest.borrow().as_ref().map_or(0, |p| p.version)
    }

    /// Refuses an actor of a different run, naming the differences. May block.
    pub(crate) fn agree(&self, request: &JoinRequest) -> Result<(), Status> {
        self.same(&request.hello, &request.manifest_json, &request.config_json)
            .map_err(|sentence| {
                tracing::warn!(host = request.host, why = sentence, "actor refused");
                Status::failed_precondition(sentence)
            })
    }

    /// Refuses an evaluator with other settings; its scans may differ. May block.
    pub(crate) fn may_evaluate(&self, beat: &EvaluatorBeat) -> Result<(), Status> {
        let hello = Hello {
            manifest: self.hello.manifest,
            ..beat.hello.clone()
        };
        self.same(&hello, &[], &beat.config_json)
            .map_err(|sentence| {
                tracing::warn!(host = beat.host, why = sentence, "evaluator refused");
                Status::failed_precondition(sentence)
            })
    }

    /// The differences as a sentence. Actors and evaluators may send the run's name as its id.
    fn same(&self, hello: &Hello, manifest: &[u8], config: &[u8]) -> Result<(), String> {
        let mut hello = hello.clone();
        if hello.run_id == run_name(&self.hello.run_id) {
            hello.run_id.clear();
        }
        let Err(mismatch) = self.hello.check(&hello) else {
            return Ok(());
        };
        // Reading JSON takes several times its bytes: of one peer at a time.
        let comparing = self.comparing.lock();
        let _one = comparing.unwrap_or_else(PoisonError::into_inner);
        let sentences = mismatch.differences.iter().map(|difference| {
            let details = match difference {
                Difference::Manifest { .. } => manifest_sentence(&self.manifest, manifest),
                Difference::Config { .. } => config_sentence(&self.config_json, config),
                _ => None,
            };
            shortened(details.unwrap_or_else(|| difference.to_string()))
        });
        Err(sentences.collect::<Vec<_>>().join("; "))
    }
}

/// At most [`SENTENCE_CHARS`] of a sentence: names of scans in it may be of any length.
fn shortened(sentence: String) -> String {
    match sentence.char_indices().nth(SENTENCE_CHARS) {
        None => sentence,
        Some((end, _)) => format!("{} …", &sentence[..end]),
    }
}

/// Which scans differ; `None` if the actor sent no readable manifest.
fn manifest_sentence(ours: &TrainingManifest, theirs: &[u8]) -> Option<String> {
    let theirs: TrainingManifest = serde_json::from_slice(theirs).ok()?;
    let diff = ours.diff(&theirs);
    Some(format!(
        "the training data of learner and actor differ: {diff}; give both the same list files"
    ))
}

/// Which keys differ.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_with_names_of_a_peer_is_shortened() {
        assert_eq!(shortened("short".into()), "short");
        let long = shortened("é".repeat(1 << 20));
        assert_eq!(long.chars().count(), SENTENCE_CHARS + 2);
        assert!(long.ends_with("é …"));
    }

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
