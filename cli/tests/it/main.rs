//! The `landmarl` command from outside: what it says when something is wrong,
//! and a whole small run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checkpoints;
mod cluster;
mod data;
mod errors;
mod estimator;
mod finished;
mod fixtures;
mod formats;
mod interop;
mod lockstep;
mod original;
mod plain;
mod process;
mod published;
#[path = "../../../common/tests/python_env/mod.rs"]
mod python_env;
mod readme;
mod run;
mod services;
mod snapshots;
