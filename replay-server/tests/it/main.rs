//! The shard from outside: real gRPC on a free port, and the built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod attack;
mod client;
mod descriptors;
mod full;
mod insert;
mod journal;
mod kill;
mod process;
mod refuse;
mod sample;
mod security;
