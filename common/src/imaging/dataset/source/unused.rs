//! Files that a source holds and that are not used.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// A file that was found beside the scans and is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// The file, or the folder of several.
    pub path: PathBuf,
    /// Continues a sentence that begins with the path.
    pub reason: String,
    /// Whether it probably was meant to be used.
    pub mistake: bool,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.path.display(), self.reason)
    }
}
