//! Data sets named on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use common::config::Config;
use common::imaging::dataset::{Dataset, DatasetSpec, LoadOptions, Split, is_list};
use common::imaging::nifti_io::bare_name;
use common::imaging::scan::Scan;

use crate::input::weights::Loaded;
use crate::output::console;
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

/// Scans with the landmarks of the given weights, in the order of their source; `option` is the
/// name of the option that provides the landmark files of a list of scans. Warnings are printed.
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
        training: None,
    };
    let dataset = load(&spec)?;
    console::data_warnings(&dataset.warnings);
    if let Some(note) = dataset.unused_note() {
        console::note_once(&note);
    }
    Ok(in_order(&dataset))
}

/// The scans in the order in which they were given; a data set has the order of their content.
fn in_order(dataset: &Dataset) -> Vec<Arc<Scan>> {
    let given = dataset.given.iter();
    given
        .map(|&scan| Arc::clone(&dataset.scans[scan]))
        .collect()
}

/// Scans without known landmarks, in the given order; a folder stands for the scans in it.
/// Warnings are printed.
pub fn bare(paths: &[PathBuf], loaded: &Loaded, config: &Config) -> anyhow::Result<Vec<Arc<Scan>>> {
    let options = options(loaded, config);
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = in_folder(path)?;
            let (count, folder) = (found.len(), path.display());
            console::note(&format!("{count} scans in {folder}"));
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    let dataset = Dataset::from_images(&files, &options).context("load scans")?;
    console::data_warnings(&dataset.warnings);
    Ok(in_order(&dataset))
}

/// The scans that lie in a folder itself, sorted. Of nnU-Net's channels only the first counts,
/// and a `.hdr` stands for its `.img`.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Advice> {
    let shown = folder.display();
    let failed = |e| Advice::new(Exit::Data, format!("cannot read the folder {shown}: {e}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_file() {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    let firsts: Vec<&str> = names
        .iter()
        .filter_map(|(name, _)| bare_name(name))
        .collect();
    let is_scan = |name: &str| {
        bare_name(name).is_some_and(|bare| {
            let voxels = name[bare.len()..].to_ascii_lowercase().starts_with(".img");
            let first = first_channel(bare);
            !voxels && first.is_none_or(|first| !firsts.contains(&first.as_str()))
        })
    };
    let scans = names.iter().filter(|(name, _)| is_scan(name));
    let scans: Vec<PathBuf> = scans.map(|(_, path)| path.clone()).collect();
    if scans.is_empty() {
        let message = format!("no scan (.nii, .nii.gz, .hdr) in the folder {shown} itself");
        let hint = "give the folder that holds the scans, or the scan files";
        return Err(Advice::new(Exit::Data, message).hint(hint));
    }
    Ok(scans)
}

/// `CASE_0000` for `CASE_0001` and further channels.
fn first_channel(bare: &str) -> Option<String> {
    let (case, channel) = bare.rsplit_once('_')?;
    let digits = channel.len() == 4 && channel.bytes().all(|b| b.is_ascii_digit());
    (digits && channel != "0000").then(|| format!("{case}_0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_scans_that_lie_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::create_dir(path.join("below")).unwrap();
        let none = in_folder(path).unwrap_err().to_string();
        assert!(none.contains("no scan"), "{none}");
        for name in [
            "b.nii.gz",
            "A.NII",
            "c_0000.nii.gz",
            "c_0001.nii.gz",
            "pair.hdr",
            "pair.img",
            "year_2024.nii",
            "b.csv",
            ".hidden.nii",
            "below/d.nii",
        ] {
            std::fs::write(path.join(name), "").unwrap();
        }
        let found = in_folder(path).unwrap();
        let names = found.iter().map(|f| f.strip_prefix(path).unwrap());
        let names: Vec<_> = names.map(|n| n.to_string_lossy()).collect();
        let expected = [
            "A.NII",
            "b.nii.gz",
            "c_0000.nii.gz",
            "pair.hdr",
            "year_2024.nii",
        ];
        assert_eq!(names, expected);
        assert!(in_folder(&path.join("gone")).is_err());
    }
}
