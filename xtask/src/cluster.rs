//! The test of a whole cluster in containers.

mod compose;
mod docker;
mod prometheus;
mod scenario;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::command;
use crate::dist;
use crate::workspace::Workspace;

/// Train on a cluster while actors, shards, disks and networks fail.
///
/// The cluster learns while actors come and go, each role is killed in turn, a
/// shard is disconnected, its disk is filled, and everything is stopped and
/// started again. Then the error on validation scans must be below half of the
/// untrained one, and every row that was acknowledged as durable must be there.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(subcommand)]
    place: Place,
}

const EXAMPLES: &str = "Examples:
  cargo xtask cluster docker
  cargo xtask cluster docker --profile dev --skip-build

Without a Docker engine: `.ci/docker start` installs and starts one (Debian, root), `.ci/docker stop` stops it.";

#[derive(Debug, Subcommand)]
enum Place {
    /// In containers, by deploy/compose.yaml
    Docker(Run),
}

/// How it is run.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Cargo's profile: release (optimised) or dev (as tests are built)
    #[arg(long, value_parser = ["release", "dev"], default_value = "release")]
    profile: String,
    /// Take the programs that were built last
    #[arg(long)]
    skip_build: bool,
    /// Seconds of learning before the first fault
    #[arg(long, default_value_t = 120, value_name = "S")]
    learn_s: u64,
}

/// `cargo xtask cluster`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let Place::Docker(run) = &options.place;
    let mut version = compose::docker("version --format");
    let engine = command::read(version.arg("Docker {{.Server.Version}}")).context(
        "no Docker engine responds: start one; `.ci/docker start` installs one (Debian, root)",
    )?;
    print!("{engine}");
    let packaged = dist::Options {
        profile: run.profile.clone(),
        skip_build: run.skip_build,
        no_archive: true,
        out: PathBuf::from("dist"),
    };
    dist::run(workspace, &packaged)?;
    let cluster = docker::Docker::new(&workspace.root)?;
    scenario::run(cluster, Duration::from_secs(run.learn_s))
}

/// Exit code of `.ci/docker` on a machine that cannot have an engine.
const NO_ENGINE: i32 = 3;

/// The same with the programs that the tests were built with, and with an engine
/// for the time of the test where none responds.
pub fn for_ci(workspace: &Workspace) -> Result<()> {
    let theirs = compose::succeeds(&mut compose::docker("version"));
    let started = workspace.command(".ci/docker").arg("start").status();
    match started.context("cannot start .ci/docker")?.code() {
        Some(0) => {}
        Some(NO_ENGINE) => {
            println!("skipped: cluster in containers: this machine can have no Docker engine");
            return Ok(());
        }
        Some(code) => bail!("`.ci/docker start` failed with exit code {code}"),
        None => bail!("`.ci/docker start` was killed"),
    }
    let place = Place::Docker(Run {
        profile: "dev".to_owned(),
        skip_build: false,
        learn_s: 120,
    });
    let tested = run(workspace, &Options { place });
    if theirs {
        return tested;
    }
    tested.and(command::run(workspace.command(".ci/docker").arg("stop")))
}
