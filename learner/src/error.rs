//! Why a learner cannot start, and why training ends early.

use std::path::PathBuf;

use crate::batch::FillError;
use crate::checkpoint::CheckpointError;
use crate::replay::limiter::RateLimiterError;
use crate::training::trainer::TrainError;

#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    #[error(transparent)]
    RateLimiter(#[from] RateLimiterError),
    #[error("cluster.shards: {0}")]
    Address(#[from] proto::transport::endpoint::AddressError),
    #[error(transparent)]
    Train(#[from] TrainThreadError),
    #[error("cannot write metrics to {path}: {source}; check permissions and free space")]
    Metrics {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A thread could not be started, or panicked.
    #[error("the {0} thread failed; see the log")]
    Thread(&'static str),
    #[error(transparent)]
    Serve(#[from] proto::transport::serve::ServeError),
    /// The run folder cannot be written to.
    #[error(
        "{0}; shards tell learners and actors apart by this file: check permissions and free space"
    )]
    Incarnations(#[from] common::run::durable::DurableError),
}

/// Why training ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainThreadError {
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The network or libtorch failed.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The final checkpoint could not be written; earlier ones still exist.
    #[error("the final checkpoint was not saved: {0}")]
    FinalCheckpoint(String),
    #[error("cannot write the manifest as JSON: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("config key \"learner.{0}\": {1}")]
    Device(&'static str, String),
    /// A batch could not be made.
    #[error(transparent)]
    Batch(#[from] FillError),
    /// The collate thread panicked.
    #[error("the collate thread failed; see the log")]
    Collate,
}
