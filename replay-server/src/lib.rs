//! landmarl's replay shard: keeps rows, draws them by priority, and lets no
//! more in than the learner allows.
//!
//! Layout:
//! - [`sum_tree`], [`selector`], [`table`]: rows and their priorities.
//! - [`credit`], [`waiting`]: the shard's side of the limiter.
//! - [`writers`]: batches sent twice, and batches that never came.
//! - [`ages`], [`counted`]: how old, how many.
//! - [`shard`], [`config`], [`error`]: these under one owner.
//! - [`journal`], [`restore`]: rows on disk, and back.
//! - [`report`], [`verify`], [`metrics`]: for people.
//! - [`batch`]: what comes from outside, checked.
//! - [`shared`], [`service`], [`insert_stream`], [`mod@run`]: the async rim.

pub mod ages;
pub mod batch;
pub mod config;
pub mod counted;
pub mod credit;
pub mod error;
pub mod insert_stream;
pub mod journal;
pub mod metrics;
pub mod report;
pub mod restore;
pub mod run;
pub mod selector;
pub mod service;
pub mod shard;
pub mod shared;
pub mod sum_tree;
pub mod table;
pub mod verify;
pub mod waiting;
pub mod writers;

pub use config::ShardConfig;
pub use error::ShardError;
pub use journal::JournalConfig;
pub use run::{run, run_observed};
