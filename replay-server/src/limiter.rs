//! The shard's side of the samples-per-insert rate limiter.

pub mod credit;
pub mod waiting;
