//! landmarl's learner: sampling, training, weight broadcast, checkpoints.
//!
//! - [`replay`]: the shards as the learner sees them: who may insert and sample how much.
//! - [`batch`]: from sampled rows to windows.
//! - [`training`]: the update, as functions and tensors, and the thread that runs it.
//! - [`actors`]: who acts, the weights they receive, and what evaluators measure.
//! - [`checkpoint`]: the trainer's state on disk, and its files for clients.
//! - [`report`]: progress, metrics, status, and the bottleneck.
//! - [`prepare`]: a run's folder and what it holds before the run starts.
//! - [`mod@run`], [`service`]: everything wired together, behind gRPC.

pub mod actors;
pub mod batch;
pub mod checkpoint;
pub mod error;
pub mod prepare;
pub mod replay;
pub mod report;
pub mod run;
pub mod service;
pub mod shared;
#[cfg(test)]
mod testing;
pub mod training;

pub use error::{LearnerError, TrainThreadError};
pub use prepare::PreparedRun;
pub use report::progress::Progress;
pub use run::{LearnerSetup, LearnerSummary, run};
