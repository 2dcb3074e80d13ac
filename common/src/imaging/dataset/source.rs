//! The sources of scans and their landmark files: two lists, a folder tree, or a
//! manifest with splits and folds. Each gives ordered pairs per split.

mod datalist;
mod entry;
mod error;
mod subject;
#[cfg(test)]
mod subject_tests;
mod table;
#[cfg(test)]
mod tests;
mod tree;
#[cfg(test)]
mod tree_tests;
mod unused;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::imaging::delimited::encoding::{self, NotText};
use crate::imaging::file_list::{ListFile, found_beside, read_pair, salvage_pair};

use entry::Entry;
pub use error::SourceError;
pub use subject::Subject;
pub use unused::Unused;

/// Enough for tens of thousands of scans.
const MAX_MIB: u64 = 8;

/// The purpose of scans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Split {
    #[default]
    Train,
    /// For choosing a checkpoint.
    Validation,
    /// For the final result.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Parses a split as users write it.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word.to_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validation" | "val" | "valid" | "dev" | "selection" => Some(Self::Validation),
            "test" | "testing" | "holdout" => Some(Self::Test),
            _ => None,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// A scan and its landmark files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub image: PathBuf,
    /// Usually one; several hold different landmarks. None only where lists name scans alone.
    pub landmarks: Vec<PathBuf>,
    /// Its split, where the source names splits or folds.
    pub split: Option<Split>,
}

/// A subject with scans for two purposes, such as two splits, which must not share any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSubject {
    pub subject: Subject,
    /// One scan, and what it is for: `split train`.
    pub first: (PathBuf, String),
    /// A scan of the same subject for something else.
    pub second: (PathBuf, String),
}

/// The scans of a source.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    entries: Vec<Entry>,
    /// False for a list of scans without a list of landmark files.
    labelled: bool,
    /// Whether paths are relative to the source, as in a manifest.
    relative: bool,
    /// Landmark files without a scan: split of their folder, file, problem.
    stray: Vec<(Option<Split>, PathBuf, String)>,
    /// Files of a folder that are not used, with the reason.
    pub unused: Vec<Unused>,
}

impl Source {
    /// Reads `images`: a folder, a manifest, or a list, with `landmarks` as the
    /// second list. Two folders are matched by file name.
    pub fn read(images: &Path, landmarks: Option<&Path>) -> Result<Self, Vec<SourceError>> {
        match landmarks {
            Some(landmarks) if images.is_dir() && landmarks.is_dir() => {
                Ok(Self::of_tree(images, tree::two_folders(images, landmarks)?))
            }
            Some(_) if images.is_dir() => Err(vec![SourceError::whole(
                images,
                "is a folder, so its landmarks must be a folder too, or left empty",
            )]),
            Some(landmarks) => Self::lists(images, landmarks),
            None if images.is_dir() => Ok(Self::of_tree(images, tree::read(images)?)),
            None => Self::file(images),
        }
    }

    /// The usable part of a source that [`Source::read`] refuses: of two lists,
    /// the matching lines; else nothing.
    #[must_use]
    pub fn salvage(images: &Path, landmarks: Option<&Path>) -> Vec<Pair> {
        let Some(landmarks) = landmarks.filter(|_| images.is_file()) else {
            return Vec::new();
        };
        let pairs = salvage_pair(images, landmarks).into_iter();
        let pairs = pairs.map(|(image, landmarks)| Pair {
            image,
            landmarks: vec![landmarks],
            split: None,
        });
        pairs.collect()
    }

    /// Scans with a landmark file each; their paths are not relative to the source.
    fn new(path: PathBuf, entries: Vec<Entry>) -> Self {
        Self {
            path,
            entries,
            labelled: true,
            relative: false,
            stray: Vec::new(),
            unused: Vec::new(),
        }
    }

    fn of_tree(path: &Path, found: tree::Found) -> Self {
        Self {
            stray: found.stray,
            unused: found.unused,
            ..Self::new(path.to_owned(), found.entries)
        }
    }

    fn lists(images: &Path, landmarks: &Path) -> Result<Self, Vec<SourceError>> {
        let failed = |errors: Vec<_>| {
            errors
                .into_iter()
                .map(SourceError::List)
                .collect::<Vec<_>>()
        };
        let (images, landmarks) = read_pair(images, landmarks).map_err(failed)?;
        let pairs = images.entries.into_iter().zip(landmarks.entries);
        let entries = pairs.map(|(image, landmarks)| Entry::found(image, vec![landmarks], None));
        Ok(Self::new(images.path, entries.collect()))
    }

    fn file(path: &Path) -> Result<Self, Vec<SourceError>> {
        let text = read_text(path).map_err(|error| vec![error])?;
        let (entries, unused) = match Kind::of(&text) {
            Kind::Json => datalist::entries(&text, path)?,
            Kind::Table => (table::entries(&text, path)?, Vec::new()),
            Kind::List => {
                let list = ListFile::read(path).map_err(|e| vec![SourceError::List(e)])?;
                let images = list.entries.into_iter();
                let entries = images.map(|image| Entry::found(image, Vec::new(), None));
                return Ok(Self {
                    labelled: false,
                    ..Self::new(list.path, entries.collect())
                });
            }
        };
        Ok(Self {
            relative: true,
            unused: Unused::folded(unused),
            ..Self::new(path.to_owned(), entries)
        })
    }

    /// Whether the source names scans for this split.
    #[must_use]
    pub fn has(&self, split: Split, fold: Option<u32>) -> bool {
        self.entries.iter().any(|e| e.split(fold) == Some(split))
    }

    /// The scans of one split, in order; all scans where no splits are named. `fold`
    /// is held out from training, to choose a checkpoint.
    ///
    /// An error lists every problem: a missing fold or split, missing files, scans
    /// without a landmark file or with several.
    pub fn pairs(&self, split: Split, fold: Option<u32>) -> Result<Vec<Pair>, Vec<SourceError>> {
        let (pairs, problems) = self.survey(Some(split), fold);
        if problems.is_empty() {
            Ok(pairs)
        } else {
            Err(problems)
        }
    }

    /// The usable pairs of a split, or of all splits, and their problems.
    #[must_use]
    pub fn survey(&self, split: Option<Split>, fold: Option<u32>) -> (Vec<Pair>, Vec<SourceError>) {
        let fold = match self.known_fold(split, fold) {
            Ok(fold) => fold,
            Err(error) => return (Vec::new(), vec![error]),
        };
        let splits: Vec<Option<Split>> = self.entries.iter().map(|e| e.split(fold)).collect();
        let named = splits.iter().any(Option::is_some);
        let mut problems = Vec::new();
        let mut pairs = Vec::new();
        for (entry, of) in self.entries.iter().zip(&splits) {
            if named && of.is_none() {
                let problem = "names no split, as others do: train, validation or test";
                problems.push(self.bad(entry, problem.to_owned()));
            } else if !named || split.is_none() || *of == split {
                match self.pair(entry) {
                    Ok(pair) => pairs.push(Pair { split: *of, ..pair }),
                    Err(found) => problems.extend(found),
                }
            }
        }
        let strays = self.stray.iter();
        let strays = strays.filter(|(of, ..)| split.is_none() || of.is_none() || *of == split);
        problems.extend(strays.map(|(_, path, why)| SourceError::whole(path, why)));
        if pairs.is_empty() && problems.is_empty() {
            let count = |split| splits.iter().filter(|s| **s == Some(split)).count();
            let has = Split::ALL.map(|s| format!("{} {s}", count(s))).join(", ");
            let problem = match split {
                Some(split) => format!("names no {split} scans; it has {has}"),
                None => "names no scans".to_owned(),
            };
            problems.push(SourceError::whole(&self.path, problem));
        }
        (pairs, problems)
    }

    /// Subjects, where names show them, whose scans are in several splits or folds.
    #[must_use]
    pub fn shared_subjects(&self, fold: Option<u32>) -> Vec<SharedSubject> {
        let entries = self.entries.iter();
        shared(entries.map(|e| (e.image.as_path(), e.purpose(fold))))
    }

    /// Subjects, where names show them, with training scans in `training` and validation
    /// scans in this source.
    #[must_use]
    pub fn subjects_shared_with<'a>(
        &'a self,
        training: &'a Self,
        fold: Option<u32>,
    ) -> Vec<SharedSubject> {
        let scans = |source: &'a Self, of: Split, key: &'static str| {
            let entries = source.entries.iter();
            let used = entries.filter(move |e| e.split(fold).is_none_or(|split| split == of));
            used.map(move |e| (e.image.as_path(), Some(key.to_owned())))
        };
        let trained = scans(training, Split::Train, "data.train_images");
        shared(trained.chain(scans(self, Split::Validation, "data.validation_images")))
    }

    /// The fold, if the source has it. Test scans belong to no fold, so for them a
    /// source without folds is accepted.
    fn known_fold(
        &self,
        split: Option<Split>,
        fold: Option<u32>,
    ) -> Result<Option<u32>, SourceError> {
        let Some(wanted) = fold else { return Ok(None) };
        let mut folds: Vec<u32> = self.entries.iter().filter_map(|e| e.fold).collect();
        folds.sort_unstable();
        folds.dedup();
        if folds.contains(&wanted) {
            return Ok(fold);
        }
        if folds.is_empty() && split == Some(Split::Test) {
            return Ok(None);
        }
        let has = if folds.is_empty() {
            "names no folds; a manifest does, in a column or key 'fold'".to_owned()
        } else {
            let folds: Vec<String> = folds.iter().map(u32::to_string).collect();
            format!("has folds {}", folds.join(", "))
        };
        let problem = format!("{has}; asked for was fold {wanted} (data.fold)");
        Err(SourceError::whole(&self.path, problem))
    }

    /// A scan with its landmark files, if all exist.
    fn pair(&self, entry: &Entry) -> Result<Pair, Vec<SourceError>> {
        let mut problems = Vec::new();
        let mut find = |path: &Path| {
            if !self.relative {
                return Some(path.to_owned());
            }
            let found = found_beside(&self.path, path);
            if found.is_none() {
                let problem = format!(
                    "'{}' is not there (looked beside the manifest, then in the current folder)",
                    path.display()
                );
                problems.push(self.bad(entry, problem));
            }
            found
        };
        let image = find(&entry.image);
        let mut landmarks = Vec::new();
        match entry.landmarks.as_slice() {
            [] if self.labelled => problems.push(self.bad(entry, entry.expected.clone())),
            [_, _, ..] if !entry.merge => {
                let several = &entry.landmarks;
                let names: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
                let problem = format!(
                    "scan '{}' has several landmark files: {}; keep one, or use a manifest",
                    entry.image.display(),
                    names.join(", ")
                );
                problems.push(self.bad(entry, problem));
            }
            files => landmarks.extend(files.iter().filter_map(|file| find(file))),
        }
        match image {
            Some(image) if problems.is_empty() => Ok(Pair {
                image,
                landmarks,
                split: entry.split,
            }),
            _ => Err(problems),
        }
    }

    fn bad(&self, entry: &Entry, problem: String) -> SourceError {
        SourceError::Entry {
            path: self.path.clone(),
            place: entry.place.clone(),
            problem,
        }
    }
}

/// The kind of a file, by its content.
#[derive(Debug, PartialEq)]
enum Kind {
    Json,
    Table,
    List,
}

impl Kind {
    fn of(text: &str) -> Self {
        if text.trim_start().starts_with(['{', '[']) {
            Self::Json
        } else if table::is_table(text) {
            Self::Table
        } else {
            Self::List
        }
    }
}

/// Whether a path names a list of scans, which needs a list of landmark files
/// beside it: neither a folder nor a manifest.
#[must_use]
pub fn is_list(path: &Path) -> bool {
    path.is_file() && read_text(path).is_ok_and(|text| Kind::of(&text) == Kind::List)
}

/// Subjects, where names show them, with scans for several purposes; each once.
fn shared<'a>(scans: impl Iterator<Item = (&'a Path, Option<String>)>) -> Vec<SharedSubject> {
    let scans: Vec<(&Path, Option<String>)> = scans.collect();
    let images: Vec<&Path> = scans.iter().map(|scan| scan.0).collect();
    let mut seen: HashMap<Subject, Option<(&Path, String)>> = HashMap::new();
    let mut shared = Vec::new();
    for ((image, purpose), subject) in scans.into_iter().zip(Subject::of_all(&images)) {
        let (Some(subject), Some(purpose)) = (subject, purpose) else {
            continue;
        };
        match seen.get_mut(&subject) {
            None => drop(seen.insert(subject, Some((image, purpose)))),
            Some(first) => {
                if let Some((path, of)) = first.take_if(|(_, of)| *of != purpose) {
                    shared.push(SharedSubject {
                        subject,
                        first: (path.to_owned(), of),
                        second: (image.to_owned(), purpose),
                    });
                }
            }
        }
    }
    shared
}

fn read_text(path: &Path) -> Result<String, SourceError> {
    encoding::read(path, MAX_MIB).map_err(|error| {
        let advice = match error {
            NotText::Unreadable(_) => "; give a list of scans, a folder or a manifest",
            _ => "",
        };
        SourceError::whole(path, format!("{error}{advice}"))
    })
}
