//! The command line.

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use common::transition::row::RowShape;
use proto::messages::insert::{AckLevel, BATCH_ROWS_MAX, INSERT_WINDOW};
use serde::Serialize;

/// A client of a replay service that measures it.
#[derive(Debug, Clone, Parser)]
#[command(name = "load")]
pub struct Arguments {
    /// The shards, host:port each, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        value_name = "ADDRESS,..."
    )]
    pub shards: Vec<String>,
    /// What to do all the time.
    #[arg(long, value_enum)]
    pub operation: Operation,
    /// Rows per batch.
    #[arg(long, default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=BATCH_ROWS_MAX as u64))]
    pub batch: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of the same load before, not counted.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    /// Rows to insert with `fill`, over all shards.
    #[arg(long, default_value_t = 1_000_000)]
    pub rows: usize,
    /// When an inserted batch counts as stored.
    #[arg(long, value_enum, default_value_t = Ack::Memory)]
    pub ack: Ack,
    /// This client's number among all clients: its writer id, and the seed of its rows.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16))]
    pub client: u16,
    /// Requests in flight: batches per insert stream, at most its window; calls otherwise (4 unless given).
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    in_flight: Option<usize>,
    /// Rows per second of each operation with `mixed`; as fast as possible unless given.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Agents per row (G).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    agents: u16,
    /// Frames per observation (H).
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    history: u8,
    /// Print `ready` on standard error, then begin when a line comes on standard input.
    #[arg(long)]
    pub wait: bool,
    /// Also print how often each latency was seen, to join the results of several clients.
    #[arg(long)]
    pub histogram: bool,
}

impl Arguments {
    pub fn shape(&self) -> RowShape {
        RowShape {
            agents: self.agents,
            history: self.history,
        }
    }

    /// Calls in flight of a client that samples or updates: by default enough
    /// that neither side waits for the other.
    pub fn in_flight(&self) -> usize {
        self.in_flight.unwrap_or(4)
    }

    /// Batches in flight per insert stream.
    pub fn insert_window(&self) -> usize {
        let window = INSERT_WINDOW as usize;
        match self.operation {
            // There `--in-flight` is about the calls.
            Operation::Mixed => window,
            _ => self.in_flight.unwrap_or(window).min(window),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// In the table.
    Memory,
    /// On disk.
    Durable,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Memory => Self::Memory,
            Ack::Durable => Self::Durable,
        }
    }
}
