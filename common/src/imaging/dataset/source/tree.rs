//! Scans and landmark files in a folder, matched by their names.
//!
//! Folders that only sort files are left out of the comparison: `images` and
//! `landmarks` (also `imagesTr`, `test_landmarks`), `train`, `val` and `test`, which
//! name the split at any depth, and `derivatives/X`. What remains of the paths must
//! be equal, as with `images/train/a.nii` and `landmarks/train/a.csv`, or be the
//! same case: `CASE_0000` or `CASE_T1w` with `CASE`, and BIDS names of one scan.

mod content;
mod matching;
mod names;
#[cfg(test)]
mod tests;
mod unmatched;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, SourceError, Split, Unused};
use matching::Matcher;
use names::{Named, Role};
pub(super) use names::{marker, modality_or_channel, normal};

/// The content of a tree.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// Landmark files without a scan, each with the problem.
    pub(super) stray: Vec<(Option<Split>, PathBuf, String)>,
    pub(super) unused: Vec<Unused>,
}

/// Most unused files that the error about a folder without scans names.
const NAMED: usize = 3;

/// Finds the scans of a folder in any of the layouts.
pub(super) fn read(root: &Path) -> Result<Found, Vec<SourceError>> {
    let files = walk(root)?;
    let named = files.iter().filter_map(|path| Named::of(path, root, None));
    found(root, &Matcher::new(named.collect()))
}

/// Scans of one folder with landmark files of the same names in another.
pub(super) fn two_folders(images: &Path, landmarks: &Path) -> Result<Found, Vec<SourceError>> {
    let mut named = Vec::new();
    for (root, role) in [(images, Role::Images), (landmarks, Role::Landmarks)] {
        let files = walk(root)?;
        let files = files.iter();
        named.extend(files.filter_map(|path| Named::of(path, root, Some(role))));
    }
    // Of each folder, only the files of its purpose.
    named.retain(|file| (file.role == Some(Role::Landmarks)) == file.is_landmarks());
    found(images, &Matcher::new(named))
}

fn found(root: &Path, matcher: &Matcher) -> Result<Found, Vec<SourceError>> {
    let matched = matcher.matched();
    let mut found = matched.found;
    unmatched::explain(matcher, &matched.owned, &matched.loose, &mut found);
    found.entries.sort_by(|a, b| a.image.cmp(&b.image));
    keep_splits(&mut found);
    found.unused = Unused::folded(std::mem::take(&mut found.unused));
    if !found.entries.is_empty() || !found.stray.is_empty() {
        return Ok(found);
    }
    let problem = "holds no scan with a landmark file of the same name; known are images/ \
                   with landmarks/, imagesTr/ with landmarksTr/, landmark files beside their \
                   scans, and any of them in train/, validation/ and test/";
    let reasons: Vec<String> = found.unused.iter().map(ToString::to_string).collect();
    let mut problem = problem.to_owned();
    if let Some(first) = reasons
        .get(..reasons.len().min(NAMED))
        .filter(|f| !f.is_empty())
    {
        problem += &format!("; not used: {}", first.join("; "));
        let more = reasons.len() - first.len();
        if more > 0 {
            problem += &format!("; and {more} more");
        }
    }
    Err(vec![SourceError::whole(root, problem)])
}

/// Where folders name splits, scans outside of them are not used.
fn keep_splits(found: &mut Found) {
    if found.entries.iter().all(|entry| entry.split.is_none()) {
        return;
    }
    let (kept, outside) = std::mem::take(&mut found.entries)
        .into_iter()
        .partition(|entry: &Entry| entry.split.is_some());
    found.entries = kept;
    let reason = "lies in no folder of a split, as others do (train, validation or test)";
    let outside = outside.into_iter();
    let outside = outside.map(|entry| Unused::new(entry.image, reason, true));
    found.unused.extend(outside);
}

/// All files below a folder, sorted, without hidden ones.
fn walk(root: &Path) -> Result<Vec<PathBuf>, Vec<SourceError>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    // Links may form cycles.
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop() {
        if !seen.insert(fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone())) {
            continue;
        }
        for path in list(&folder)? {
            // A broken link counts as a file: reading it reports the error.
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The entries of a folder, sorted, without hidden ones.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Vec<SourceError>> {
    let failed = |error: io::Error| {
        let problem = format!("cannot be listed: {error}");
        vec![SourceError::whole(folder, problem)]
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
