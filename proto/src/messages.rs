//! The messages as Rust types, and their conversions.

pub mod assembly;
pub mod checkpoints;
pub mod evaluator;
pub mod heartbeat;
pub mod hello;
pub mod insert;
pub mod join;
pub mod learner_status;
pub mod mismatch;
pub(crate) mod pack;
pub mod sample;
pub mod shard_status;
pub mod update;
pub mod weights;
