//! `cargo xtask attack`: builds the services and the attacks for release, and runs the latter.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;
use crate::{command, libtorch};

/// Attack release binaries, with honest clients beside each attack.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Attack the binaries of DIR instead of building them for release
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// Seconds per attack
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Only attacks whose names contain one of these words
    #[arg(long, value_delimiter = ',', value_name = "WORD,...")]
    only: Vec<String>,
    /// Folder for the services' files, which stay there, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print one JSON line instead of a table
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask attack
  cargo xtask attack --only unread,idle --seconds 20
  cargo xtask attack --json --scratch attacked";

/// `cargo xtask attack`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = workspace.build("-p proto --example attack")?;
    let bins = match &options.bins {
        Some(bins) => std::path::absolute(bins)?,
        None => {
            libtorch::ensure(workspace)?;
            workspace.build("--bins -p cli -p learner -p actor -p replay-server")?;
            target.join("release")
        }
    };
    let mut program = workspace.command(target.join("release/examples/attack"));
    program.arg("--bins").arg(bins);
    program.args(["--seconds", &options.seconds.to_string()]);
    if !options.only.is_empty() {
        program.args(["--only", &options.only.join(",")]);
    }
    if let Some(scratch) = &options.scratch {
        program.arg("--scratch").arg(std::path::absolute(scratch)?);
    }
    if options.json {
        program.arg("--json");
    }
    command::run(&mut program)
}
