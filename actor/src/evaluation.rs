//! Greedy evaluation, validation during training, and the evaluator service.

pub mod evaluate;
pub mod evaluator;
pub mod health;
pub(crate) mod newest;
pub(crate) mod q_cache;
pub(crate) mod report;
pub mod summary;
pub mod validate;
