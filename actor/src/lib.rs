//! landmarl's actor: steps agents through many scans and streams transitions.
//!
//! - [`rollout`]: training episodes in many slots, one batched forward pass per step.
//! - [`uplink`]: rows to the shards.
//! - [`session`]: joining the learner, and the threads and tasks of one incarnation.
//! - [`evaluation`]: greedy evaluation and the evaluator service.
//! - [`mod@run`], [`error`]: the service, and why it fails.

pub mod error;
pub mod evaluation;
#[cfg(test)]
mod fixture;
pub mod rollout;
pub mod run;
pub mod session;
pub mod uplink;

pub use error::ActorError;
pub use run::{ActorSummary, Ending, run};
pub use session::ActorSetup;
