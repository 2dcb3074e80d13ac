//! A training update of the paper's network: `updates`, an example of the
//! learner, against the PyTorch loop `bench/learner_loop.py`, in turns.

mod record;
mod table;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use crate::{command, libtorch};

pub use record::Precision;
use record::{Line, Run, Side};

/// Both sides: `bench/learner_loop.py` knows no other number by default.
const AGENTS: u32 = 2;

/// Milliseconds per training update of the paper's network, two agents, by
/// precision, with the PyTorch loop on the same device and batch beside it.
///
/// The sides take turns, and the median over turns counts. On a CPU PyTorch
/// computes in f32 only: without instructions for bf16 its bf16 convolutions
/// take tens of times as long, and nobody would choose them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Where both sides compute
    #[arg(long, value_enum, default_value_t = Place::Cpu)]
    device: Place,
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
    #[arg(long, value_enum)]
    only_precision: Option<Precision>,
    /// PyTorch in bf16 on a CPU too: slow unless it has AVX-512 BF16 or AMX
    #[arg(long)]
    their_bf16: bool,
    /// A Python with torch and numpy
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
    /// Folder with `updates`, instead of building it
    #[arg(long, value_name = "DIR")]
    prebuilt: Option<PathBuf>,
    /// The file that results are appended to (bench/learner.jsonl in cargo's build folder unless given)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench learner --python venv/bin/python
  cargo xtask bench learner --only-precision f32 --batch 32 --turns 3
  cargo xtask bench learner --device cuda --python venv/bin/python

On a GPU machine without Rust: cargo xtask bench gpu --pack DIR, then DIR/bench/gpu.sh there.";

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    Cpu,
    Cuda,
}

/// Each agent has the same number of rows.
fn batch(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(rows) if rows > 0 && rows.is_multiple_of(AGENTS) => Ok(rows),
        _ => Err(format!("expected a multiple of {AGENTS}, the agents")),
    }
}

impl Options {
    fn precisions(&self) -> Vec<Precision> {
        let all = [Precision::F32, Precision::Bf16];
        all.into_iter()
            .filter(|&p| self.only_precision.is_none_or(|only| only == p))
            .collect()
    }

    /// What runs, in order: ours and theirs in turns, so that what disturbs the
    /// machine for a while disturbs both.
    fn plan(&self) -> Vec<(Side, Precision)> {
        let mut plan = Vec::new();
        for precision in self.precisions() {
            // Ours in bf16 is held against their f32 on a CPU.
            let theirs = match self.device {
                Place::Cpu if !self.their_bf16 => Precision::F32,
                Place::Cpu | Place::Cuda => precision,
            };
            for _ in 0..self.turns {
                plan.push((Side::Landmarl, precision));
                plan.push((Side::Pytorch, theirs));
            }
        }
        plan
    }

    /// The arguments that both sides take alike.
    fn shape(&self, precision: Precision) -> Vec<String> {
        let (device, batch, updates, warmup) = match self.device {
            Place::Cpu => ("cpu", 16, 10, 2),
            Place::Cuda => ("cuda", 128, 100, 10),
        };
        [
            ("--device", device.to_owned()),
            ("--precision", precision.name().to_owned()),
            ("--batch", self.batch.unwrap_or(batch).to_string()),
            ("--updates", self.updates.unwrap_or(updates).to_string()),
            ("--warmup", self.warmup.unwrap_or(warmup).to_string()),
            ("--threads", self.threads.to_string()),
            ("--agents", AGENTS.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// `cargo xtask bench learner`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let updates = program(workspace, options)?;
    let file = match &options.out {
        Some(file) => file.clone(),
        None => workspace.target_folder()?.join("bench/learner.jsonl"),
    };
    let mut out = open(&file)?;
    println!("results: {}", file.display());
    let script = workspace.root().join("bench/learner_loop.py");
    let theirs = |more: &[String]| {
        let mut command = workspace.command(&options.python.to_string_lossy());
        command.arg(&script).args(more);
        command
    };
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for (side, precision) in options.plan() {
        let shape = options.shape(precision);
        let mut command = match side {
            Side::Landmarl => {
                let mut command = workspace.command(&updates.to_string_lossy());
                command.args(shape);
                command
            }
            Side::Pytorch => theirs(&shape),
        };
        match measure(&mut command, &mut out) {
            Ok(Line::Run(run)) => lines.push(Run { side, ..run }),
            Ok(Line::Ceiling(_)) => failures.push(format!("{side:?} measured no update")),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    let mut shape = options.shape(Precision::F32);
    shape.push("--ceiling".to_owned());
    let ceiling = match measure(&mut theirs(&shape), &mut out) {
        Ok(Line::Ceiling(ceiling)) => Some(ceiling),
        Ok(Line::Run(_)) => None,
        Err(error) => {
            failures.push(format!("{error:#}"));
            None
        }
    };
    for line in table::lines(&lines, ceiling.as_ref()) {
        println!("{line}");
    }
    if !failures.is_empty() {
        bail!("not everything was measured:\n{}", failures.join("\n"));
    }
    Ok(())
}

/// Our side: built, unless it is there already.
fn program(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.prebuilt {
        let file = std::path::absolute(folder)?.join("updates");
        if !file.is_file() {
            bail!("{} is not there", file.display());
        }
        return Ok(file);
    }
    libtorch::ensure(workspace)?;
    let build = "build --release --locked -p learner --example updates";
    command::run(&mut workspace.cargo(build))?;
    Ok(workspace.target_folder()?.join("release/examples/updates"))
}

fn open(file: &Path) -> Result<File> {
    let shown = file.display();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{shown} cannot be made"))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    options
        .open(file)
        .with_context(|| format!("{shown} cannot be written"))
}

/// Runs one side, keeps what it printed, whole, and shows the figure.
fn measure(command: &mut Command, out: &mut File) -> Result<Line> {
    println!("$ {}", command::show(command));
    let printed = command::read(command)?;
    let (text, line) =
        record::find(&printed).with_context(|| format!("`{}`", command::show(command)))?;
    out.write_all(format!("{text}\n").as_bytes())
        .context("a result cannot be written")?;
    if let Line::Run(run) = &line {
        println!("  {:.2} ms per update", run.ms_per_update);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Words::parse_from(line.split_whitespace()).options
    }

    #[test]
    fn sides_take_turns_and_a_cpu_compares_with_f32() {
        use Precision::{Bf16, F32};
        let (ours, theirs) = (Side::Landmarl, Side::Pytorch);
        let cases = [
            (
                "bench --turns 1",
                vec![(ours, F32), (theirs, F32), (ours, Bf16), (theirs, F32)],
            ),
            (
                "bench --turns 1 --device cuda",
                vec![(ours, F32), (theirs, F32), (ours, Bf16), (theirs, Bf16)],
            ),
            (
                "bench --only-precision bf16 --their-bf16",
                vec![(ours, Bf16), (theirs, Bf16), (ours, Bf16), (theirs, Bf16)],
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(options(line).plan(), expected, "{line}");
        }
    }

    #[test]
    fn sizes_follow_the_device_unless_given() {
        let cases = [
            (
                "bench",
                "--device cpu --precision f32 --batch 16 --updates 10 --warmup 2",
            ),
            (
                "bench --device cuda",
                "--device cuda --precision f32 --batch 128 --updates 100 --warmup 10",
            ),
            (
                "bench --device cuda --batch 64 --updates 7 --warmup 0",
                "--device cuda --precision f32 --batch 64 --updates 7 --warmup 0",
            ),
        ];
        for (line, expected) in cases {
            let shape = options(line).shape(Precision::F32).join(" ");
            assert_eq!(shape, format!("{expected} --threads 2 --agents 2"));
        }
    }

    #[test]
    fn a_batch_is_shared_by_the_agents() {
        for bad in ["0", "15", "-2", "x", ""] {
            assert!(batch(bad).is_err(), "{bad}");
        }
        assert_eq!(batch("16"), Ok(16));
    }
}
