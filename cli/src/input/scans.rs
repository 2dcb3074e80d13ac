//! Data sets named on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use common::config::Config;
use common::imaging::dataset::{Dataset, DatasetSpec, LoadOptions, Split, is_list};
use common::imaging::scan::Scan;

use crate::input::weights::Loaded;
use crate::output::failure::{Advice, Exit};

/// Scans with known landmarks.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Scans: a list with one path per line, or a folder or manifest with landmark files
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// Landmark files of a list of scans: a list in the same order
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    pub landmarks_files: Option<PathBuf>,
    /// Split to use, if the scans have splits: train, validation or test
    #[arg(long, default_value = "test", value_parser = split)]
    pub split: Split,
}

/// Parses a split.
pub fn split(word: &str) -> Result<Split, String> {
    Split::of(word).ok_or_else(|| "give train, validation or test".to_owned())
}

/// How scans are loaded for given weights: volume and spacing are those of their training.
/// `data.resample_mm` of the configuration applies if the training scans kept their spacing.
fn options(loaded: &Loaded, config: &Config) -> LoadOptions {
    let mut options = LoadOptions::from_config(config);
    options.recipe.choice = loaded.rules.volume;
    if let Some(mm) = loaded.resample_mm.filter(|mm| *mm != 0.0) {
        options.recipe.resample_mm = Some(mm);
    }
    options
}

/// Loads scans with known landmarks.
pub fn load(spec: &DatasetSpec) -> anyhow::Result<Dataset> {
    Dataset::load(spec).with_context(|| format!("load scans of {}", spec.images.display()))
}

/// Scans with the landmarks of the given weights; `option` is the name of the
/// option that provides the landmark files of a list of scans.
pub fn labelled(
    images: &Path,
    landmarks: Option<&Path>,
    (split, option): (Split, &str),
    loaded: &Loaded,
    config: &Config,
) -> anyhow::Result<Vec<Arc<Scan>>> {
    if landmarks.is_none() && is_list(images) {
        let message = format!(
            "{} is a list of scans without landmark files",
            images.display()
        );
        let hint = format!("give the landmark files with {option}, or give a folder or manifest");
        return Err(Advice::new(Exit::Usage, message).hint(hint).into());
    }
    let spec = DatasetSpec {
        images: images.to_owned(),
        landmarks: landmarks.map(Path::to_owned),
        split,
        fold: config.data.fold(),
        ids: loaded.landmarks.clone(),
        options: options(loaded, config),
    };
    Ok(load(&spec)?.scans)
}

/// Scans without known landmarks.
pub fn bare(paths: &[PathBuf], loaded: &Loaded, config: &Config) -> anyhow::Result<Vec<Arc<Scan>>> {
    let options = options(loaded, config);
    let dataset = Dataset::from_images(paths, &options).context("load scans")?;
    Ok(dataset.scans)
}
