//! Matches landmark files with scans, and says why the others are not used.

use std::collections::{BTreeMap, HashMap};

use super::super::{Entry, Unused};
use super::Found;
use super::names::{Kind, Named, Role, bids_subject, related};
use crate::imaging::landmark_file::LandmarkFile;

/// How well names fit: exactly, by the case, by BIDS parts, or in any folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Name,
    Case,
    Parts,
    Anywhere,
}

/// Scans and landmark files of a tree, with indices of the scans by name.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) scans: Vec<Named>,
    pub(super) landmarks: Vec<Named>,
    /// Scans that are not read, and voxel files of pairs.
    pub(super) others: Vec<Named>,
    /// By folder and name.
    names: HashMap<(String, String), Vec<usize>>,
    cases: HashMap<(String, String), Vec<usize>>,
    /// By name or case, in any folder.
    stems: HashMap<String, Vec<usize>>,
    /// By the subject of their BIDS name.
    subjects: HashMap<String, Vec<usize>>,
    folders: HashMap<String, Vec<usize>>,
}

/// The landmark files of a scan.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    /// Numbers of landmark files, all of the best fit.
    files: Vec<usize>,
    /// Whether each file holds one landmark of the scan.
    merge: bool,
}

/// A landmark file that belongs to no scan, or may belong to several.
#[derive(Debug)]
pub(super) struct Loose {
    pub(super) number: usize,
    pub(super) owners: Vec<usize>,
}

/// What names say about the files of a tree.
#[derive(Debug)]
pub(super) struct Matched {
    /// Of each scan.
    pub(super) owned: Vec<Owned>,
    pub(super) loose: Vec<Loose>,
    /// Scans with their landmark files, and those that others fit better.
    pub(super) found: Found,
}

impl Owned {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether its landmark file is called as the case, not as the scan: `CASE` of `CASE_0000`.
    pub(super) fn by_case(&self, matcher: &Matcher) -> bool {
        let mut files = self.files.iter().map(|&n| &matcher.landmarks[n].stem);
        files.any(|stem| !stem.ends_with("_0000"))
    }
}

impl Matcher {
    pub(super) fn new(files: Vec<Named>) -> Self {
        let (landmarks, files): (Vec<_>, Vec<_>) = files.into_iter().partition(Named::is_landmarks);
        let (scans, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.kind == Kind::Scan);
        let mut matcher = Self {
            scans,
            landmarks,
            others,
            names: HashMap::new(),
            cases: HashMap::new(),
            stems: HashMap::new(),
            subjects: HashMap::new(),
            folders: HashMap::new(),
        };
        matcher.index();
        matcher
    }

    fn index(&mut self) {
        let has_images = self.scans.iter().any(|s| s.role == Some(Role::Images));
        for (number, scan) in self.scans.iter().enumerate() {
            // Beside images these are label maps.
            if has_images && scan.role == Some(Role::Landmarks) {
                continue;
            }
            let folder = scan.folder.join("/");
            let key = |name: &str| (folder.clone(), name.to_owned());
            self.names.entry(key(&scan.stem)).or_default().push(number);
            self.stems
                .entry(scan.stem.clone())
                .or_default()
                .push(number);
            if let Some(case) = scan.case() {
                self.cases.entry(key(case)).or_default().push(number);
                self.stems.entry(case.to_owned()).or_default().push(number);
            }
            if let Some(subject) = bids_subject(&scan.stem) {
                let of_subject = self.subjects.entry(subject.to_owned());
                of_subject.or_default().push(number);
            }
            self.folders.entry(folder).or_default().push(number);
        }
    }

    /// The scans that a landmark file may belong to; one, if it is clear.
    fn owners(&self, file: &Named) -> (Fit, Vec<usize>) {
        let key = (file.folder.join("/"), file.stem.clone());
        let subject = bids_subject(&file.stem);
        let of_subject = subject.and_then(|subject| self.subjects.get(subject));
        let parts: Vec<usize> = of_subject
            .into_iter()
            .flatten()
            .copied()
            .filter(|&scan| related(&file.stem, &self.scans[scan].stem))
            .collect();
        // A flat folder of landmark files: the name says all.
        let flat = file.role == Some(Role::Landmarks) && file.folder.is_empty();
        let anywhere = self.stems.get(&file.stem).filter(|_| flat);
        let steps = [
            (Fit::Name, self.names.get(&key)),
            (Fit::Case, self.cases.get(&key)),
            (Fit::Parts, Some(&parts)),
            (Fit::Anywhere, anywhere),
        ];
        let found = steps.into_iter().find_map(|(fit, scans)| {
            let scans = self.fitting(file, scans?);
            (!scans.is_empty()).then_some((fit, scans))
        });
        found.unwrap_or((Fit::Anywhere, Vec::new()))
    }

    /// Of some scans, those that fit the file's folders best.
    fn fitting(&self, file: &Named, scans: &[usize]) -> Vec<usize> {
        let fits = |&number: &usize| {
            let scan = &self.scans[number];
            let splits = file.split().zip(scan.split());
            splits.is_none_or(|(a, b)| a == b)
                && (scan.role != Some(Role::Landmarks) || scan.is_beside(file))
        };
        let mut fitting: Vec<usize> = scans.iter().copied().filter(fits).collect();
        let narrower: [&dyn Fn(&Named) -> bool; 4] = [
            &|scan| scan.is_beside(file),
            &|scan| scan.folder == file.folder,
            &|scan| scan.stem == file.stem,
            &|scan| !scan.derived,
        ];
        for is_better in narrower {
            let better = fitting.iter().copied();
            let better: Vec<usize> = better.filter(|&n| is_better(&self.scans[n])).collect();
            if !better.is_empty() {
                fitting = better;
            }
        }
        fitting
    }

    /// Each scan with its landmark files.
    pub(super) fn matched(&self) -> Matched {
        let mut owned = vec![Owned::default(); self.scans.len()];
        let mut fits = vec![Fit::Anywhere; self.scans.len()];
        let mut loose = Vec::new();
        let mut found = Found::default();
        for (number, file) in self.landmarks.iter().enumerate() {
            let (fit, owners) = self.owners(file);
            let [owner] = owners[..] else {
                loose.push(Loose { number, owners });
                continue;
            };
            // Beside scans, BIDS keeps other JSON files.
            let may_be_sidecar = file.kind == Kind::Sidecar && file.role != Some(Role::Landmarks);
            if may_be_sidecar && LandmarkFile::read(&file.path).is_err() {
                continue;
            }
            let before = &mut owned[owner].files;
            if before.is_empty() || fit < fits[owner] {
                found
                    .unused
                    .extend(before.drain(..).map(|n| self.surplus(n, owner)));
                fits[owner] = fit;
            }
            if fit == fits[owner] {
                before.push(number);
            } else {
                found.unused.push(self.surplus(number, owner));
            }
        }
        self.merge_single(&mut owned, &mut loose);
        for (scan, owned) in self.scans.iter().zip(&owned) {
            if !owned.is_empty() {
                self.use_scan(scan, owned, &mut found);
            }
        }
        Matched {
            owned,
            loose,
            found,
        }
    }

    fn surplus(&self, file: usize, owner: usize) -> Unused {
        let scan = self.scans[owner].path.display();
        Unused {
            path: self.landmarks[file].path.clone(),
            reason: format!("is not used: another landmark file fits the name of '{scan}' better"),
            mistake: false,
        }
    }

    fn use_scan(&self, scan: &Named, owned: &Owned, found: &mut Found) {
        let files: Vec<&Named> = owned.files.iter().map(|&n| &self.landmarks[n]).collect();
        let mut splits = scan.splits.clone();
        for split in files.iter().flat_map(|file| &file.splits) {
            if !splits.contains(split) {
                splits.push(*split);
            }
        }
        if let [first, second, ..] = splits[..] {
            let problem = format!(
                "lies in folders of two splits, {first} and {second}; move it, or write a manifest"
            );
            found.stray.push((None, scan.path.clone(), problem));
            return;
        }
        let paths = files.iter().map(|file| file.path.clone());
        found.entries.push(Entry {
            merge: owned.merge,
            ..Entry::found(scan.path.clone(), paths.collect(), splits.first().copied())
        });
    }

    /// Gives scans the files that hold one landmark each, as 3D Slicer writes them:
    /// `a_AC.mrk.json` and `a_PC.mrk.json` of `a.nii`, or both in a folder `a`.
    fn merge_single(&self, owned: &mut [Owned], loose: &mut Vec<Loose>) {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for file in loose.iter().filter(|file| file.owners.is_empty()) {
            if let Some(host) = self.host(&self.landmarks[file.number])
                && owned[host].is_empty()
            {
                groups.entry(host).or_default().push(file.number);
            }
        }
        let one_point = |number: &usize| {
            let file = LandmarkFile::read(&self.landmarks[*number].path);
            file.is_ok_and(|file| file.points.len() == 1)
        };
        if groups.values().all(|files| files.len() < 2) {
            return;
        }
        for (host, files) in groups {
            if files.iter().all(one_point) {
                loose.retain(|file| !files.contains(&file.number));
                owned[host] = Owned { files, merge: true };
            }
        }
    }

    /// The scan whose name begins the file's, or is its folder's, or that is alone there.
    fn host(&self, file: &Named) -> Option<usize> {
        let folder = file.folder.join("/");
        let begins = |name: &str| {
            let rest = file.stem.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['_', '-', '.', ' ']))
        };
        let here = self.folders.get(&folder).map_or(&[][..], Vec::as_slice);
        let length = |&number: &usize| {
            let scan = &self.scans[number];
            let names = [Some(scan.stem.as_str()), scan.case()]
                .into_iter()
                .flatten();
            names.filter(|name| begins(name)).map(str::len).max()
        };
        let longest = here.iter().filter_map(length).max();
        let by_name = |number: &usize| longest.is_some() && length(number) == longest;
        let by_name: Vec<usize> = here.iter().copied().filter(by_name).collect();
        let own_folder = file.folder.split_last().and_then(|(last, above)| {
            let key = (above.join("/"), last.clone());
            self.names.get(&key).or_else(|| self.cases.get(&key))
        });
        let own_folder = own_folder.map_or(&[][..], Vec::as_slice);
        let choices = [by_name.as_slice(), own_folder, here];
        let fitting = choices.into_iter().map(|scans| self.fitting(file, scans));
        let mut one = fitting.filter(|scans| scans.len() == 1);
        one.next().map(|scans| scans[0])
    }
}
