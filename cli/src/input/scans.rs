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
    /// Scans: a list, one path per line, or a folder or manifest with their landmark files
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// List of the landmark files, line for line with a list of scans
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    pub landmarks_files: Option<PathBuf>,
    /// Which scans, where splits are named: train, validation or test
    #[arg(long, default_value = "test", value_parser = split)]
    pub split: Split,
}

/// A split's word on the command line.
pub fn split(word: &str) -> Result<Split, String> {
    Split::of(word).ok_or_else(|| "give train, validation or test".to_owned())
}

/// How scans are loaded for given weights: volume and spacing are those of the
/// weights' training, whatever the configuration says.
fn options(loaded: &Loaded, config: &Config) -> LoadOptions {
    let mut options = LoadOptions::from_config(config);
    options.recipe.choice = loaded.rules.volume;
    if let Some(mm) = loaded.resample_mm {
        options.recipe.resample_mm = (mm != 0.0).then_some(mm);
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
        let message = format!("{} is a list of scans alone", images.display());
        let hint = format!("name their landmark files with {option}, or give a folder or manifest");
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
    Ok(Dataset::from_images(paths, &options)
        .context("load scans")?
        .scans)
}
