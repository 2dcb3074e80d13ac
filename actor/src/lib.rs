//! landmarl's actor: walks many scans at once and streams what it learns from.
//!
//! Layout:
//! - [`policy`], [`network_policy`]: Q-values for what agents see, in one batch.
//! - [`group`]: one move of the agents on one scan, shared by all that follows.
//! - [`rollout`]: training episodes in many slots; [`episodes`] and
//!   [`exploration`] decide who walks where and how often at random.
//! - [`evaluate`], [`summary`]: greedy walks and what they say together; [`validate`] walks the
//!   selection scans beside training, [`guess`] is what it compares with.
//! - [`mod@evaluator`]: the service that does so; `newest`, `report`: the learner as it sees it.
//! - [`mod@run`]: the service; `link`, `session`: the learner and one life under it;
//!   `driver`, `feed`: the rollout's thread and what it is given.
//! - [`weights`]: the newest weights, checked.
//! - [`placement`], `outbox`, `uplink`: rows to the shards.
//! - [`counters`], [`metrics`], [`error`]: what an actor did, and why it failed; [`health`]: does this host act?

pub mod counters;
mod driver;
pub mod episodes;
pub mod error;
pub mod evaluate;
pub mod evaluator;
pub mod exploration;
mod feed;
#[cfg(test)]
mod fixture;
pub mod group;
pub mod guess;
pub mod health;
mod link;
mod memo;
pub mod metrics;
pub mod network_policy;
mod newest;
mod outbox;
pub mod placement;
pub mod policy;
mod report;
pub mod rollout;
pub mod run;
mod session;
mod slot;
pub mod summary;
mod uplink;
pub mod validate;
pub mod weights;

pub use error::ActorError;
pub use run::{ActorSetup, ActorSummary, Ending, run};
