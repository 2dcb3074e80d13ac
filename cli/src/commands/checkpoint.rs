//! `landmarl checkpoint`: what a run left, whether it is whole, weights for other
//! programs, and files of a learner that still runs.

mod card;
mod export;
mod files;
mod pull;
mod remote;

use std::path::PathBuf;

use crate::Outcome;
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::table::{Align, Table};

/// List, pull, verify or export the checkpoints of a run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Checkpoints and weights files, the newest first
    List {
        /// A run's folder, or a folder of such files
        #[arg(default_value = "runs", value_name = "RUN")]
        run: PathBuf,
        /// Those of the learner that runs at host:port instead
        #[arg(long, value_name = "ADDRESS", conflicts_with = "run")]
        from: Option<String>,
        /// Configuration file that names certificates and token; repeatable, later ones win
        #[arg(long, value_name = "FILE", requires = "from")]
        config: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Pull(pull::Args),
    /// Read files whole: checkpoints against the SHA-256 inside, weights (which hold none) for numbers; exit code 4 if one is damaged
    Verify {
        /// A run's folder, a folder of such files, or files
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Weights for other programs: safetensors, TorchScript, and a model card
    Export(export::Args),
}

const EXAMPLES: &str = "\
Examples:
  landmarl checkpoint list runs/first
  landmarl checkpoint list --from learner:7400
  landmarl checkpoint pull --from learner:7400 best
  landmarl checkpoint verify runs/first --json
  landmarl checkpoint export runs/first --out agents

Python, afterwards:
  model = torch.jit.load(\"agents/model.ts\")      # agents/README.md says what it takes";

pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::List {
            from: Some(address),
            config,
            json,
            ..
        } => {
            remote::list(address, &remote::security(config)?, *json)?;
            Ok(Exit::Done)
        }
        Command::List { run, json, .. } => {
            let found = files::of_folder(run)?;
            show(&found, *json)?;
            Ok(Exit::Done)
        }
        Command::Verify { paths, json } => {
            let mut found = Vec::new();
            for path in paths {
                if path.is_dir() {
                    found.extend(files::of_folder(path)?);
                } else {
                    found.push(files::read(path));
                }
            }
            show(&found, *json)?;
            let damaged = found.iter().any(|f| f.damage.is_some());
            Ok(if damaged { Exit::Data } else { Exit::Done })
        }
        Command::Export(args) => export::run(args),
        Command::Pull(args) => pull::run(args),
    }
}

fn show(found: &[files::File], json: bool) -> anyhow::Result<()> {
    if json {
        console::data(&(serde_json::to_string_pretty(found)? + "\n"))?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("file", Align::Left),
        ("kind", Align::Left),
        ("updates", Align::Right),
        ("weights", Align::Right),
        ("MB", Align::Right),
        ("sha256", Align::Left),
        ("state", Align::Left),
    ]);
    let number = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
    for file in found {
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let megabytes = file.bytes as f64 / 1e6;
        table.row(vec![
            file.path.display().to_string(),
            file.kind.name().to_owned(),
            number(file.updates),
            number(file.weights_version),
            format!("{megabytes:.1}"),
            file.sha256.chars().take(12).collect(),
            match (&file.damage, file.checked) {
                (Some(damage), _) => damage.clone(),
                (None, true) => "whole".to_owned(),
                (None, false) => "readable, no digest inside".to_owned(),
            },
        ]);
    }
    console::data(&table.render())?;
    Ok(())
}
