//! Tests of a whole cluster: in containers, or as plain processes.

mod compose;
mod docker;
mod engine;
mod ports;
mod processes;
mod prometheus;
mod proxy;
mod scenario;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::dist::{self, Profile};
use crate::workspace::Workspace;

/// Train on a cluster, and break it in every way that it must bear.
///
/// It learns, actors come and go, each role is killed in turn, a shard is cut
/// off, its disk runs full, all is stopped and started again; then the error on
/// selection scans must be below half of the untrained one, and no row that was
/// acknowledged as durable may be missing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(subcommand)]
    place: Place,
}

const EXAMPLES: &str = "Examples:
  cargo xtask cluster docker       installs and starts Docker where no engine answers (Debian, root)
  cargo xtask cluster processes    the same without containers
  cargo xtask cluster docker --profile dev --skip-build";

#[derive(Debug, Subcommand)]
enum Place {
    /// In containers, by deploy/compose.yaml
    Docker(Run),
    /// As plain processes on loopback
    Processes(Run),
}

/// How it is run.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// How the programs are built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Take the programs that were built last
    #[arg(long)]
    skip_build: bool,
    /// Seconds of learning before the first fault
    #[arg(long, default_value_t = 120, value_name = "S")]
    learn_s: u64,
}

impl Run {
    /// What CI does: its tests have built these programs.
    pub fn for_ci() -> Self {
        Self {
            profile: Profile::Dev,
            skip_build: false,
            learn_s: 120,
        }
    }

    fn learn(&self) -> Duration {
        Duration::from_secs(self.learn_s)
    }
}

/// `cargo xtask cluster`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    match &options.place {
        Place::Docker(run) => match engine::Engine::find()? {
            Ok(engine) => in_containers(workspace, run, &engine),
            Err(engine::Absent(why)) => {
                bail!("no Docker engine: {why}; without one: cargo xtask cluster processes")
            }
        },
        Place::Processes(run) => as_processes(workspace, run),
    }
}

/// In containers where an engine answers or can be installed, else as processes.
pub fn for_ci(workspace: &Workspace) -> Result<()> {
    let run = Run::for_ci();
    match engine::Engine::find()? {
        Ok(engine) => in_containers(workspace, &run, &engine),
        Err(engine::Absent(why)) => {
            println!("skipped: cluster in containers: no Docker engine: {why}");
            as_processes(workspace, &run)
        }
    }
}

fn in_containers(workspace: &Workspace, run: &Run, engine: &engine::Engine) -> Result<()> {
    println!("{}", engine.describe()?);
    engine.base_image()?;
    dist::run(
        workspace,
        &dist::Options {
            profile: run.profile,
            skip_build: run.skip_build,
            no_archive: true,
            out: PathBuf::from("dist"),
        },
    )?;
    let mut cluster = docker::Docker::new(workspace.root())?;
    scenario::run(&mut cluster, run.learn())
}

fn as_processes(workspace: &Workspace, run: &Run) -> Result<()> {
    if !run.skip_build {
        dist::build(workspace, run.profile)?;
    }
    let bin = workspace.target_folder()?.join(run.profile.folder());
    let mut cluster = processes::Processes::new(workspace.root(), &bin)?;
    scenario::run(&mut cluster, run.learn())
}
