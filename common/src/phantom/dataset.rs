//! Datasets of phantoms in the layout of real ones.
//!
//! `<dir>/dataset.json` and, for each set, `images/phantom_0001.nii.gz`,
//! `landmarks/phantom_0001.csv` (name, RAS mm) and the lists `images.txt` and
//! `landmarks.txt` with paths relative to themselves.

mod files;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::spec::{PhantomSpec, PhantomSpecError};
use super::{Phantom, PhantomLandmark};
use crate::imaging::nifti_io::WriteError;
use crate::run::durable::{DurableError, write_atomic};

/// Incremented whenever a seed gives a different phantom.
pub const DATASET_VERSION: u32 = 1;

/// The set that a phantom belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhantomSet {
    Train,
    /// For choosing a checkpoint.
    Validation,
    /// For the final result, used once.
    Test,
}

impl PhantomSet {
    /// All sets, in file order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name of its folder.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for PhantomSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// The validation set in datasets of version 0.1.0.
const FORMER_VALIDATION: &str = "selection";

/// The folder of a set in the dataset at `dir`; a dataset of version 0.1.0 keeps
/// the former name of its validation set.
#[must_use]
pub fn set_folder(dir: &Path, set: PhantomSet) -> PathBuf {
    let former = dir.join(FORMER_VALIDATION);
    if set == PhantomSet::Validation && former.is_dir() {
        return former;
    }
    dir.join(set.folder())
}

/// The seed of one phantom of a dataset.
///
/// The first eight bytes of SHA-256 over dataset seed, set and index, so that
/// sets share no phantom and a dataset can grow without changing existing phantoms.
#[must_use]
pub fn sub_seed(seed: u64, set: PhantomSet, index: usize) -> u64 {
    // The former name of the validation set: equal seeds give equal phantoms in every version.
    let set = match set {
        PhantomSet::Validation => FORMER_VALIDATION,
        PhantomSet::Train | PhantomSet::Test => set.folder(),
    };
    let text = format!("landmarl phantom {seed} {set} {index}");
    let digest = Sha256::digest(text.as_bytes());
    let first = digest.iter().take(8);
    first.fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
}

/// Number of phantoms per set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhantomCounts {
    pub train: usize,
    /// For choosing a checkpoint.
    #[serde(alias = "selection")]
    pub validation: usize,
    /// For the final result.
    pub test: usize,
}

impl PhantomCounts {
    #[must_use]
    pub fn of(&self, set: PhantomSet) -> usize {
        match set {
            PhantomSet::Train => self.train,
            PhantomSet::Validation => self.validation,
            PhantomSet::Test => self.test,
        }
    }
}

/// Progress of [`write_dataset`], and its final result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetProgress {
    /// Phantoms on disk.
    pub done: usize,
    /// Phantoms that existed before.
    pub kept: usize,
    /// All phantoms of the dataset.
    pub total: usize,
}

/// Why a dataset could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// An invalid setting.
    #[error(transparent)]
    Spec(#[from] PhantomSpecError),
    /// A folder could not be created, or a description not be read.
    #[error("cannot {action} '{}': {error}", path.display())]
    Io {
        /// Such as `read`.
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// A text file could not be written.
    #[error(transparent)]
    Text(#[from] DurableError),
    /// An image could not be written.
    #[error(transparent)]
    Image(#[from] WriteError),
    /// Files are in its place that are not of a dataset of phantoms.
    #[error("'{}' has files that are no phantoms; choose another folder", path.display())]
    Taken { path: PathBuf },
    /// The folder holds a dataset with other settings.
    #[error(
        "'{}' describes another dataset: its {what} differs; choose an empty folder, or delete this one",
        path.display()
    )]
    Other {
        path: PathBuf,
        /// The difference.
        what: &'static str,
    },
}

/// The content of `dataset.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    version: u32,
    seed: u64,
    counts: PhantomCounts,
    spec: PhantomSpec,
}

/// Writes a dataset of phantoms, in parallel; calls `progress` after each.
///
/// May be run again: complete phantoms from the same seed and specification are
/// kept, and larger counts only add to them. Smaller counts shorten the lists and
/// leave the other files. Fails when the folder holds another dataset or cannot be
/// written, naming the path.
pub fn write_dataset(
    dir: &Path,
    counts: PhantomCounts,
    spec: &PhantomSpec,
    seed: u64,
    progress: impl Fn(DatasetProgress) + Sync,
) -> Result<DatasetProgress, DatasetError> {
    spec.check()?;
    let description = Description {
        version: DATASET_VERSION,
        seed,
        counts,
        spec: spec.clone(),
    };
    files::describe(dir, &description)?;
    let sets = PhantomSet::ALL.into_iter();
    let sets = sets.filter(|&set| counts.of(set) > 0);
    let of = |set| (1..=counts.of(set)).map(move |index| (set, index));
    let jobs: Vec<_> = sets.clone().flat_map(of).collect();
    let total = jobs.len();
    for set in sets.clone() {
        files::make_folders(&set_folder(dir, set))?;
    }
    let (done, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let report = || DatasetProgress {
        done: done.load(Ordering::Relaxed),
        kept: kept.load(Ordering::Relaxed),
        total,
    };
    jobs.par_iter().try_for_each(|&(set, index)| {
        let (folder, seed) = (set_folder(dir, set), sub_seed(seed, set, index));
        if write_phantom(&folder, spec, seed, index)? {
            kept.fetch_add(1, Ordering::Relaxed);
        }
        done.fetch_add(1, Ordering::Relaxed);
        progress(report());
        Ok::<_, DatasetError>(())
    })?;
    for set in sets {
        files::write_lists(&set_folder(dir, set), counts.of(set))?;
    }
    Ok(report())
}

/// Writes one phantom unless it exists already; returns whether it did.
fn write_phantom(
    folder: &Path,
    spec: &PhantomSpec,
    seed: u64,
    index: usize,
) -> Result<bool, DatasetError> {
    let image = folder.join(files::image_path(index));
    let table = folder.join(files::landmark_path(index));
    let landmarks = csv_text(&Phantom::landmarks_of(spec, seed)?);
    // The landmarks depend on every setting of the anatomy and are cheap to recompute.
    let same = std::fs::read_to_string(&table).is_ok_and(|found| found == landmarks);
    if same && files::image_is_whole(&image, spec.dims) {
        return Ok(true);
    }
    files::write_image(&image, &Phantom::generate(spec, seed)?)?;
    write_atomic(&table, landmarks.as_bytes())?;
    Ok(false)
}

fn csv_text(landmarks: &[PhantomLandmark]) -> String {
    let mut text = String::from("name,x_ras_mm,y_ras_mm,z_ras_mm\n");
    for landmark in landmarks {
        let (name, [x, y, z]) = (landmark.name, landmark.ras_mm);
        text.push_str(&format!("{name},{x:.6},{y:.6},{z:.6}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
