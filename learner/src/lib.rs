//! landmarl's learner: sampling, training, weight broadcast, checkpoints.
//!
//! Layout:
//! - [`schedule`], [`loss`], [`adam`], `average`, [`trainer`]: one training update, as functions and
//!   tensors; `replica` computes a part of a batch, `replicas` all of them side by side, `nccl` sums over GPUs.
//! - [`augment`], [`frames`], [`batch`], [`collate`]: sampled rows → windows; [`device_windows`]: the
//!   same on the device that trains.
//! - [`ledger`], [`registry`]: who may insert and sample how much; who acts.
//! - [`checkpoint`], [`checkpoint_folder`]: the trainer's state on disk.
//! - [`store`], [`sampler`], [`priorities`]: the shards, what comes from them and goes back.
//! - [`broadcast`], [`service`]: what actors get.
//! - [`mod@run`], [`train_thread`], [`reporter`], [`progress`]: everything wired together.

pub mod adam;
pub mod augment;
mod average;
pub mod batch;
pub mod broadcast;
pub mod checkpoint;
pub mod checkpoint_folder;
pub mod collate;
pub mod device_windows;
pub mod frames;
pub mod ledger;
pub mod loss;
pub mod nccl;
pub mod priorities;
pub mod progress;
pub mod registry;
mod replica;
mod replicas;
pub mod reporter;
pub mod run;
pub mod sampler;
pub mod schedule;
pub mod service;
mod standstill;
pub mod store;
#[cfg(test)]
mod testing;
pub mod train_thread;
pub mod trainer;

pub use progress::Progress;
pub use run::{LearnerError, LearnerSetup, LearnerSummary, run};
