//! Why an actor ends before it was told to.

use std::io;

use proto::transport::endpoint::AddressError;

use crate::rollout::RolloutError;
use crate::rollout::policy::PolicyError;

/// Why an actor ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The learner does not take this actor: other scans, another configuration
    /// or another version. Its sentence says which.
    #[error("the learner at {learner} refuses this actor: {sentence}")]
    Refused {
        /// The learner's address.
        learner: String,
        /// What it said.
        sentence: String,
    },
    /// A shard does not take this actor's rows.
    #[error("{0}")]
    ShardRefused(String),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Scans, agents and slots do not fit together.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The weights do not answer.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Weights that are no network.
    #[error("weights version {version} from the learner cannot be used: {source}")]
    Weights {
        version: u64,
        source: model::ModelError,
    },
    /// `actor.device`.
    #[error("config key \"actor.device\": {0}")]
    Device(model::ModelError),
    /// The walks of an evaluation, or what is kept of it.
    #[error("evaluation failed: {0}")]
    Evaluation(String),
    /// The manifest cannot be written down.
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
