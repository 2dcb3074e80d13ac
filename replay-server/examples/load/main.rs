//! A load generator for replay shards that calls them as fast as it can or at a
//! given rate; `cargo xtask bench replay` uses it.
//!
//! One process is one client, as an actor or a learner would be: it has its own
//! connections, its own writer id and its own insert streams. Every batch is a
//! new message; rows and priorities come from a pool made before the clock
//! starts, because making them is the work of actors and the learner.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result goes to standard output, everything else to standard error"
)]

mod insert;
mod load;
mod measured;
mod pool;
mod session;

use anyhow::Context as _;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use proto::messages::insert::BATCH_ROWS_MAX;
use serde::Serialize;
use std::process::ExitCode;

/// A client of a replay service that measures it.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// The shards, host:port each, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        value_name = "ADDRESS,..."
    )]
    shards: Vec<String>,
    /// The operation to repeat.
    #[arg(long, value_enum)]
    operation: Operation,
    /// Rows per batch.
    #[arg(long, default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=BATCH_ROWS_MAX as u64))]
    batch: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same load before, not counted.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Rows to insert with `fill`, over all shards.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// When an inserted batch counts as stored: in the table, or on disk.
    #[arg(long, default_value = "memory", value_parser = ["memory", "durable"])]
    ack: String,
    /// This client's number among all clients: its writer id, and the seed of its rows.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16))]
    client: u16,
    /// Requests in flight: batches per insert stream, at most its window; calls otherwise (4 unless given).
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    in_flight: Option<usize>,
    /// Rows per second of each operation with `mixed`; as fast as possible unless given.
    #[arg(long)]
    rate: Option<f64>,
    /// Agents per row (G).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    agents: u16,
    /// Frames per observation (H).
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    history: u8,
    /// Print `ready` on standard error, then begin when a line comes on standard input.
    #[arg(long)]
    wait: bool,
    /// Also print how often each latency was seen, to join the results of several clients.
    #[arg(long)]
    histogram: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    /// Insert `--rows` rows, then stop.
    Fill,
    /// Insert.
    Insert,
    /// Draw batches by priority.
    Sample,
    /// Send new priorities of rows drawn before the clock started.
    Update,
    /// Draw batches and update their priorities, and insert as many rows beside that.
    Mixed,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: a client is one core's worth of work at most, and the cores
    // are the servers' too.
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")
        .and_then(|runtime| runtime.block_on(load::run(&arguments)));
    match done {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
