//! End-to-end tests of the `landmarl` command: its error messages, and complete
//! small runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checkpoints;
mod cluster;
mod data;
mod disks;
mod errors;
mod estimator;
mod evaluator;
mod finished;
mod fixtures;
mod formats;
mod interop;
mod lockstep;
mod logs;
mod loki_stand_in;
mod metrics;
mod observability;
mod older_version;
mod original;
mod parity;
mod plain;
mod process;
mod published;
mod pull;
#[path = "../../../common/tests/python_env/mod.rs"]
mod python_env;
mod readme;
mod results;
mod run;
mod security;
mod services;
mod signals;
mod snapshots;
mod status;
mod training;
mod weights_files;
