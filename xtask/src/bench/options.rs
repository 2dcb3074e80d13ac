//! Command lines of the benches. A script gets every field that is not skipped
//! as a flag of the same name.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// Agents of bench/learner_loop.py, each of which has the same number of rows.
const AGENTS: u32 = 2;
const WEIGHTS: &str = "../shared/reference/rl-medical-single-agent-ac.safetensors";

#[derive(Debug, Args, Serialize)]
pub struct Eval {
    /// A Python with torch, numpy and nibabel
    #[arg(long, default_value = "python3", value_name = "FILE")]
    #[serde(skip)]
    pub python: PathBuf,
    /// Weights of one agent with rl-medical's names
    #[arg(long, default_value = WEIGHTS, value_name = "FILE")]
    weights: PathBuf,
    /// Folder with images.txt and landmarks.txt
    #[arg(long, default_value = "../shared/data/brain", value_name = "DIR")]
    data: PathBuf,
    /// The first so many of the 19 published starts
    #[arg(long, default_value_t = 19)]
    starts: usize,
}

/// Environment steps per second, and milliseconds per window of the paper's
/// network that two agents see, with the PyTorch loop's beside it.
#[derive(Debug, Args, Serialize)]
#[command(after_help = ACTOR_EXAMPLES)]
pub struct Actor {
    /// Scans that our side acts in at once; the loop acts in one
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: u32,
    /// Timed steps per turn
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Turns of each side
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Threads of each side's network
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Ours in this precision; theirs is f32
    #[arg(long, value_parser = ["f32", "bf16"], default_value = "f32")]
    precision: String,
    /// A Python with torch and numpy
    #[arg(long, default_value = "python3", value_name = "FILE")]
    #[serde(skip)]
    pub python: PathBuf,
}

const ACTOR_EXAMPLES: &str = "Examples:
  cargo xtask bench actor --python venv/bin/python
  cargo xtask bench actor --precision bf16 --slots 32 --python venv/bin/python";

/// Milliseconds per training update of the paper's network, two agents, by
/// precision, with the PyTorch loop on the same device and batch beside it.
///
/// The sides take turns, and the median over turns counts. On a CPU PyTorch
/// computes in f32 only: without instructions for bf16 its bf16 convolutions
/// take tens of times as long, and nobody would choose them.
#[derive(Debug, Args, Serialize)]
#[command(after_help = LEARNER_EXAMPLES)]
#[serde(rename_all = "kebab-case")]
pub struct Learner {
    /// Where both sides compute
    #[arg(long, value_parser = ["cpu", "cuda"], default_value = "cpu")]
    device: String,
    /// Rows per update [default: 16 on the CPU, 128 on a GPU]
    #[arg(long, value_parser = batch)]
    batch: Option<u32>,
    /// Timed updates per turn [default: 10 on the CPU, 100 on a GPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    updates: Option<u32>,
    /// Updates before those [default: 2 on the CPU, 10 on a GPU]
    #[arg(long)]
    warmup: Option<u32>,
    /// Turns of each side
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Threads of each side
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// This precision only
    #[arg(long, value_parser = ["f32", "bf16"])]
    only_precision: Option<String>,
    /// PyTorch in bf16 on a CPU too: slow unless it has AVX-512 BF16 or AMX
    #[arg(long)]
    their_bf16: bool,
    /// A Python with torch and numpy
    #[arg(long, default_value = "python3", value_name = "FILE")]
    #[serde(skip)]
    pub python: PathBuf,
    /// Folder with `updates`, instead of building it
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub prebuilt: Option<PathBuf>,
    /// The file that results are appended to (bench/learner.jsonl in cargo's build folder unless given)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub out: Option<PathBuf>,
}

const LEARNER_EXAMPLES: &str = "Examples:
  cargo xtask bench learner --python venv/bin/python
  cargo xtask bench learner --only-precision f32 --batch 32 --turns 3
  cargo xtask bench learner --device cuda --python venv/bin/python

On a GPU machine without Rust: cargo xtask bench gpu --pack DIR, then DIR/bench/gpu.sh there.";

fn batch(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(rows) if rows > 0 && rows.is_multiple_of(AGENTS) => Ok(rows),
        _ => Err(format!("expected a multiple of {AGENTS}, the agents")),
    }
}

/// How soon actors act with published weights, and the memory of all processes,
/// with configs/mouse-small.toml where its scans are, else with phantoms.
#[derive(Debug, Args, Serialize)]
#[command(after_help = SYSTEM_EXAMPLES)]
pub struct System {
    /// Actors, each a process
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    actors: u32,
    /// Shards, each a process
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    shards: u32,
    /// Measured seconds, from the first update on
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Configuration to run [default: configs/mouse-small.toml, or configs/phantom.toml without its scans]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Use the binaries of DIR instead of building them for release
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub bins: Option<PathBuf>,
    /// One more setting for all processes, as section.key=value
    #[arg(long, value_name = "SETTING")]
    set: Vec<String>,
}

const SYSTEM_EXAMPLES: &str = "Examples:
  cargo xtask bench system
  cargo xtask bench system --actors 2 --seconds 20 --bins target/debug";

const ACKS: [&str; 2] = ["memory", "durable"];
const OPERATIONS: [&str; 5] = ["insert", "sample", "update", "mixed", "mixed-half"];
const EVERY_OPERATION: &str = "insert,sample,update,mixed,mixed-half";

/// Rows per second and latencies of the replay service, by shards, clients and
/// acknowledgement level, with Reverb and cpprb beside it.
///
/// The shards hold `--rows` rows together, are filled first, and then do one
/// operation at a time; `mixed` draws and updates batches and inserts as many,
/// as fast as it goes and then at half that rate.
#[derive(Debug, Args, Serialize)]
#[command(after_help = REPLAY_EXAMPLES)]
pub struct Replay {
    /// Numbers of shards
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: Vec<u32>,
    /// Numbers of clients, each a process
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: Vec<u32>,
    /// When an inserted batch counts as stored: in the table, or on disk, in a journal
    #[arg(long, value_delimiter = ',', value_parser = ACKS, default_value = "memory,durable")]
    acks: Vec<String>,
    /// What is measured: rows in, rows out by priority, new priorities; samples, their
    /// updates and as many inserts; the same at half that rate
    #[arg(long, value_delimiter = ',', value_parser = OPERATIONS, default_value = EVERY_OPERATION)]
    operations: Vec<String>,
    /// Rows that all shards hold together
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Rows per batch
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Seconds per figure
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// The file that results are appended to (bench/replay.jsonl in cargo's build folder unless given)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// Begin a new file instead of going on with the one that is there
    #[arg(long)]
    fresh: bool,
    /// Folder for journals and the peers' Python, instead of cargo's build folder and the user's cache
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub scratch: Option<PathBuf>,
    /// The Python 3.11 that creates the peers' environment
    #[arg(long, default_value = "python3", value_name = "FILE")]
    #[serde(skip)]
    pub python: PathBuf,
    /// Measure the peers too (the default)
    #[arg(long, overrides_with = "no_peers")]
    #[serde(skip)]
    peers: bool,
    /// Leave the peers out
    #[arg(long)]
    #[serde(skip)]
    pub no_peers: bool,
}

const REPLAY_EXAMPLES: &str = "Examples:
  cargo xtask bench replay
  cargo xtask bench replay --shards 1 --clients 1,4 --acks memory --no-peers
  cargo xtask bench replay --operations mixed-half --seconds 60 --fresh

A figure that is there already, with the same rows, batch and seconds, is not measured again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shared_by_the_agents() {
        for bad in ["0", "15", "-2", "x", ""] {
            assert!(batch(bad).is_err(), "{bad}");
        }
        assert_eq!(batch("16"), Ok(16));
    }
}
