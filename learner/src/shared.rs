//! What the service knows about the run, and who may take part.

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
use crate::actors::registry::Registry;
use crate::checkpoint::files::CheckpointFiles;
use crate::replay::shards::Store;
use crate::report::progress::Progress;
use crate::training::stop::StopRules;

/// What the service tells about the run.
#[derive(Debug)]
pub struct Shared {
    /// What everyone who joins must agree with.
    pub hello: Hello,
    /// The training data, so that a refusal can name what differs.
    pub manifest: TrainingManifest,
    /// What evaluators compare errors with.
    pub baseline: MeanPositionBaseline,
    /// What the config digest was made from.
    pub config_json: String,
    /// Shard addresses as actors reach them.
    pub shards: Vec<String>,
    /// Lease of an actor.
    pub lease: Duration,
    /// When training ends.
    pub stop_rules: StopRules,
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
    /// The first weights, where nothing was learned in them.
    pub untrained: Option<Arc<Published>>,
    /// When the registry's time began.
    pub began: Instant,
    /// Actors that there should be; `None`: all that have joined and not left.
    pub actors_expected: Option<usize>,
    /// Rows before the first update.
    pub min_rows: u64,
    /// What evaluators found.
    pub evaluations: Mutex<Evaluations>,
    /// Files to pull.
    pub checkpoints: Arc<CheckpointFiles>,
    /// The last report.
    pub progress: watch::Receiver<Progress>,
    /// The last weights of a run that is over; 0 while it goes on.
    pub last_version: AtomicU64,
}

impl Shared {
    /// The registry; never held across a wait.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // Counters and leases: a panic elsewhere leaves nothing half done.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The evaluations. Locked while a line or the best weights go to the disk:
    /// only for threads that may wait.
    pub fn evaluations(&self) -> MutexGuard<'_, Evaluations> {
        // Each change is whole before the next begins.
        self.evaluations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry's time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Actors that there should be.
    #[must_use]
    pub fn expected(&self, registry: &Registry) -> usize {
        self.actors_expected.unwrap_or_else(|| registry.present())
    }

    pub(crate) fn weights_version(&self) -> u64 {
        self.newest.borrow().as_ref().map_or(0, |p| p.version)
    }

    /// Refuses whoever trains something else, naming what differs.
    pub(crate) fn agree(&self, request: &JoinRequest) -> Result<(), Status> {
        self.same(&request.hello, &request.manifest_json, &request.config_json)
            .map_err(|sentence| {
                tracing::warn!(host = request.host, why = sentence, "actor refused");
                Status::failed_precondition(sentence)
            })
    }

    /// Refuses an evaluator with other settings; its scans may be others.
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

    /// What differs, as a sentence. Actors and evaluators may give the run's name for its id.
    fn same(&self, hello: &Hello, manifest: &[u8], config: &[u8]) -> Result<(), String> {
        let mut hello = hello.clone();
        if hello.run_id == run_name(&self.hello.run_id) {
            hello.run_id.clear();
        }
        let Err(mismatch) = self.hello.check(&hello) else {
            return Ok(());
        };
        let sentences = mismatch.differences.iter().map(|difference| {
            let told = match difference {
                Difference::Manifest { .. } => manifest_sentence(&self.manifest, manifest),
                Difference::Config { .. } => config_sentence(&self.config_json, config),
                _ => None,
            };
            told.unwrap_or_else(|| difference.to_string())
        });
        Err(sentences.collect::<Vec<_>>().join("; "))
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
