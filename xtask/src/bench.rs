//! Whole-system figures, as ratios to what others would use instead.

mod actor;
mod gpu;
mod learner;
mod replay;
mod system;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::command;
use crate::libtorch;
use crate::workspace::Workspace;

/// Measure landmarl against what others would use, both in one run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench eval --python venv/bin/python
  cargo xtask bench replay
  cargo xtask bench actor --python venv/bin/python
  cargo xtask bench learner --python venv/bin/python
  cargo xtask bench system
  cargo xtask bench gpu --pack carry
  cargo xtask bench eval --starts 3 --data ../shared/data/brain --weights ../shared/reference/rl-medical-single-agent-ac.safetensors";

#[derive(Debug, Subcommand)]
enum What {
    /// Walks of a published agent: time per step of `landmarl eval` and of bench/eval_loop.py
    Eval(Eval),
    /// The replay service, in processes of its own, against Reverb and cpprb
    Replay(replay::Options),
    /// Environment steps, and acted windows of the paper's network against bench/learner_loop.py
    Actor(actor::Options),
    /// Training updates of the paper's network: ours and those of bench/learner_loop.py
    Learner(learner::Options),
    /// Weights published to acted with, and the memory of all processes together
    System(system::Options),
    /// All that is to be seen on a GPU, here or packed for a machine without Rust
    Gpu(gpu::Options),
}

#[derive(Debug, Args)]
struct Eval {
    /// A Python with torch, numpy and nibabel
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
    /// Weights of one agent with rl-medical's names
    #[arg(
        long,
        default_value = "../shared/reference/rl-medical-single-agent-ac.safetensors",
        value_name = "FILE"
    )]
    weights: PathBuf,
    /// Folder with images.txt and landmarks.txt
    #[arg(long, default_value = "../shared/data/brain", value_name = "DIR")]
    data: PathBuf,
    /// The first so many of the 19 published starts
    #[arg(long, default_value_t = 19)]
    starts: usize,
}

/// What `landmarl eval` leaves in `summary.json`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Summary {
    timing: Timing,
}

#[derive(Debug, Deserialize)]
struct Timing {
    walk_s: f64,
    steps: u64,
}

/// What `bench/eval_loop.py` prints.
#[derive(Debug, Deserialize)]
struct Loop {
    torch: String,
    steps: u64,
    seconds: f64,
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    match &options.what {
        What::Eval(options) => eval(workspace, options),
        What::Replay(options) => replay::run(workspace, options),
        What::Actor(options) => actor::run(workspace, options),
        What::Learner(options) => learner::run(workspace, options),
        What::System(options) => system::run(workspace, options),
        What::Gpu(options) => gpu::run(workspace, options),
    }
}

fn eval(workspace: &Workspace, options: &Eval) -> Result<()> {
    libtorch::ensure(workspace)?;
    command::run(&mut workspace.cargo("build --release --locked -p cli"))?;
    let root = workspace.root();
    let [weights, data] = [&options.weights, &options.data].map(|path| root.join(path));
    let list = data.join("images.txt");
    let images = fs::read_to_string(&list).with_context(|| format!("no {}", list.display()))?;
    let out = tempfile::tempdir()?;
    let starts: Vec<String> = starts(options.starts);
    let program = workspace.target_folder()?.join("release/landmarl");
    let mut ours = workspace.command(&program.to_string_lossy());
    ours.args(["eval", "--rules", "reference", "--device", "cpu"])
        .args(["--landmarks", "13", "--no-pictures"])
        .args(["--set", "data.allow_mixed_spacing=true"])
        .arg("--load")
        .arg(&weights)
        .arg("--images")
        .arg(&list)
        .arg("--landmarks-files")
        .arg(data.join("landmarks.txt"))
        .arg("--out")
        .arg(out.path())
        .args(starts.iter().flat_map(|s| ["--start", s.as_str()]));
    command::run(&mut ours)?;
    let text = fs::read_to_string(out.path().join("summary.json"))?;
    let ours: Summary = serde_json::from_str(&text).context("summary.json")?;
    let mut theirs = workspace.command(&options.python.to_string_lossy());
    theirs
        .arg(root.join("bench/eval_loop.py"))
        .arg(&weights)
        .args(
            images
                .lines()
                .filter(|l| !l.trim().is_empty())
                .map(|l| data.join(l.trim())),
        )
        .args(["--starts", &options.starts.to_string()]);
    let theirs: Loop =
        serde_json::from_str(&command::read(&mut theirs)?).context("the loop's output")?;
    tell(&ours.timing, &theirs)
}

fn tell(ours: &Timing, theirs: &Loop) -> Result<()> {
    if ours.steps == 0 || theirs.steps == 0 {
        bail!("nothing was walked");
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 steps")]
    let per_step = |seconds: f64, steps: u64| 1000.0 * seconds / steps as f64;
    let (a, b) = (
        per_step(ours.walk_s, ours.steps),
        per_step(theirs.seconds, theirs.steps),
    );
    println!(
        "landmarl eval        {} steps  {a:.1} ms per step",
        ours.steps
    );
    println!(
        "PyTorch {} loop  {} steps  {b:.1} ms per step",
        theirs.torch, theirs.steps
    );
    println!(
        "ratio {:.2} (f32, two threads each, same weights, scans and starts)",
        a / b
    );
    Ok(())
}

/// The 19 published starts, in our order, as `--start` takes them.
fn starts(count: usize) -> Vec<String> {
    let parts = [0.5, 0.75, 0.25];
    let mut all = Vec::new();
    for x in parts {
        for y in parts {
            for z in parts {
                if [x, y, z].iter().any(|f| (f - 0.5_f64).abs() < 1e-9) {
                    all.push(format!("{x},{y},{z}"));
                }
            }
        }
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nineteen_starts_of_which_the_centre_is_first() {
        let all = starts(99);
        assert_eq!((all.len(), all[0].as_str()), (19, "0.5,0.5,0.5"));
        assert!(!all.contains(&"0.25,0.25,0.75".to_owned()));
        assert_eq!(starts(3).len(), 3);
    }
}
