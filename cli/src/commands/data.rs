//! `landmarl data`: checks, describes and splits scans.

mod check;
mod split;
mod stats;

use std::path::PathBuf;

use common::config::Config;
use common::imaging::dataset::{DatasetSpec, LoadOptions, Split};

use crate::Outcome;
use crate::input::settings::ConfigArgs;
use crate::output::failure::{Advice, Exit};

/// Check, describe or split scans and their landmarks.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Args),
    Stats(stats::Args),
    Split(split::Args),
}

const EXAMPLES: &str = "\
Examples:
  landmarl data check scans/ --sheet look/
  landmarl data check images.txt --landmarks-files landmarks.txt --json
  landmarl data stats scans.csv --landmarks AC,PC
  landmarl data split scans/ -o scans.csv --validation 0.15 --test 0.15";

pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Check(args) => check::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Split(args) => split::run(args),
    }
}

/// Which scans.
#[derive(Debug, Clone, clap::Args)]
struct DataArgs {
    /// List, folder or manifest of scans [default: data.train_images]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// List of the landmark files, line for line with a list of scans
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    landmarks_files: Option<PathBuf>,
    /// Landmark names or numbers [default: all of the first file]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// Which scans, where splits are named: train, validation or test
    #[arg(long, default_value = "train", value_parser = crate::input::scans::split)]
    split: Split,
    #[command(flatten)]
    config: ConfigArgs,
}

impl DataArgs {
    fn spec(&self) -> anyhow::Result<DatasetSpec> {
        let config = self.config.load(Vec::new())?;
        let mut spec = self.named(&config)?;
        spec.split = self.split;
        if !self.landmarks.is_empty() {
            spec.ids.clone_from(&self.landmarks);
        }
        Ok(spec)
    }

    fn named(&self, config: &Config) -> anyhow::Result<DatasetSpec> {
        let Some(path) = &self.path else {
            if config.data.train_images.is_empty() {
                let error = Advice::new(Exit::Usage, "no scans are named");
                let hint = "give a list, folder or manifest, or --config with data.train_images";
                return Err(error.hint(hint).into());
            }
            return Ok(DatasetSpec::training(config));
        };
        Ok(DatasetSpec {
            images: path.clone(),
            landmarks: self.landmarks_files.clone(),
            split: self.split,
            fold: config.data.fold(),
            ids: config.data.landmarks.clone(),
            options: LoadOptions::from_config(config),
        })
    }
}
