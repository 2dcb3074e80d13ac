//! The learner's side of the replay shards: sampling budget, priorities, watchdog.

pub mod limiter;
pub mod priorities;
pub mod shards;
pub(crate) mod watchdog;
