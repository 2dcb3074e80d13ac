//! Data sets named on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use common::config::Config;
use common::dataset::{Dataset, DatasetSpec, LoadOptions};
use common::scan::Scan;

use crate::weights::Loaded;

/// Scans with known landmarks.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// List of scans, one path per line
    #[arg(long, value_name = "LIST")]
    pub images: PathBuf,
    /// List of their landmark files, line for line
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    pub landmarks_files: PathBuf,
}

/// How scans are loaded for some weights: the volume and the spacing are those
/// that they were trained on, whatever the configuration says.
fn options(loaded: &Loaded, config: &Config) -> LoadOptions {
    let mut options = LoadOptions::from_config(config);
    options.recipe.choice = loaded.rules.volume;
    if let Some(mm) = loaded.resample_mm {
        options.recipe.resample_mm = (mm != 0.0).then_some(mm);
    }
    options
}

/// Loads two list files; `ids` are the landmarks, one agent each.
pub fn pair(
    images: &Path,
    landmarks: &Path,
    ids: &[String],
    options: LoadOptions,
) -> anyhow::Result<Dataset> {
    let spec = DatasetSpec {
        images: images.to_owned(),
        landmarks: Some(landmarks.to_owned()),
        ids: ids.to_vec(),
        options,
    };
    Dataset::load(&spec).with_context(|| format!("load scans of {}", images.display()))
}

/// Scans with the landmarks of some weights.
pub fn labelled(
    images: &Path,
    landmarks: &Path,
    loaded: &Loaded,
    config: &Config,
) -> anyhow::Result<Vec<Arc<Scan>>> {
    let options = options(loaded, config);
    Ok(pair(images, landmarks, &loaded.landmarks, options)?.scans)
}

/// Scans of which nothing is known.
pub fn bare(paths: &[PathBuf], loaded: &Loaded, config: &Config) -> anyhow::Result<Vec<Arc<Scan>>> {
    let options = options(loaded, config);
    Ok(Dataset::from_images(paths, &options)
        .context("load scans")?
        .scans)
}
