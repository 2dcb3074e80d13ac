//! The `landmarl` command from outside: what it says when something is wrong,
//! and a whole small run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod data;
mod errors;
mod finished;
mod lockstep;
mod plain;
mod process;
mod run;
mod services;
