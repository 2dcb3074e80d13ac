//! landmarl's learner: sampling, training, weight broadcast, checkpoints.
//!
//! Layout:
//! - [`schedule`], [`loss`], [`adam`], [`trainer`]: one training update, as pure functions and tensors.
//! - [`augment`], [`batch`]: sampled rows → windows.
//! - [`ledger`], [`registry`]: who may insert and sample how much; who acts.

// NOTE (00:06): train_thread, run, reporter, progress, collate, main.rs are the lead's and being wired now.
pub mod adam;
pub mod broadcast;
pub mod collate;
pub mod priorities;
pub mod sampler;
pub mod service;
pub mod store;
pub mod augment;
pub mod batch;
pub mod checkpoint;
pub mod checkpoint_folder;
pub mod ledger;
pub mod loss;
pub mod registry;
mod replica;
pub mod schedule;
#[cfg(test)]
mod testing;
pub mod trainer;
pub mod progress;
pub mod reporter;
pub mod run;
pub mod train_thread;

pub use progress::Progress;
pub use run::{LearnerError, LearnerSetup, LearnerSummary, run};
