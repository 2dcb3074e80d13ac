//! Errors in the lists, folders and manifests that name scans and landmark files.

use std::path::{Path, PathBuf};

use crate::imaging::file_list::ListError;

/// A problem of a list, folder or manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A problem of a list file.
    #[error(transparent)]
    List(#[from] ListError),
    /// A problem of one of the named scans.
    #[error("{}{place}: {problem}", path.display())]
    Entry {
        /// The folder or manifest.
        path: PathBuf,
        /// The location in it, as `:3`.
        place: String,
        problem: String,
    },
    #[error("'{}' {problem}", path.display())]
    Whole {
        /// The folder or manifest.
        path: PathBuf,
        problem: String,
    },
}

impl SourceError {
    pub(super) fn whole(path: &Path, problem: impl Into<String>) -> Self {
        Self::Whole {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}
