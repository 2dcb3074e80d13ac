//! What is measured: which service, which load.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When an inserted batch counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// In the table.
    Memory,
    /// On disk; the shards have journals.
    Durable,
}

impl Ack {
    /// As the command line and the file have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        }
    }
}

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Rows in.
    Insert,
    /// Rows out, by priority.
    Sample,
    /// New priorities.
    Update,
    /// Samples, their updates, and as many inserts.
    Mixed,
    /// The same at half the rate.
    MixedHalf,
}

impl Operation {
    /// In the order of measuring.
    pub const ALL: [Self; 5] = [
        Self::Insert,
        Self::Sample,
        Self::Update,
        Self::Mixed,
        Self::MixedHalf,
    ];

    /// As the command line and the file have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Sample => "sample",
            Self::Update => "update",
            Self::Mixed => "mixed",
            Self::MixedHalf => "mixed-half",
        }
    }
}

/// One service and its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Server processes.
    pub shards: u32,
    /// Client processes.
    pub clients: u32,
    /// When an inserted batch counts as stored.
    pub ack: Ack,
    /// Rows that all shards hold together.
    pub rows: u64,
    /// Rows per batch.
    pub batch: u32,
    /// Seconds per figure.
    pub seconds: u32,
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Which service.
    #[serde(flatten)]
    pub group: Group,
    /// Which load.
    pub operation: Operation,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |n: u32| if n == 1 { "" } else { "s" };
        let (shards, clients) = (self.shards, self.clients);
        write!(
            f,
            "{shards} shard{}, {clients} client{}, {} acknowledgements",
            many(shards),
            many(clients),
            self.ack.name()
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.operation.name())
    }
}
