//! The learner's side of actors and evaluators.

pub mod broadcast;
pub mod evaluations;
pub mod incarnations;
pub mod registry;
