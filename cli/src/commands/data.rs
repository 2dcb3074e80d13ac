//! `landmarl data`: checks, describes and splits scans.

mod check;
mod split;
mod stats;

use std::path::PathBuf;

use common::config::Config;
use common::imaging::dataset::{DatasetSpec, Split};

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

/// The scans to read.
#[derive(Debug, Clone, clap::Args)]
struct DataArgs {
    /// List, folder or manifest of scans [default: data.train_images]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Landmark files of a list of scans: a list in the same order
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    landmarks_files: Option<PathBuf>,
    /// Landmark names or numbers [default: all in the first file]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// Split to use, if the scans have splits: train, validation or test [default: all to
    /// check, train for statistics]
    #[arg(long, value_parser = crate::input::scans::split)]
    split: Option<Split>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl DataArgs {
    /// The scans of one split: of `--split`, else those for training.
    fn spec(&self) -> anyhow::Result<DatasetSpec> {
        let config = self.config.load(Vec::new())?;
        let mut spec = self.training(&config)?;
        spec.split = self.split.unwrap_or_default();
        Ok(spec)
    }

    /// All scans, or those of `--split`: of the path, else of the settings for training and
    /// validation.
    fn specs(&self) -> anyhow::Result<Vec<(DatasetSpec, Option<Split>)>> {
        let config = self.config.load(Vec::new())?;
        let training = self.training(&config)?;
        let own = !config.data.validation_images.is_empty() && self.path.is_none();
        let validation = own.then(|| DatasetSpec::validation(&config)).flatten();
        let validation = validation.map(|spec| (spec, Some(Split::Validation)));
        Ok(match (self.split, validation) {
            (None, Some(validation)) => vec![(training, None), validation],
            (Some(Split::Validation), Some((spec, split))) => {
                let ids = training.ids;
                vec![(DatasetSpec { ids, ..spec }, split)]
            }
            (split, _) => vec![(training, split)],
        })
    }

    fn training(&self, config: &Config) -> anyhow::Result<DatasetSpec> {
        let mut spec = DatasetSpec::training(config);
        if let Some(path) = &self.path {
            spec.images.clone_from(path);
            spec.landmarks.clone_from(&self.landmarks_files);
        } else if config.data.train_images.is_empty() {
            let hint = "give a list, folder or manifest, or --config with data.train_images";
            return Err(Advice::new(Exit::Usage, "no scans given").hint(hint).into());
        }
        if !self.landmarks.is_empty() {
            spec.ids.clone_from(&self.landmarks);
        }
        Ok(spec)
    }
}
