//! Acting: `acting`, an example of the actor, and one environment of the PyTorch
//! loop `bench/learner_loop.py --act`, in turns.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use super::learner::Precision;
use crate::workspace::Workspace;
use crate::{command, libtorch};

/// Environment steps per second, and milliseconds per window of the paper's
/// network that two agents see, with the PyTorch loop's beside it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Scans that we walk through at once; the loop walks through one
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
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// A Python with torch and numpy
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench actor --python venv/bin/python
  cargo xtask bench actor --precision bf16 --slots 32 --python venv/bin/python";

#[derive(Debug, Deserialize)]
struct Environment {
    steps_per_s_by_stride: Vec<f64>,
    steps_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct Acting {
    ms_per_window: f64,
    /// Ours alone: the part of rendering.
    render_share: Option<f64>,
}

/// `cargo xtask bench actor`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    let build = "build --release --locked -p actor --example acting";
    command::run(&mut workspace.cargo(build))?;
    let target = workspace.target_folder()?;
    let acting = target.join("release/examples/acting");
    let mut kept = String::new();
    let mut command = workspace.command(&acting.to_string_lossy());
    // One thread; enough steps for a second or so.
    command.args(["environment", "--steps", "2000", "--warmup", "100"]);
    let environment: Environment = read(&mut command, &mut kept)?;
    let (mut ours, mut theirs, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.turns {
        let mut command = workspace.command(&acting.to_string_lossy());
        command.args(["network", "--precision", options.precision.name()]);
        command.args(["--slots", &options.slots.to_string()]);
        command.args(["--steps", &options.steps.to_string()]);
        command.args(["--threads", &options.threads.to_string()]);
        let found: Acting = read(&mut command, &mut kept)?;
        ours.push(found.ms_per_window);
        shares.extend(found.render_share);
        let mut command = workspace.command(&options.python.to_string_lossy());
        command.arg(workspace.root().join("bench/learner_loop.py"));
        command.args(["--act", "--threads", &options.threads.to_string()]);
        let found: Acting = read(&mut command, &mut kept)?;
        theirs.push(found.ms_per_window);
    }
    keep(&target.join("bench/actor.jsonl"), &kept)?;
    for line in lines(options.precision, &environment, ours, theirs, &shares)? {
        println!("{line}");
    }
    Ok(())
}

/// What a side printed last, which is JSON.
fn read<T: for<'a> Deserialize<'a>>(command: &mut Command, kept: &mut String) -> Result<T> {
    println!("$ {}", command::show(command));
    let printed = command::read(command)?;
    let line = printed.lines().rfind(|line| line.starts_with('{'));
    let line = line.context("printed no line of JSON")?;
    kept.push_str(line);
    kept.push('\n');
    serde_json::from_str(line).with_context(|| format!("printed {line}"))
}

fn keep(file: &std::path::Path, lines: &str) -> Result<()> {
    let shown = file.display();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{shown} cannot be made"))?;
    }
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(file);
    file.and_then(|mut file| file.write_all(lines.as_bytes()))
        .with_context(|| format!("{shown} cannot be written"))
}

fn lines(
    precision: Precision,
    environment: &Environment,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    shares: &[f64],
) -> Result<Vec<String>> {
    let strides: Vec<String> = environment
        .steps_per_s_by_stride
        .iter()
        .map(|rate| format!("{rate:.0}"))
        .collect();
    let (Some(ours), Some(theirs)) = (median(ours), median(theirs)) else {
        bail!("nothing was measured");
    };
    let share = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    Ok(vec![
        format!(
            "environment, 2 agents, windows of 45³, one thread: {:.0} steps/s (strides 1, 2, 3: {})",
            environment.steps_per_s,
            strides.join(", ")
        ),
        format!(
            "landmarl {}: {ours:.1} ms per acted window, {:.1} % of it rendering",
            precision.name(),
            100.0 * share
        ),
        format!("PyTorch f32, one environment: {theirs:.1} ms per acted window"),
        format!("ratio {:.2}", ours / theirs),
    ])
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_medians() {
        let environment = Environment {
            steps_per_s_by_stride: vec![30_000.4, 25_000.0, 20_000.0],
            steps_per_s: 24_324.0,
        };
        let (ours, theirs) = (vec![30.0, 35.0, 90.0], vec![70.0, 10.0, 75.0]);
        let found = lines(Precision::F32, &environment, ours, theirs, &[0.02, 0.04]).unwrap();
        assert_eq!(
            found,
            [
                "environment, 2 agents, windows of 45³, one thread: 24324 steps/s (strides 1, 2, 3: 30000, 25000, 20000)",
                "landmarl f32: 35.0 ms per acted window, 3.0 % of it rendering",
                "PyTorch f32, one environment: 70.0 ms per acted window",
                "ratio 0.50",
            ]
        );
        assert!(lines(Precision::F32, &environment, vec![], vec![1.0], &[]).is_err());
    }
}
