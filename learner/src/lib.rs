//! landmarl's learner: sampling, training, weight broadcast, checkpoints.
//!
//! Layout:
//! - [`schedule`], [`loss`], [`adam`], `average`, [`trainer`]: one training update, as functions and
//!   tensors; `replica` computes a part of a batch, `replicas` all of them side by side, `nccl` sums over GPUs.
//! - [`augment`], [`frames`], [`batch`], [`collate`]: sampled rows → windows; [`device_windows`]: the
//!   same on the device that trains; [`lessons`]: what a row teaches besides its own step.
//! - [`ledger`], [`registry`]: who may insert and sample how much; who acts.
//! - [`checkpoint`], [`checkpoint_folder`]: the trainer's state on disk; [`checkpoint_files`],
//!   [`checkpoint_stream`], [`checkpoint_http`]: the files for whoever pulls them.
//! - [`evaluations`]: what evaluators found. [`mod@status`], [`bottleneck`], [`status_text`]: what
//!   the run does, who holds it up, and both in words.
//! - [`store`], [`sampler`], [`priorities`]: the shards, what comes from them and goes back.
//! - [`broadcast`], [`service`]: what actors get.
//! - [`mod@run`], [`train_thread`], [`reporter`], [`recorder`], [`progress`], [`metrics`]: everything wired together.

pub mod adam;
pub mod augment;
mod average;
pub mod batch;
pub mod bottleneck;
pub mod broadcast;
pub mod checkpoint;
pub mod checkpoint_files;
pub mod checkpoint_folder;
pub mod checkpoint_http;
pub mod checkpoint_stream;
pub mod collate;
pub mod device_windows;
pub mod evaluations;
pub mod frames;
pub mod ledger;
pub mod lessons;
pub mod loss;
pub mod metrics;
pub mod nccl;
pub mod priorities;
pub mod progress;
pub mod recorder;
pub mod registry;
mod replica;
mod replicas;
pub mod reporter;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod service;
mod standstill;
pub mod status;
pub mod status_text;
pub mod store;
#[cfg(test)]
mod testing;
pub mod train_thread;
pub mod trainer;

pub use progress::Progress;
pub use run::{LearnerError, LearnerSetup, LearnerSummary, run};
