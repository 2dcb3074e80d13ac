//! `landmarl checkpoint`: lists, verifies, exports and downloads checkpoints.

mod card;
mod export;
mod files;
mod pull;
mod remote;

use std::path::PathBuf;

pub use remote::runtime;

use crate::Outcome;
use crate::input::run::{self, run_folder};
use crate::input::settings::ConfigArgs;
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::table::{Table, megabytes, or_dash};

/// List, pull, verify or export the checkpoints of a run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List checkpoints and weights files, newest first
    List {
        /// Run, by its folder or name, or a folder of checkpoints [default: the newest run in run.dir]
        #[arg(value_name = "RUN")]
        run: Option<PathBuf>,
        /// List the files of the running learner at host:port instead
        #[arg(long, value_name = "ADDRESS", conflicts_with = "run")]
        from: Option<String>,
        /// Configuration file with certificates and token; repeatable, later files win
        #[arg(long, value_name = "FILE", requires = "from")]
        config: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Pull(pull::Args),
    /// Verify the SHA-256 in checkpoints and weights files, and that weights are finite; exit code 4 if a file is damaged
    Verify {
        /// Runs, by their folders or names, folders of checkpoints, or files
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Export weights for other programs: safetensors, TorchScript and a model card
    Export(export::Args),
}

const EXAMPLES: &str = "\
Examples:
  landmarl checkpoint list first
  landmarl checkpoint list --from learner:7400
  landmarl checkpoint pull --from learner:7400 best
  landmarl checkpoint verify runs/first --json
  landmarl checkpoint export runs/first --out agents

Python, afterwards:
  model = torch.jit.load(\"agents/model.ts\")      # inputs: see agents/README.md";

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
            let runs = run::runs(&ConfigArgs::default())?;
            let folder = match run {
                Some(run) => run_folder(run, &runs)?,
                None => runs,
            };
            show(&files::of_folder(&folder)?, *json)?;
            Ok(Exit::Done)
        }
        Command::Verify { paths, json } => {
            let runs = run::runs(&ConfigArgs::default());
            let mut found = Vec::new();
            for given in paths {
                let runs = runs.as_ref().ok();
                let path = runs.and_then(|runs| run_folder(given, runs).ok());
                // One that cannot be read is listed as such.
                let path = path.unwrap_or_else(|| given.clone());
                if path.is_dir() {
                    found.extend(files::of_folder(&path)?);
                } else {
                    found.push(files::read(&path));
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
        return console::json(found);
    }
    let mut table = Table::new("file|kind|updates>|weights>|MB>|sha256|state");
    for file in found {
        table.row(vec![
            file.path.display().to_string(),
            format!("{:?}", file.kind).to_lowercase(),
            or_dash(file.updates),
            or_dash(file.weights_version),
            megabytes(file.bytes),
            file.sha256.chars().take(12).collect(),
            match (&file.damage, file.checked) {
                (Some(damage), _) => damage.clone(),
                (None, true) => "intact".to_owned(),
                (None, false) => "readable, no digest inside".to_owned(),
            },
        ]);
    }
    console::data(&table.render())?;
    Ok(())
}
