//! Scans and landmark files in a folder, matched by their names.
//!
//! Layouts, the first match counts: `train/`, `validation/` and `test/`, each
//! with one of the other layouts; `imagesTr/CASE_0000.nii.gz` with
//! `landmarksTr/CASE.*` (and `Ts` for test), as in nnU-Net; `images/` with
//! `landmarks/`; landmark files next to their scans, at any depth, as in BIDS.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, SourceError, Split};
use crate::imaging::nifti_io::bare_name;

/// Endings of landmark files, longer ones first. Next to scans the last one is
/// ignored, because BIDS keeps other JSON files there.
const LANDMARK_ENDINGS: [&str; 7] = [
    ".mrk.json",
    ".fcsv",
    ".csv",
    ".tsv",
    ".vtk",
    ".txt",
    ".json",
];
const SIDECAR: &str = ".json";

/// The content of a tree.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// Landmark files without a scan, each with the problem.
    pub(super) stray: Vec<(Option<Split>, PathBuf, String)>,
}

impl Found {
    fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.stray.extend(other.stray);
    }
}

/// Finds the scans of a folder in any of the layouts.
pub(super) fn read(root: &Path) -> Result<Found, Vec<SourceError>> {
    let mut found = Found::default();
    let mut split_folders = list(root)?;
    split_folders.retain(|path| path.is_dir());
    for folder in split_folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if let Some(split) = Split::of(&name) {
            found.extend(one(&folder, Some(split))?);
        }
    }
    if found.entries.is_empty() && found.stray.is_empty() {
        found = nnunet(root)?;
    }
    if found.entries.is_empty() && found.stray.is_empty() {
        found = one(root, None)?;
    }
    if found.entries.is_empty() && found.stray.is_empty() {
        let problem = "holds no scan with a landmark file of the same name; known are images/ \
                       with landmarks/, imagesTr/ with landmarksTr/, landmark files beside their \
                       scans, and any of them in train/, validation/ and test/";
        return Err(vec![SourceError::whole(root, problem)]);
    }
    Ok(found)
}

/// Scans of one folder with landmark files of the same names in another.
pub(super) fn two_folders(images: &Path, landmarks: &Path) -> Result<Found, Vec<SourceError>> {
    matched(images, landmarks, None, |stem| Some(stem.to_owned()))
}

fn nnunet(root: &Path) -> Result<Found, Vec<SourceError>> {
    let mut found = Found::default();
    for (ending, split) in [("Tr", Split::Train), ("Ts", Split::Test)] {
        let images = root.join(format!("images{ending}"));
        let landmarks = root.join(format!("landmarks{ending}"));
        // Test scans often have no landmarks.
        if images.is_dir() && (split == Split::Train || landmarks.is_dir()) {
            found.extend(matched(&images, &landmarks, Some(split), first_channel)?);
        }
    }
    Ok(found)
}

/// `CASE` of `CASE_0000`; `None` for other channels, which are not read.
fn first_channel(stem: &str) -> Option<String> {
    match stem.rsplit_once('_') {
        Some((case, "0000")) => Some(case.to_owned()),
        Some((_, channel)) if channel.len() == 4 && channel.bytes().all(|b| b.is_ascii_digit()) => {
            None
        }
        _ => Some(stem.to_owned()),
    }
}

fn one(folder: &Path, split: Option<Split>) -> Result<Found, Vec<SourceError>> {
    let (images, landmarks) = (folder.join("images"), folder.join("landmarks"));
    if images.is_dir() && landmarks.is_dir() {
        matched(&images, &landmarks, split, |stem| Some(stem.to_owned()))
    } else {
        beside(folder, split)
    }
}

/// The scans of `images` with the landmark files of `landmarks`; `case` maps a
/// scan's stem to that of its landmark file.
fn matched(
    images: &Path,
    landmarks: &Path,
    split: Option<Split>,
    case: impl Fn(&str) -> Option<String>,
) -> Result<Found, Vec<SourceError>> {
    let mut by_stem = by_stem(&walk(landmarks)?, landmarks, true);
    let mut entries = Vec::new();
    for image in walk(images)? {
        let relative = relative(&image, images);
        let Some(stem) = scan_stem(&relative).and_then(&case) else {
            continue;
        };
        let expected = format!(
            "scan '{}' has no landmark file; expected {} and one of {}",
            image.display(),
            landmarks.join(&stem).display(),
            LANDMARK_ENDINGS.join(", ")
        );
        let files = by_stem.remove(&stem).unwrap_or_default();
        entries.push(Entry {
            expected,
            ..Entry::found(image, files, split)
        });
    }
    let mut stray: Vec<PathBuf> = by_stem.into_values().flatten().collect();
    stray.sort();
    let stray = stray.into_iter().map(|path| {
        let problem = format!(
            "belongs to no scan: none in '{}' has its name",
            images.display()
        );
        (split, path, problem)
    });
    Ok(Found {
        entries,
        stray: stray.collect(),
    })
}

/// The scans with a landmark file of the same name next to them. Other scans are
/// ignored: a BIDS folder holds many other images.
fn beside(folder: &Path, split: Option<Split>) -> Result<Found, Vec<SourceError>> {
    let files = walk(folder)?;
    let mut by_stem = by_stem(&files, folder, false);
    let mut entries = Vec::new();
    let mut bare = 0_usize;
    for image in files {
        let relative = relative(&image, folder);
        let Some(stem) = scan_stem(&relative) else {
            continue;
        };
        match by_stem.remove(stem) {
            Some(landmarks) => entries.push(Entry::found(image, landmarks, split)),
            None => bare += 1,
        }
    }
    if bare > 0 {
        tracing::info!(
            folder = %folder.display(),
            scans = entries.len(),
            left_out = bare,
            "scans without a landmark file beside them are left out"
        );
    }
    Ok(Found {
        entries,
        stray: Vec::new(),
    })
}

/// A scan's path without its ending; `None` for other files, and for the voxel
/// file of a `.hdr`/`.img` pair, which its header represents.
fn scan_stem(path: &str) -> Option<&str> {
    let stem = bare_name(path)?;
    let end = path.get(stem.len()..)?.to_ascii_lowercase();
    (!end.starts_with(".img")).then_some(stem)
}

/// Landmark files by their path below `root` without ending.
fn by_stem(files: &[PathBuf], root: &Path, sidecars: bool) -> HashMap<String, Vec<PathBuf>> {
    let mut all: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for path in files {
        let relative = relative(path, root);
        let lower = relative.to_lowercase();
        let ending = LANDMARK_ENDINGS.into_iter().find(|e| lower.ends_with(e));
        let Some(ending) = ending.filter(|e| sidecars || *e != SIDECAR) else {
            continue;
        };
        let stem = relative.get(..relative.len() - ending.len());
        let stem = stem.unwrap_or(&relative).to_owned();
        all.entry(stem).or_default().push(path.clone());
    }
    all
}

fn relative(path: &Path, root: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path);
    inside.to_string_lossy().into_owned()
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
