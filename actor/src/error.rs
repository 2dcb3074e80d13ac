//! Errors that end an actor.

use std::io;

use proto::transport::endpoint::AddressError;

use crate::rollout::RolloutError;
use crate::rollout::policy::PolicyError;

/// Why an actor failed.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The learner refuses this actor: its scans, configuration or version
    /// differ, as the message explains.
    #[error("the learner at {learner} refuses this actor: {sentence}")]
    Refused { learner: String, sentence: String },
    /// A shard refuses this actor's rows.
    #[error("{0}")]
    ShardRefused(String),
    /// An invalid address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Scans, agents and slots are inconsistent.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The policy failed to compute Q-values.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The weights cannot be loaded.
    #[error("weights version {version} from the learner cannot be used: {source}")]
    Weights {
        version: u64,
        source: model::ModelError,
    },
    /// `actor.device` is invalid.
    #[error("config key \"actor.device\": {0}")]
    Device(model::ModelError),
    /// An evaluation failed.
    #[error("evaluation failed: {0}")]
    Evaluation(String),
    /// The manifest cannot be serialized.
    #[error("the training manifest cannot be sent: {0}")]
    Manifest(#[from] serde_json::Error),
    /// One of the actor's tasks ended with a panic, which is a defect of landmarl.
    #[error("a task of the actor failed: {0}")]
    Task(String),
    /// The rollout thread cannot be started.
    #[error("cannot start the rollout thread: {0}")]
    Thread(io::Error),
    /// The rollout thread ended with a panic, which is a defect of landmarl.
    #[error("the rollout thread failed: {0}")]
    Panicked(String),
}
