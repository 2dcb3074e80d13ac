//! `cargo xtask bench`: builds our side and starts the scripts of bench/, which
//! measure it and its alternatives and print the figures.

mod gpu;
mod options;
mod script;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::workspace::{Workspace, cache_folder};
use crate::{libtorch, venv};
use options::{Actor, Eval, Learner, Replay, System};
use script::Script;

/// Measure landmarl and its alternatives in one run.
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
    /// Time from publishing weights to acting with them, and memory of all processes
    System(System),
    /// Checks, speed and training on a GPU, here or packed for a machine without Rust
    Gpu(gpu::Options),
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let what = &options.what;
    if let What::Gpu(options) = what {
        return gpu::run(workspace, options);
    }
    let target = build(workspace, what)?;
    let peers = match what {
        What::Replay(options) if !options.no_peers => Some(peers(workspace, options)?),
        _ => None,
    };
    script(workspace, what, &target, peers)?.run(workspace)
}

/// Builds what is measured, unless it is given, and returns cargo's build folder.
fn build(workspace: &Workspace, what: &What) -> Result<PathBuf> {
    let programs = match what {
        What::Eval(_) => "-p cli",
        What::Actor(_) => "-p actor --example acting",
        What::Learner(options) if options.prebuilt.is_none() => "-p learner --example updates",
        What::System(options) if options.bins.is_none() => {
            "--bins -p cli -p learner -p actor -p replay-server"
        }
        What::Replay(_) => {
            return workspace.build("-p replay-server --bin replay-server --example load");
        }
        _ => return workspace.target_folder(),
    };
    libtorch::ensure(workspace)?;
    workspace.build(programs)
}

/// A Python with the peers, installed before anything is measured.
fn peers(workspace: &Workspace, options: &Replay) -> Result<PathBuf> {
    let list = workspace.root.join("bench/replay_peers.txt");
    let parent = match &options.scratch {
        Some(folder) => std::path::absolute(folder)?,
        None => cache_folder()?,
    };
    venv::python(&options.python, &list, &parent, "py-peers")
        .context("Reverb and cpprb cannot be installed; --no-peers leaves them out")
}

/// A path of the command line, else the default.
fn given(path: &Option<PathBuf>, default: PathBuf) -> Result<PathBuf> {
    let given = path.as_ref().map(std::path::absolute).transpose()?;
    Ok(given.unwrap_or(default))
}

/// The script with its flags; `target` is cargo's build folder.
fn script(
    workspace: &Workspace,
    what: &What,
    target: &Path,
    peers: Option<PathBuf>,
) -> Result<Script> {
    let folder = target.join("bench");
    Ok(match what {
        What::Eval(options) => Script::new("eval", &options.python, options)?
            .path("program", target.join("release/landmarl")),
        What::Actor(options) => Script::new("actor", &options.python, options)?
            .path("program", target.join("release/examples/acting"))
            .path("results", folder.join("actor.jsonl")),
        What::Learner(options) => {
            let built = target.join("release/examples");
            let program = given(&options.prebuilt, built)?.join("updates");
            if options.prebuilt.is_some() && !program.is_file() {
                bail!("{} does not exist", program.display());
            }
            Script::new("learner", &options.python, options)?
                .path("program", program)
                .path(
                    "results",
                    given(&options.out, folder.join("learner.jsonl"))?,
                )
        }
        What::System(options) => {
            let inside = |path: &PathBuf| workspace.root.join(path);
            let bins = options.bins.as_ref().map(inside);
            Script::new("system", Path::new("python3"), options)?
                .path("bins", bins.unwrap_or_else(|| target.join("release")))
                .path("results", folder.join("system.jsonl"))
                .path("scratch", folder)
                .path("config", options.config.as_ref().map(inside))
        }
        What::Replay(options) => Script::new("replay", &options.python, options)?
            .path("server", target.join("release/replay-server"))
            .path("load", target.join("release/examples/load"))
            .path("results", given(&options.out, folder.join("replay.jsonl"))?)
            .path("scratch", given(&options.scratch, folder)?)
            .path("peers-python", peers),
        What::Gpu(_) => bail!("bench/gpu.sh is no Python script"),
    })
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
        let line = Line::parse_from(line.split_whitespace());
        let (workspace, target) = (Workspace::find().unwrap(), Path::new("/target"));
        super::script(&workspace, &line.options.what, target, Some(target.into())).unwrap()
    }

    #[test]
    fn scripts_accept_their_flags() {
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
