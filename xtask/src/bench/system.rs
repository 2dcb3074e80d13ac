//! The whole system: shards, a learner and actors as processes of this machine.
//! How soon published weights are acted with, and what memory all take together.

mod latency;
mod memory;
mod services;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::workspace::Workspace;
use crate::{command, libtorch};
use latency::{Latencies, Stages, Summary};
use memory::{Memory, Peak};
use services::{Programs, Services};

/// Between two readings of memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Scans are read and the first rows gathered before the first update.
const FIRST_UPDATE: Duration = Duration::from_secs(300);

/// How soon actors act with published weights, and the memory of all processes,
/// with configs/mouse-small.toml where its scans are, else with phantoms.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
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
    config: Option<PathBuf>,
    /// Use the binaries of DIR instead of building them for release
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// One more setting for all processes, as section.key=value
    #[arg(long, value_name = "SETTING")]
    set: Vec<String>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench system
  cargo xtask bench system --actors 2 --seconds 20 --bins target/debug";

/// A line of bench/system.jsonl in cargo's build folder.
#[derive(Debug, Serialize)]
struct Record<'a> {
    config: String,
    actors: u32,
    shards: u32,
    seconds: f64,
    updates: u64,
    updates_per_s: f64,
    cores: usize,
    /// Milliseconds from the publication on.
    weights: &'a Stages,
    memory: &'a Peak,
}

/// `cargo xtask bench system`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = workspace.target_folder()?;
    let bins = match &options.bins {
        Some(bins) => workspace.root().join(bins),
        None => {
            libtorch::ensure(workspace)?;
            let line =
                "build --release --locked --bins -p cli -p learner -p actor -p replay-server";
            command::run(&mut workspace.cargo(line))?;
            target.join("release")
        }
    };
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("no {}", folder.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("system-")
        .tempdir_in(&folder)?;
    let programs = Programs {
        bins,
        scratch: scratch.path().to_owned(),
    };
    let settings = settings(workspace, options, &programs)?;
    println!(
        "{} shards, a learner, {} actors, {}",
        options.shards,
        options.actors,
        settings.config.display()
    );
    let mut services = Services::start(workspace, &programs, options, &settings)?;
    let measured = measure(&mut services, options);
    let measured = measured.map_err(|error| services.explain(error))?;
    services.stop()?;
    tell(
        &target,
        options,
        &settings,
        &services.latencies()?,
        &measured,
    )
}

/// What all processes are given.
#[derive(Debug)]
struct Settings {
    config: PathBuf,
    set: Vec<String>,
}

/// The configuration, with phantoms for it where its own scans are not there.
fn settings(workspace: &Workspace, options: &Options, programs: &Programs) -> Result<Settings> {
    let root = workspace.root();
    let mut set = options.set.clone();
    let mouse = root.join("../shared/data/mouse/train/images.txt").is_file();
    let config = match &options.config {
        Some(config) => root.join(config),
        None if mouse => root.join("configs/mouse-small.toml"),
        None => {
            let data = programs.scratch.join("data");
            let mut phantom = workspace.command(&programs.path("landmarl"));
            phantom.args(["phantom", "--seed", "1", "--train", "12"]);
            phantom.args(["--selection", "0", "--test", "0", "--out"]);
            command::run(phantom.arg(&data))?;
            for list in ["images", "landmarks"] {
                let path = data.join(format!("train/{list}.txt"));
                set.push(format!("data.train_{list}={}", path.display()));
            }
            root.join("configs/phantom.toml")
        }
    };
    Ok(Settings { config, set })
}

#[derive(Debug)]
struct Measured {
    seconds: f64,
    updates: u64,
    peak: Peak,
}

fn measure(services: &mut Services, options: &Options) -> Result<Measured> {
    let mut memory = Memory::new(services.pids());
    let begin = Instant::now();
    // The last updates that were seen, and when.
    let mut first: Option<(Instant, u64)> = None;
    loop {
        thread::sleep(LOOK_EVERY);
        services.check()?;
        memory.look()?;
        let updates = services.updates()?;
        let Some((since, before)) = first else {
            if updates > 0 {
                println!("training after {:.0} s", begin.elapsed().as_secs_f64());
                services.begin()?;
                first = Some((Instant::now(), updates));
            } else if begin.elapsed() > FIRST_UPDATE {
                bail!("no update within {} s", FIRST_UPDATE.as_secs());
            }
            continue;
        };
        if since.elapsed() >= Duration::from_secs(options.seconds) {
            return Ok(Measured {
                seconds: since.elapsed().as_secs_f64(),
                updates: updates - before,
                peak: memory.peak(),
            });
        }
    }
}

fn tell(
    target: &Path,
    options: &Options,
    settings: &Settings,
    latencies: &Latencies,
    measured: &Measured,
) -> Result<()> {
    let stages = latencies.stages()?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 updates")]
    let updates_per_s = measured.updates as f64 / measured.seconds;
    let record = Record {
        config: settings.config.display().to_string(),
        actors: options.actors,
        shards: options.shards,
        seconds: measured.seconds,
        updates: measured.updates,
        updates_per_s,
        cores: thread::available_parallelism().map_or(1, usize::from),
        weights: &stages,
        memory: &measured.peak,
    };
    let line = serde_json::to_string(&record)? + "\n";
    let file = target.join("bench/system.jsonl");
    let opened = OpenOptions::new().create(true).append(true).open(&file);
    opened
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    for line in lines(&record) {
        println!("{line}");
    }
    println!("kept in {}", file.display());
    Ok(())
}

fn lines(r: &Record<'_>) -> Vec<String> {
    let latency = |what: &str, s: &Summary| {
        format!(
            "weights published → {what}: median {:.0} ms, 90 % {:.0} ms, longest {:.0} ms ({} of {} versions and actors; a version that a slow actor skips has none)",
            s.median, s.p90, s.max, s.count, s.possible
        )
    };
    #[expect(clippy::cast_precision_loss, reason = "bytes for people")]
    let gb = |bytes: u64| bytes as f64 / 1e9;
    vec![
        format!(
            "{} updates in {:.0} s: {:.1} updates/s on {} cores",
            r.updates, r.seconds, r.updates_per_s, r.cores
        ),
        latency("received", &r.weights.received),
        latency("the step before is done", &r.weights.begun),
        latency("the network is read", &r.weights.taken),
        latency("the end of the first step with them", &r.weights.acted),
        format!(
            "memory of all {} processes at its peak: {:.2} GB resident (each process by itself), {:.2} GB with shared pages counted once",
            r.memory.processes,
            gb(r.memory.resident),
            gb(r.memory.proportional)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_with_what_they_count() {
        let summary = |median| Summary {
            median,
            p90: 90.0,
            max: 120.4,
            count: 70,
            possible: 80,
        };
        let record = Record {
            config: "c.toml".into(),
            actors: 8,
            shards: 2,
            seconds: 60.0,
            updates: 300,
            updates_per_s: 5.0,
            cores: 2,
            weights: &Stages {
                received: summary(15.0),
                begun: summary(18.0),
                taken: summary(20.0),
                acted: summary(61.5),
            },
            memory: &Peak {
                processes: 11,
                resident: 3_210_000_000,
                proportional: 1_500_000_000,
            },
        };
        let told = lines(&record).join("\n");
        for words in [
            "300 updates in 60 s: 5.0 updates/s on 2 cores",
            "first step with them: median 62 ms, 90 % 90 ms, longest 120 ms (70 of 80",
            "memory of all 11 processes at its peak: 3.21 GB resident",
            "1.50 GB with shared pages counted once",
        ] {
            assert!(told.contains(words), "{words}\n{told}");
        }
    }
}
