//! All scans of a run with the requested landmarks.
//!
//! Scans are numbered by content: they are sorted by the hash of their
//! preprocessed volume, so the order of the list files does not matter and
//! two machines with the same data assign the same numbers.

mod error;
mod landmarks;
mod names;
mod source;
mod spec;
mod survey;
#[cfg(test)]
mod survey_tests;
#[cfg(test)]
mod tests;
mod unknown;
mod warnings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::imaging::cache::{Preprocessed, VolumeCache, VolumeError};
use crate::imaging::manifest::TrainingManifest;
use crate::imaging::scan::Scan;
use landmarks::Wanted;

pub use error::{DatasetError, Problem};
pub use source::{Pair, Source, SourceError, Split, Subject, Unused, is_list};
pub use spec::{DatasetSpec, LoadOptions};
pub use survey::Survey;
pub use unknown::UnknownLandmarks;
pub use warnings::{DataWarning, Turn, WarningKind};

/// Relative difference in spacing between scans beyond which loading fails.
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
    /// The number of each scan, in the order in which the scans were given.
    pub given: Vec<usize>,
    /// Of the scan files, their landmark files and splits; [`Dataset::survey`] finds more.
    pub warnings: Vec<DataWarning>,
    /// Files of a folder that are not used, with the reason.
    pub unused: Vec<Unused>,
}

/// Most files that [`Dataset::unused_note`] names.
const NAMED: usize = 3;

impl Dataset {
    /// Loads the scans of the spec. An error lists all problems of all files.
    pub fn load(spec: &DatasetSpec) -> Result<Self, DatasetError> {
        let failed = |errors: Vec<SourceError>| {
            DatasetError::new(errors.into_iter().map(Problem::Source).collect())
        };
        let source = Source::read(&spec.images, spec.landmarks.as_deref()).map_err(failed)?;
        let pairs = source.pairs(spec.split, spec.fold).map_err(failed)?;
        // Loading the training scans of the same source warns already.
        let warns = spec.split != Split::Validation || spec.training.is_some();
        let shared = warns.then(|| spec.shared_subjects(&source));
        let pairs = pairs.into_iter().map(|pair| (pair.image, pair.landmarks));
        let (images, landmarks): (Vec<_>, Vec<_>) = pairs.unzip();
        // Either all pairs have landmarks or none, as in a list of scans alone.
        let (wanted, problems) = match landmarks.iter().all(Vec::is_empty) {
            true => (None, Vec::new()),
            false => {
                let (wanted, problems) = Wanted::read(&images, &landmarks, &spec.ids);
                (Some(wanted), problems)
            }
        };
        let (mut dataset, problems) = gather(&images, wanted.as_ref(), problems, &spec.options);
        if wanted.is_none() {
            dataset.landmark_names.clone_from(&spec.ids);
        }
        dataset.warnings.splice(0..0, shared.into_iter().flatten());
        dataset.unused = source.unused;
        checked(dataset, problems)
    }

    /// Loads scans without landmarks.
    pub fn from_images(paths: &[PathBuf], options: &LoadOptions) -> Result<Self, DatasetError> {
        let (dataset, problems) = gather(paths, None, Vec::new(), options);
        checked(dataset, problems)
    }

    /// A sentence about the files that are not used, if there are any.
    #[must_use]
    pub fn unused_note(&self) -> Option<String> {
        let mistakes = self.unused.iter().filter(|unused| unused.mistake);
        let others = self.unused.iter().filter(|unused| !unused.mistake);
        let all: Vec<&Unused> = mistakes.chain(others).collect();
        let names = all
            .iter()
            .take(NAMED)
            .map(|unused| format!("'{}'", shown(&unused.path)));
        let mut names = names.collect::<Vec<_>>().join(", ");
        if all.len() > NAMED {
            names += ", …";
        }
        let count: usize = all.iter().map(|unused| unused.count).sum();
        let files = if count == 1 { "file" } else { "files" };
        let are = if count == 1 { "is" } else { "are" };
        let note = format!(
            "{count} {files} beside the scans {are} not used: {names}; `landmarl data check` says \
             why"
        );
        (count > 0).then_some(note)
    }

    /// Identifies the dataset, for comparison with another machine's.
    #[must_use]
    pub fn manifest(&self, rules_version: u32) -> TrainingManifest {
        TrainingManifest::new(self.scans.iter().map(AsRef::as_ref), rules_version)
    }
}

/// Mean position (RAS mm) of each agent's landmark over the scans that have
/// it, `None` where none has: the baseline that a run is compared with.
/// [`crate::imaging::geometry::Affine::to_voxel`] maps it to a scan's voxels.
#[must_use]
pub fn mean_landmarks(scans: &[Arc<Scan>]) -> Vec<Option<[f64; 3]>> {
    let agents = scans.iter().map(|scan| scan.landmarks.len()).max();
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
    (0..agents.unwrap_or(0)).map(mean).collect()
}

/// The data set, if it has no problems. Logs its warnings.
fn checked(dataset: Dataset, problems: Vec<Problem>) -> Result<Dataset, DatasetError> {
    if !problems.is_empty() {
        return Err(DatasetError::new(problems));
    }
    for warning in &dataset.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(note) = dataset.unused_note() {
        match dataset.unused.iter().any(|unused| unused.mistake) {
            true => tracing::warn!("{note}"),
            false => tracing::info!("{note}"),
        }
    }
    tracing::info!(
        scans = dataset.scans.len(),
        landmarks = dataset.landmark_names.len(),
        "dataset loaded"
    );
    Ok(dataset)
}

/// The scans that can be loaded, and the problems of the others and of all together.
fn gather(
    paths: &[PathBuf],
    wanted: Option<&Wanted>,
    mut problems: Vec<Problem>,
    options: &LoadOptions,
) -> (Dataset, Vec<Problem>) {
    let cache = VolumeCache::new(options.cache_dir.as_deref());
    let names = names::unique(paths);
    let volumes: Vec<Result<Preprocessed, VolumeError>> = paths
        .par_iter()
        .map(|path| cache.load(path, &options.recipe))
        .collect();
    let mut loaded = Vec::with_capacity(paths.len());
    let mut warnings = wanted.map(Wanted::warnings).unwrap_or_default();
    for (number, (result, name)) in volumes.into_iter().zip(names).enumerate() {
        match result {
            Err(error) => problems.push(error.into()),
            Ok(mut volume) => {
                let of_scan = volume.warnings.drain(..).map(WarningKind::Scan);
                warnings.extend(of_scan.map(|kind| DataWarning {
                    scan: paths[number].clone(),
                    kind,
                }));
                let located = wanted.map(|w| w.locate(number, &name, &volume.geometry));
                match located.unwrap_or_else(|| Ok(Vec::new())) {
                    Err(errors) => problems.extend(errors.into_iter().map(Problem::Landmarks)),
                    Ok(landmarks) => loaded.push((number, scan(name, volume, landmarks))),
                }
            }
        }
    }
    loaded.sort_by(|(a, scan_a), (b, scan_b)| {
        (scan_a.hash, &paths[*a]).cmp(&(scan_b.hash, &paths[*b]))
    });
    let mut given: Vec<usize> = (0..loaded.len()).collect();
    given.sort_by_key(|&scan| loaded[scan].0);
    let loaded = loaded.into_iter().map(|(n, scan)| (scan, &paths[n]));
    let loaded: Vec<(Arc<Scan>, &PathBuf)> = loaded.collect();
    problems.extend(duplicates(&loaded));
    if !options.allow_mixed_spacing {
        problems.extend(mixed_spacing(&loaded));
    }
    let loaded = loaded.into_iter();
    let (scans, sources) = loaded.map(|(scan, path)| (scan, path.clone())).unzip();
    let dataset = Dataset {
        scans,
        sources,
        landmark_names: wanted.map(|w| w.names.clone()).unwrap_or_default(),
        given,
        warnings,
        unused: Vec::new(),
    };
    (dataset, problems)
}

fn scan(name: String, loaded: Preprocessed, landmarks: Vec<Option<[f64; 3]>>) -> Arc<Scan> {
    Arc::new(Scan {
        name,
        volume: loaded.volume,
        geometry: loaded.geometry,
        landmarks,
        hash: loaded.hash,
    })
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

/// One problem for each scan whose spacing differs from the most frequent one.
fn mixed_spacing(loaded: &[(Arc<Scan>, &PathBuf)]) -> Vec<Problem> {
    let alike = |a: &Scan, b: &Scan| {
        let mut pairs = a.geometry.spacing_mm.iter().zip(b.geometry.spacing_mm);
        pairs.all(|(a, b)| a.max(b) <= a.min(b) * (1.0 + SPACING_TOLERANCE))
    };
    let with = |scan: &Scan| loaded.iter().filter(|(s, _)| alike(scan, s)).count();
    let counted = loaded.iter().map(|entry| (entry, with(&entry.0)));
    // In a tie, the first wins.
    let best = counted.reduce(|best, next| if next.1 > best.1 { next } else { best });
    let Some(((usual, first), scans)) = best else {
        return Vec::new();
    };
    let odd = loaded.iter().filter(|(scan, _)| !alike(usual, scan));
    odd.map(|(scan, path)| Problem::MixedSpacing {
        scan: (*path).clone(),
        spacing_mm: scan.geometry.spacing_mm,
        usual: (*first).clone(),
        usual_mm: usual.geometry.spacing_mm,
        scans,
    })
    .collect()
}

/// A path for messages.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
