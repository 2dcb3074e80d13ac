//! The messages as Rust types, and their conversions.

pub mod checkpoints;
pub mod chunks;
pub mod evaluator;
pub mod heartbeat;
pub mod hello;
pub mod insert;
pub mod join;
pub mod mismatch;
pub(crate) mod pack;
pub mod sample;
pub mod status;
pub mod update;
pub mod weights;
