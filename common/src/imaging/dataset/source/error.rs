//! Why scans and landmark files could not be told from what names them.

use std::path::{Path, PathBuf};

use crate::imaging::file_list::ListError;

/// Something wrong with a list, folder or manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// With a list file.
    #[error(transparent)]
    List(#[from] ListError),
    /// With one of the scans that it names.
    #[error("{}{place}: {problem}", path.display())]
    Entry {
        /// The folder or manifest.
        path: PathBuf,
        /// Where in it, as `:3`.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    #[error("'{}' {problem}", path.display())]
    Whole {
        /// The folder or manifest.
        path: PathBuf,
        /// What is wrong with it.
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
