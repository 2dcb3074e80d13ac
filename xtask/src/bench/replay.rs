//! The replay service under load: real shards and real clients, each a process
//! of its own, over loopback, against peers on the same shapes.
//!
//! Every figure is appended to a file as soon as it is there, and what the file
//! holds is not measured again: a long bench can be stopped and go on.

mod case;
mod clients;
mod latency;
mod peers;
mod processor;
mod results;
mod shards;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::workspace::Workspace;

use case::{Ack, Case, Group, Operation};
use clients::Load;
use processor::Usage;
use results::{Held, Record, Results};
use shards::Shards;

/// Rows per second and latencies of the replay service, by shards, clients and
/// acknowledgement level, with Reverb and cpprb beside it.
///
/// The shards hold `--rows` rows together, are filled first, and then do one
/// operation at a time; `mixed` draws and updates batches and inserts as many,
/// as fast as it goes and then at half that rate.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Numbers of shards
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: Vec<u32>,
    /// Numbers of clients, each a process
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: Vec<u32>,
    /// When an inserted batch counts as stored
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "memory,durable"
    )]
    acks: Vec<Ack>,
    /// What is measured
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "insert,sample,update,mixed,mixed-half"
    )]
    operations: Vec<Operation>,
    /// Rows that all shards hold together
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Rows per batch
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Seconds per figure
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// The file that results are appended to (replay.jsonl in cargo's build folder unless given)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Begin a new file instead of going on with the one that is there
    #[arg(long)]
    fresh: bool,
    /// Folder for journals and the peers' Python, instead of cargo's build folder and the user's cache
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The Python 3.11 that the peers' environment is made with
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
    /// Measure the peers too (the default)
    #[arg(long, overrides_with = "no_peers")]
    peers: bool,
    /// Leave the peers out
    #[arg(long)]
    no_peers: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench replay
  cargo xtask bench replay --shards 1 --clients 1,4 --acks memory --no-peers
  cargo xtask bench replay --operations mixed-half --seconds 60 --fresh

A figure that is there already, with the same rows, batch and seconds, is not measured again.";

impl Options {
    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for &ack in &self.acks {
            for &shards in &self.shards {
                for &clients in &self.clients {
                    groups.push(Group {
                        shards,
                        clients,
                        ack,
                        rows: self.rows,
                        batch: self.batch,
                        seconds: self.seconds,
                    });
                }
            }
        }
        groups
    }

    /// What is to be measured; half of a peak needs the peak first.
    fn operations(&self) -> Vec<Operation> {
        let wanted = |operation: &Operation| {
            self.operations.contains(operation)
                || (*operation == Operation::Mixed
                    && self.operations.contains(&Operation::MixedHalf))
        };
        Operation::ALL.into_iter().filter(wanted).collect()
    }
}

/// `cargo xtask bench replay`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let build =
        "build --release --locked --package replay-server --bin replay-server --example load";
    command::run(&mut workspace.cargo(build))?;
    let target = workspace.target_folder()?;
    let scratch = options
        .scratch
        .clone()
        .unwrap_or_else(|| target.join("bench"));
    fs::create_dir_all(&scratch)
        .with_context(|| format!("{} cannot be made", scratch.display()))?;
    let file = options.out.clone();
    let file = file.unwrap_or_else(|| target.join("bench/replay.jsonl"));
    let results = Results::open(&file, options.fresh)?;
    println!("results: {}", file.display());
    let mut bench = Bench {
        server: target.join("release/replay-server"),
        load: target.join("release/examples/load"),
        scratch,
        results,
        progress: Progress::default(),
    };
    let mut failures = bench.ours(options);
    if !options.no_peers {
        let scratch = options.scratch.as_deref();
        let measured = peers::measure(workspace, options, scratch, &mut bench.results);
        failures.extend(measured.err().map(|error| format!("peers: {error:#}")));
    }
    table::print(&bench.results);
    if !failures.is_empty() {
        bail!("not everything was measured:\n{}", failures.join("\n"));
    }
    Ok(())
}

struct Bench {
    server: PathBuf,
    load: PathBuf,
    scratch: PathBuf,
    results: Results,
    progress: Progress,
}

impl Bench {
    /// Measures what the file does not hold yet; what went wrong.
    fn ours(&mut self, options: &Options) -> Vec<String> {
        let operations = options.operations();
        let missing: Vec<(Group, Vec<Operation>)> = options
            .groups()
            .into_iter()
            .map(|group| {
                let open = |&operation: &Operation| !self.results.has(Case { group, operation });
                (group, operations.iter().copied().filter(open).collect())
            })
            .filter(|(_, operations): &(_, Vec<_>)| !operations.is_empty())
            .collect();
        let figures = missing.iter().map(|(_, operations)| operations.len()).sum();
        let all = options.groups().len() * operations.len();
        println!(
            "{figures} figures to measure, {} are in the file",
            all - figures
        );
        self.progress = Progress::new(figures);
        let mut failures = Vec::new();
        for (group, operations) in missing {
            let before = self.progress.done;
            if let Err(error) = self.group(group, &operations) {
                println!("  {group}: {error:#}");
                failures.push(format!("{group}: {error:#}"));
            }
            self.progress.done = before + operations.len();
        }
        failures
    }

    /// Starts and fills shards, then does one operation after another.
    fn group(&mut self, group: Group, operations: &[Operation]) -> Result<()> {
        let shards = Shards::start(&self.server, group, &self.scratch)?;
        let empty = shards.resident_bytes()?;
        let load = Load::new(&self.load, group, shards.addresses());
        load.fill().map_err(|error| shards.explain(error))?;
        let held = Held {
            resident_bytes_empty: empty,
            resident_bytes: shards.resident_bytes()?,
            disk_bytes: shards.disk_bytes()?,
        };
        for &operation in operations {
            let case = Case { group, operation };
            self.progress.begin(case);
            let rate = match operation {
                Operation::MixedHalf => Some(self.half_of_peak(group)?),
                _ => None,
            };
            let before = Usage::now(&shards.pids())?;
            let run = load
                .run(operation, rate)
                .map_err(|error| shards.explain(error))?;
            let usage = before.until(&Usage::now(&shards.pids())?, run.processor_s);
            let record = Record {
                case,
                parts: run.parts,
                held,
                resident_bytes_after: shards.resident_bytes()?,
                disk_bytes_after: shards.disk_bytes()?,
                usage,
            };
            println!("  {}", table::brief(&record));
            self.results.add(record)?;
            self.progress.done += 1;
        }
        Ok(())
    }

    /// Rows per second of each operation, half of what `mixed` reached.
    fn half_of_peak(&self, group: Group) -> Result<f64> {
        let operation = Operation::Mixed;
        let peak = self.results.find(Case { group, operation });
        let peak = peak.and_then(|record| record.parts.get("sample"));
        Ok(peak
            .context("half of the peak is wanted, and there is no peak")?
            .rows_per_s
            / 2.0)
    }
}

/// What runs, what remains, and about how long that takes.
#[derive(Debug)]
struct Progress {
    started: Instant,
    figures: usize,
    done: usize,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Progress {
    fn new(figures: usize) -> Self {
        Self {
            started: Instant::now(),
            figures,
            done: 0,
        }
    }

    fn begin(&self, case: Case) {
        let left = match u32::try_from(self.done) {
            Ok(done) if done > 0 => {
                let each = self.started.elapsed() / done;
                let open = u32::try_from(self.figures - self.done).unwrap_or(u32::MAX);
                format!(", about {} left", minutes(each.saturating_mul(open)))
            }
            _ => String::new(),
        };
        println!("[{}/{}{left}] {case}", self.done + 1, self.figures);
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::parse_from(line.split_whitespace()).options
    }

    #[test]
    fn all_combinations_unless_told_otherwise() {
        let all = options("bench");
        assert_eq!(
            (all.groups().len(), all.operations().len()),
            (3 * 3 * 2, Operation::ALL.len())
        );
        let one = options("bench --shards 2 --clients 4 --acks durable --operations sample");
        let groups = one.groups();
        assert_eq!(groups.len(), 1);
        assert_eq!(
            groups[0].to_string(),
            "2 shards, 4 clients, durable acknowledgements"
        );
        assert_eq!(one.operations(), [Operation::Sample]);
    }

    #[test]
    fn half_of_the_peak_brings_the_peak_along() {
        let half = options("bench --operations mixed-half");
        assert_eq!(half.operations(), [Operation::Mixed, Operation::MixedHalf]);
    }
}
