//! Files that a source holds and that are not used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A file that was found beside the scans and is not used, or several for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// The file, or the folder of several.
    pub path: PathBuf,
    /// Continues a sentence that begins with the path.
    pub reason: String,
    /// Whether it probably was meant to be used.
    pub mistake: bool,
    /// The number of files.
    pub count: usize,
}

/// Files with one ending and one reason that are named one by one.
const LISTED: usize = 3;

impl Unused {
    pub(super) fn new(path: PathBuf, reason: impl Into<String>, mistake: bool) -> Self {
        Self {
            path,
            reason: reason.into(),
            mistake,
            count: 1,
        }
    }

    /// Sorted by path, with one line for many files of one ending and one reason.
    pub(super) fn folded(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_by(|a, b| a.path.cmp(&b.path));
        let mut groups: BTreeMap<(bool, String, String), Vec<Self>> = BTreeMap::new();
        for unused in all {
            // Reasons may name a file in quotes.
            let reason = unused.reason.split('\'').step_by(2).collect();
            let ending = unused.path.extension().unwrap_or_default();
            let ending = ending.to_string_lossy().to_lowercase();
            let key = (unused.mistake, ending, reason);
            groups.entry(key).or_default().push(unused);
        }
        let groups = groups.into_values();
        let mut lines: Vec<Self> = groups.flat_map(Self::fold).collect();
        lines.sort_by(|a, b| a.path.cmp(&b.path));
        lines
    }

    /// The files of one reason, or one line for all.
    fn fold(files: Vec<Self>) -> Vec<Self> {
        let [first, .., last] = files.as_slice() else {
            return files;
        };
        if files.len() <= LISTED {
            return files;
        }
        // In sorted order, the first and the last differ most.
        let folder = first.path.ancestors().skip(1);
        let mut folder = folder.filter(|folder| last.path.starts_with(folder));
        let folder = folder.next().unwrap_or(Path::new(""));
        let name = first.path.strip_prefix(folder).unwrap_or(&first.path);
        let count = files.iter().map(|file| file.count).sum();
        let reason = format!(
            "holds {count} files such as '{}', which {}",
            name.display(),
            first.reason
        );
        vec![Self {
            path: folder.to_owned(),
            reason,
            mistake: first.mistake,
            count,
        }]
    }
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.path.display(), self.reason)
    }
}
