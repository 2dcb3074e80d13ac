//! landmarl's replay shard: stores rows, samples them by priority, and enforces
//! the learner's insert limit.
//!
//! - [`table`]: rows, their priorities and prioritised sampling.
//! - [`limiter`]: the shard's side of the samples-per-insert rate limiter.
//! - [`journal`]: rows on disk, and their recovery.
//! - [`shard`], [`config`], [`error`]: the shard that owns these, its settings and errors.
//! - [`service`], [`mod@run`]: the I/O shell.
//! - [`report`], [`metrics`]: status as text and as metrics.

pub mod config;
pub mod error;
pub mod journal;
pub mod limiter;
pub mod metrics;
pub mod report;
pub mod run;
pub mod service;
pub mod shard;
pub mod table;

pub use config::ShardConfig;
pub use error::ShardError;
pub use journal::JournalConfig;
pub use run::{run, run_observed};
