//! All problems of a dataset.

use std::fmt;
use std::path::PathBuf;

use super::unknown::UnknownLandmarks;
use super::{SourceError, Unused, shown};
use crate::imaging::cache::VolumeError;
use crate::imaging::landmark_file::LandmarkError;

/// One problem.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A problem of the list, folder or manifest that names the scans.
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Scan(#[from] VolumeError),
    /// A problem of a landmark file, or of a landmark in its scan.
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
    /// Landmarks that files do not have.
    #[error(transparent)]
    UnknownLandmarks(Box<UnknownLandmarks>),
    /// One id refers to different landmarks in different files.
    #[error(
        "landmark '{id}' is '{first_name}' in '{}' but '{second_name}' in '{}'; \
         ask for landmarks by name",
        shown(first),
        shown(second)
    )]
    NamesDisagree {
        id: String,
        first: PathBuf,
        first_name: String,
        second: PathBuf,
        second_name: String,
    },
    /// One id is a name in one file and a number in another.
    #[error(
        "landmark '{id}' is a name in '{}' but the point number {id} (from 0) in '{}', where no \
         point has that name; name the points in both files, or use the two data sets separately",
        shown(named),
        shown(numbered)
    )]
    NameAndNumber {
        id: String,
        named: PathBuf,
        numbered: PathBuf,
    },
    /// One landmark in two files of the same scan.
    #[error(
        "landmark '{name}' is in '{}' and in '{}', which belong to the same scan; keep one",
        shown(first),
        shown(second)
    )]
    NamedTwice {
        name: String,
        first: PathBuf,
        second: PathBuf,
    },
    /// A file that probably was meant to be used.
    #[error("{0}")]
    Unused(Unused),
    /// A scan that is listed twice.
    #[error(
        "'{}' and '{}' hold the same scan; list it once",
        shown(first),
        shown(second)
    )]
    Duplicate { first: PathBuf, second: PathBuf },
    /// A scan whose voxels differ in size from the others' by more than 1 %.
    #[error(
        "'{}' has spacing {spacing_mm:.4?} mm, {scans} of the scans have {usual_mm:.4?} mm (as '{}'); \
         set data.resample_mm to one spacing in mm for all, or data.allow_mixed_spacing = true",
        shown(scan),
        shown(usual)
    )]
    MixedSpacing {
        /// The scan that differs.
        scan: PathBuf,
        /// Its spacing on our axes.
        spacing_mm: [f64; 3],
        /// A scan with the most frequent spacing.
        usual: PathBuf,
        usual_mm: [f64; 3],
        /// Number of scans with that spacing.
        scans: usize,
    },
}

/// Why a dataset was not loaded: each problem on a line.
#[derive(Debug)]
pub struct DatasetError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl DatasetError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }
}

impl fmt::Display for DatasetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = self.problems.as_slice() {
            return problem.fmt(f);
        }
        write!(f, "{} problems with the data:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DatasetError {}
