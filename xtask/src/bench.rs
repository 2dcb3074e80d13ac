//! `cargo xtask bench`: builds our side and starts the scripts of bench/, which
//! measure it beside its peers and print the figures.

mod gpu;
mod options;
mod script;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::command;
use crate::libtorch;
use crate::venv;
use crate::workspace::{Workspace, cache_folder};
use options::{Actor, Eval, Learner, Replay, System};
use script::Script;

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
    /// A published agent: time per step of `landmarl eval` and of bench/eval_loop.py
    Eval(Eval),
    /// The replay service, in processes of its own, against Reverb and cpprb
    Replay(Replay),
    /// Environment steps, and acted windows of the paper's network against bench/learner_loop.py
    Actor(Actor),
    /// Training updates of the paper's network: ours and those of bench/learner_loop.py
    Learner(Learner),
    /// Weights published to acted with, and the memory of all processes together
    System(System),
    /// Checks, speed and training on a GPU, here or packed for a machine without Rust
    Gpu(gpu::Options),
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let script = match &options.what {
        What::Eval(options) => {
            libtorch::ensure(workspace)?;
            eval(options, &build(workspace, "-p cli")?)?
        }
        What::Actor(options) => {
            libtorch::ensure(workspace)?;
            actor(options, &build(workspace, "-p actor --example acting")?)?
        }
        What::Learner(options) => {
            let program = updates(workspace, options)?;
            let results = match &options.out {
                Some(file) => std::path::absolute(file)?,
                None => workspace.target_folder()?.join("bench/learner.jsonl"),
            };
            learner(options, &program, &results)?
        }
        What::System(options) => {
            let bins = programs(workspace, options)?;
            system(workspace, options, &bins, &workspace.target_folder()?)?
        }
        What::Replay(options) => {
            let programs = "-p replay-server --bin replay-server --example load";
            let target = build(workspace, programs)?;
            let peers = peers(workspace, options)?;
            replay(options, &target, peers.as_deref())?
        }
        What::Gpu(options) => return gpu::run(workspace, options),
    };
    script.run(workspace)
}

/// Builds for release, and returns cargo's build folder.
fn build(workspace: &Workspace, what: &str) -> Result<PathBuf> {
    command::run(&mut workspace.cargo(&format!("build --release --locked {what}")))?;
    workspace.target_folder()
}

fn eval(options: &Eval, target: &Path) -> Result<Script> {
    let script = Script::new("eval", &options.python).options(options)?;
    Ok(script.path("program", &target.join("release/landmarl")))
}

fn actor(options: &Actor, target: &Path) -> Result<Script> {
    let script = Script::new("actor", &options.python).options(options)?;
    Ok(script
        .path("program", &target.join("release/examples/acting"))
        .path("results", &target.join("bench/actor.jsonl")))
}

/// The learner's example `updates`: built, unless it is there already.
fn updates(workspace: &Workspace, options: &Learner) -> Result<PathBuf> {
    if let Some(folder) = &options.prebuilt {
        let program = std::path::absolute(folder)?.join("updates");
        if !program.is_file() {
            bail!("{} does not exist", program.display());
        }
        return Ok(program);
    }
    libtorch::ensure(workspace)?;
    Ok(build(workspace, "-p learner --example updates")?.join("release/examples/updates"))
}

fn learner(options: &Learner, program: &Path, results: &Path) -> Result<Script> {
    let script = Script::new("learner", &options.python).options(options)?;
    Ok(script.path("program", program).path("results", results))
}

/// The folder of the services: built, unless another is given.
fn programs(workspace: &Workspace, options: &System) -> Result<PathBuf> {
    if let Some(bins) = &options.bins {
        return Ok(workspace.root().join(bins));
    }
    libtorch::ensure(workspace)?;
    let programs = "--bins -p cli -p learner -p actor -p replay-server";
    Ok(build(workspace, programs)?.join("release"))
}

fn system(workspace: &Workspace, options: &System, bins: &Path, target: &Path) -> Result<Script> {
    let config = options.config.as_ref();
    let config = config.map(|config| workspace.root().join(config));
    let folder = target.join("bench");
    let script = Script::new("system", Path::new("python3")).options(options)?;
    Ok(script
        .path("bins", bins)
        .path("results", &folder.join("system.jsonl"))
        .path("scratch", &folder)
        .path_if("config", config.as_deref()))
}

/// A Python with the peers, made before anything is measured.
fn peers(workspace: &Workspace, options: &Replay) -> Result<Option<PathBuf>> {
    if options.no_peers {
        return Ok(None);
    }
    let list = workspace.root().join("bench/replay_peers.txt");
    let parent = match &options.scratch {
        Some(folder) => std::path::absolute(folder)?,
        None => cache_folder()?,
    };
    venv::python(&options.python, &list, &parent, "py-peers")
        .context("Reverb and cpprb cannot be installed; --no-peers leaves them out")
        .map(Some)
}

fn replay(options: &Replay, target: &Path, peers: Option<&Path>) -> Result<Script> {
    let folder = target.join("bench");
    let results = match &options.out {
        Some(file) => std::path::absolute(file)?,
        None => folder.join("replay.jsonl"),
    };
    let scratch = match &options.scratch {
        Some(folder) => std::path::absolute(folder)?,
        None => folder,
    };
    // A bare name is looked for on PATH.
    let python = match options.python.components().count() {
        1 => options.python.clone(),
        _ => std::path::absolute(&options.python)?,
    };
    let script = Script::new("replay", &python).options(options)?;
    Ok(script
        .path("server", &target.join("release/replay-server"))
        .path("load", &target.join("release/examples/load"))
        .path("results", &results)
        .path("scratch", &scratch)
        .path_if("peers-python", peers))
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

    /// The script of a command line, as if all programs were built.
    fn script(line: &str) -> Script {
        let workspace = Workspace::find().unwrap();
        let target = Path::new("/target");
        let line = Line::parse_from(line.split_whitespace());
        match &line.options.what {
            What::Eval(options) => eval(options, target),
            What::Actor(options) => actor(options, target),
            What::Learner(options) => learner(options, target, target),
            What::System(options) => system(&workspace, options, target, target),
            What::Replay(options) => replay(options, target, Some(target)),
            What::Gpu(_) => panic!("{line:?} starts bench/gpu.sh"),
        }
        .unwrap()
    }

    #[test]
    fn scripts_accept_what_they_are_started_with() {
        for line in [
            "bench eval --starts 3",
            "bench actor --precision bf16 --threads 1",
            "bench learner",
            "bench learner --only-precision bf16 --their-bf16 --batch 8 --updates 1 --warmup 0",
            "bench system",
            "bench system --config configs/phantom.toml --set a.b=1,2 --set c.d=-1",
            "bench replay",
            "bench replay --shards 1,2 --acks durable --operations mixed-half --fresh --out x.jsonl",
        ] {
            script(line).accepts_its_flags();
        }
    }

    #[test]
    fn options_become_flags() {
        let replay = script("bench replay --shards 1,2 --acks durable --operations mixed-half");
        let system = script("bench system --set a.b=1,2 --config x.toml");
        for (script, flags) in [
            (&replay, "--shards=1 --shards=2 "),
            (&replay, "--operations=mixed-half "),
            (&replay, "--acks=durable "),
            (&replay, "--peers-python=/target"),
            (&replay, "--results=/target/bench/replay.jsonl "),
            (&system, "--set=a.b=1,2 "),
            (&system, "/x.toml"),
        ] {
            let shown = script.show();
            assert!(shown.contains(flags), "{flags}: {shown}");
        }
        assert!(!replay.show().contains("--fresh"));
    }
}
