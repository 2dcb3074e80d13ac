//! All scans of a run with the landmarks that it asks for.
//!
//! Scans are numbered by content: they are sorted by the hash of their
//! preprocessed volume, so the order of the list files does not matter and
//! two machines with the same data number it alike.

mod error;
mod landmarks;
mod names;
mod source;
mod spec;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::cache::{Preprocessed, VolumeCache, VolumeError};
use crate::landmark_file::LandmarkError;
use crate::manifest::TrainingManifest;
use crate::scan::Scan;
use landmarks::Wanted;

pub use error::{DatasetError, Problem};
pub use source::{Pair, Source, SourceError, Split, is_list};
pub use spec::{DatasetSpec, LoadOptions};

/// Scans may differ in spacing by this share before it is an error.
const SPACING_TOLERANCE: f64 = 0.01;

/// Scans in memory.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// In the order of their content hashes.
    pub scans: Vec<Arc<Scan>>,
    /// The file of each scan.
    pub sources: Vec<PathBuf>,
    /// What each agent looks for: the landmark's name where files have names, else its id.
    pub landmark_names: Vec<String>,
}

impl Dataset {
    /// Loads what the spec names. All problems of all files are given at once.
    pub fn load(spec: &DatasetSpec) -> Result<Self, DatasetError> {
        let failed = |errors: Vec<SourceError>| {
            DatasetError::new(errors.into_iter().map(Problem::Source).collect())
        };
        let pairs = Source::read(&spec.images, spec.landmarks.as_deref())
            .and_then(|source| source.pairs(spec.split, spec.fold))
            .map_err(failed)?;
        let (images, landmarks): (Vec<PathBuf>, Vec<Option<PathBuf>>) = pairs
            .into_iter()
            .map(|pair| (pair.image, pair.landmarks))
            .unzip();
        // All have one, or none: a list of scans alone.
        let landmarks: Vec<PathBuf> = landmarks.into_iter().flatten().collect();
        if landmarks.is_empty() {
            let mut dataset = Self::from_images(&images, &spec.options)?;
            dataset.landmark_names.clone_from(&spec.ids);
            return Ok(dataset);
        }
        let (wanted, problems) = Wanted::read(&landmarks, &spec.ids);
        load(&images, Some(&wanted), problems, &spec.options)
    }

    /// Loads scans of which no landmark is known.
    pub fn from_images(paths: &[PathBuf], options: &LoadOptions) -> Result<Self, DatasetError> {
        load(paths, None, Vec::new(), options)
    }

    /// What this dataset is, to compare with another machine's.
    #[must_use]
    pub fn manifest(&self, rules_version: u32) -> TrainingManifest {
        TrainingManifest::new(self.scans.iter().map(AsRef::as_ref), rules_version)
    }
}

/// Mean position (RAS mm) of each agent's landmark over the scans that have
/// it, `None` where none has: the constant guess that a run is compared with.
/// [`crate::geometry::Affine::to_voxel`] takes it to a scan's voxels.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "few scans")]
pub fn mean_landmarks(scans: &[Arc<Scan>]) -> Vec<Option<[f64; 3]>> {
    let agents = scans
        .iter()
        .map(|scan| scan.landmarks.len())
        .max()
        .unwrap_or(0);
    let mean = |agent: usize| {
        let known = scans.iter().filter_map(|scan| {
            let position = (*scan.landmarks.get(agent)?)?;
            Some(scan.geometry.affine.to_world(position))
        });
        let known: Vec<_> = known.collect();
        (!known.is_empty()).then(|| {
            [0, 1, 2].map(|i| known.iter().map(|p| p[i]).sum::<f64>() / known.len() as f64)
        })
    };
    (0..agents).map(mean).collect()
}

fn load(
    paths: &[PathBuf],
    wanted: Option<&Wanted>,
    mut problems: Vec<Problem>,
    options: &LoadOptions,
) -> Result<Dataset, DatasetError> {
    let cache = VolumeCache::new(options.cache_dir.as_deref());
    let names = names::unique(paths);
    let volumes: Vec<Result<Preprocessed, VolumeError>> = paths
        .par_iter()
        .map(|path| cache.load(path, &options.recipe))
        .collect();
    let mut loaded = Vec::with_capacity(paths.len());
    for (number, (result, name)) in volumes.into_iter().zip(names).enumerate() {
        match result {
            Err(error) => problems.push(error.into()),
            Ok(volume) => match locate(wanted, number, &name, &volume) {
                Err(errors) => problems.extend(errors.into_iter().map(Problem::Landmarks)),
                Ok(landmarks) => loaded.push((scan(name, volume, landmarks), &paths[number])),
            },
        }
    }
    loaded.sort_by(|(a, path_a), (b, path_b)| (a.hash, path_a).cmp(&(b.hash, path_b)));
    problems.extend(duplicates(&loaded));
    if !options.allow_mixed_spacing {
        problems.extend(mixed_spacing(&loaded));
    }
    if !problems.is_empty() {
        return Err(DatasetError::new(problems));
    }
    let (scans, sources) = loaded
        .into_iter()
        .map(|(scan, path)| (scan, path.clone()))
        .unzip();
    let landmark_names = wanted.map(|w| w.names.clone()).unwrap_or_default();
    let dataset = Dataset {
        scans,
        sources,
        landmark_names,
    };
    tracing::info!(
        scans = dataset.scans.len(),
        landmarks = dataset.landmark_names.len(),
        "dataset loaded"
    );
    Ok(dataset)
}

fn scan(name: String, loaded: Preprocessed, landmarks: Vec<Option<[f64; 3]>>) -> Arc<Scan> {
    let Preprocessed {
        volume,
        geometry,
        hash,
    } = loaded;
    Arc::new(Scan {
        name,
        volume,
        geometry,
        landmarks,
        hash,
    })
}

/// Voxel positions of one scan's landmarks, none where no landmark file could be read.
fn locate(
    wanted: Option<&Wanted>,
    number: usize,
    name: &str,
    loaded: &Preprocessed,
) -> Result<Vec<Option<[f64; 3]>>, Vec<LandmarkError>> {
    let Some(wanted) = wanted else {
        return Ok(Vec::new());
    };
    wanted.locate(number, name, &loaded.geometry)
}

fn duplicates(sorted: &[(Arc<Scan>, &PathBuf)]) -> Vec<Problem> {
    let pairs = sorted
        .windows(2)
        .filter(|pair| pair[0].0.hash == pair[1].0.hash);
    pairs
        .map(|pair| Problem::Duplicate {
            first: pair[0].1.clone(),
            second: pair[1].1.clone(),
        })
        .collect()
}

/// At most one problem: the two scans that are furthest apart on some axis.
fn mixed_spacing(loaded: &[(Arc<Scan>, &PathBuf)]) -> Option<Problem> {
    let at = |entry: &(Arc<Scan>, &PathBuf), axis: usize| entry.0.geometry.spacing_mm[axis];
    (0..3).find_map(|axis| {
        let by = |a: &&(Arc<Scan>, &PathBuf), b: &&(Arc<Scan>, &PathBuf)| {
            at(a, axis).total_cmp(&at(b, axis))
        };
        let (finest, coarsest) = (loaded.iter().min_by(by)?, loaded.iter().max_by(by)?);
        (at(coarsest, axis) > at(finest, axis) * (1.0 + SPACING_TOLERANCE)).then(|| {
            Problem::MixedSpacing {
                first: finest.1.clone(),
                first_mm: finest.0.geometry.spacing_mm,
                second: coarsest.1.clone(),
                second_mm: coarsest.0.geometry.spacing_mm,
            }
        })
    })
}

/// For messages: a path as people wrote it.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
