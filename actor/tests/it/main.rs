//! The actor against a learner and shards made for these tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod binary;
mod evaluator;
mod fake_learner;
mod fake_shard;
mod half;
mod learner;
mod server;
mod setup;
mod shards;
