//! Matches landmark files with scans, and says why the others are not used.

use std::cell::OnceCell;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::super::subject::{JOINTS, repeats};
use super::super::{Entry, Unused};
use super::Found;
use super::content::Content;
use super::names::{Kind, Named, Role, bids_subject, modality_or_channel, related};

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
    /// Scans that are not read, as another in their folder has their name.
    doubles: Vec<Unused>,
    /// What the landmark files hold, once it was asked for.
    contents: Vec<OnceCell<Content>>,
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

    pub(super) fn files<'a>(&'a self, matcher: &'a Matcher) -> impl Iterator<Item = &'a Named> {
        self.files.iter().map(|&number| &matcher.landmarks[number])
    }

    /// Whether its landmark file is called as the case, not as the scan: `CASE` of `CASE_0000`.
    pub(super) fn by_case(&self, matcher: &Matcher) -> bool {
        let mut files = self.files(matcher);
        files.any(|file| !file.stem.ends_with("_0000"))
    }
}

impl Matcher {
    pub(super) fn new(files: Vec<Named>) -> Self {
        let (landmarks, files): (Vec<_>, Vec<_>) = files.into_iter().partition(Named::is_landmarks);
        let (scans, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.kind == Kind::Scan);
        let (scans, doubles) = without_doubles(scans);
        let mut matcher = Self {
            scans,
            contents: landmarks.iter().map(|_| OnceCell::new()).collect(),
            landmarks,
            others,
            doubles,
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
            .filter(|&scan| related(file, &self.scans[scan]))
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
            // A derived scan may have another space than the scan it is derived from.
            let may_derive = !scan.derived || file.derived || file.role == Some(Role::Landmarks);
            splits.is_none_or(|(a, b)| a == b)
                && may_derive
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

    /// What a landmark file holds.
    pub(super) fn content(&self, number: usize) -> &Content {
        self.contents[number].get_or_init(|| Content::of(&self.landmarks[number].path))
    }

    /// Whether a file that fits a scan's name is its landmark file: by its ending, its
    /// folder or its content.
    fn is_certain(&self, number: usize) -> bool {
        let file = &self.landmarks[number];
        file.kind == Kind::Landmarks
            || file.role == Some(Role::Landmarks)
            || self.content(number).is_landmarks()
    }

    /// Each scan with its landmark files.
    pub(super) fn matched(&self) -> Matched {
        let mut owned = vec![Owned::default(); self.scans.len()];
        let mut fits = vec![Fit::Anywhere; self.scans.len()];
        let (mut loose, mut uncertain) = (Vec::new(), Vec::new());
        let mut found = Found {
            unused: self.doubles.clone(),
            ..Found::default()
        };
        for (number, file) in self.landmarks.iter().enumerate() {
            let (fit, owners) = self.owners(file);
            let [owner] = owners[..] else {
                loose.push(Loose { number, owners });
                continue;
            };
            if !self.is_certain(number) {
                uncertain.push((number, owner));
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
        for (number, owner) in uncertain {
            let (file, scan) = (&self.landmarks[number], &self.scans[owner]);
            if file.kind != Kind::Perhaps || !file.is_twin(scan) {
                let owners = vec![owner];
                loose.push(Loose { number, owners });
            } else if owned[owner].is_empty() {
                // Reading it says what is wrong with it.
                owned[owner].files.push(number);
            } else {
                found.unused.push(self.surplus(number, owner));
            }
        }
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
        let reason = format!("is not used: another landmark file fits the scan '{scan}' better");
        Unused::new(self.landmarks[file].path.clone(), reason, false)
    }

    fn use_scan(&self, scan: &Named, owned: &Owned, found: &mut Found) {
        let files: Vec<&Named> = owned.files(self).collect();
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
    /// `a_AC.mrk.json` and `a_PC.mrk.json` of `a.nii`, or both in a folder `a`. One file
    /// alone must begin with the scan's name.
    fn merge_single(&self, owned: &mut [Owned], loose: &mut Vec<Loose>) {
        let mut groups: BTreeMap<usize, (Vec<usize>, bool)> = BTreeMap::new();
        for file in loose.iter().filter(|file| file.owners.is_empty()) {
            let landmarks = &self.landmarks[file.number];
            let content = self.content(file.number);
            let may_hold_one = landmarks.kind == Kind::Landmarks || content.is_landmarks();
            if may_hold_one
                && content.points != Some(0)
                && let Some((host, by_name)) = self.host(landmarks)
                && owned[host].is_empty()
            {
                let (files, all_by_name) = groups.entry(host).or_insert((Vec::new(), true));
                files.push(file.number);
                *all_by_name &= by_name;
            }
        }
        // A file that has an error takes part, so that reading it shows the error.
        let has_one = |&number: &usize| self.content(number).points.is_none_or(|n| n == 1);
        for (host, (files, by_name)) in groups {
            if (files.len() > 1 || by_name) && files.iter().all(has_one) {
                loose.retain(|file| !files.contains(&file.number));
                owned[host] = Owned { files, merge: true };
            }
        }
    }

    /// The scan whose name begins the file's, with `true`; or whose name the file's folder
    /// has, or that is alone in a folder of its own with the file.
    fn host(&self, file: &Named) -> Option<(usize, bool)> {
        let folder = file.folder.join("/");
        let here = self.folders.get(&folder).map_or(&[][..], Vec::as_slice);
        let length = |&number: &usize| {
            let scan = &self.scans[number];
            let names = [Some(scan.stem.as_str()), scan.case()]
                .into_iter()
                .flatten();
            let names = names.filter(|name| continues(&file.stem, name));
            names.map(str::len).max()
        };
        let longest = here.iter().filter_map(length).max();
        let by_name = |number: &usize| longest.is_some() && length(number) == longest;
        let by_name: Vec<usize> = here.iter().copied().filter(by_name).collect();
        let own_folder = file.folder.split_last().and_then(|(last, above)| {
            let key = (above.join("/"), last.clone());
            self.names.get(&key).or_else(|| self.cases.get(&key))
        });
        let own_folder = own_folder.map_or(&[][..], Vec::as_slice);
        let beside = |number: &usize| self.scans[*number].is_beside(file);
        let beside: Vec<usize> = here.iter().copied().filter(beside).collect();
        let alone = match beside[..] {
            [one] if is_of_folder(file, &self.scans[one]) => &beside[..],
            _ => &[],
        };
        let choices = [(&by_name[..], true), (own_folder, false), (alone, false)];
        let fitting = choices.map(|(scans, by_name)| (self.fitting(file, scans), by_name));
        let first = fitting.into_iter().find(|(scans, _)| !scans.is_empty())?;
        match first.0[..] {
            [one] => Some((one, first.1)),
            _ => None,
        }
    }
}

/// Whether a name is another with a landmark's: `s1_AC` of `s1`, but neither `s1_2_AC`
/// nor `s1_T2_AC`, which are of other scans.
fn continues(name: &str, scan: &str) -> bool {
    let rest = name.strip_prefix(scan);
    let word = rest.and_then(|rest| rest.strip_prefix(JOINTS)?.split(JOINTS).next());
    word.is_some_and(|word| {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        !word.is_empty() && !is_number && !modality_or_channel(word) && !repeats(word)
    })
}

/// Whether the folder of both is this patient's own, and the file's name that of a landmark
/// alone: `p1/AC` beside `p1/scan` or `p1/p1_T1`. Two words may be a name and a landmark.
fn is_of_folder(file: &Named, scan: &Named) -> bool {
    let Some(folder) = file.folder.last() else {
        return false;
    };
    let rest = file.stem.strip_prefix(folder.as_str());
    let landmark = rest.and_then(|rest| rest.strip_prefix(JOINTS));
    let is_landmark = !landmark.unwrap_or(&file.stem).contains(JOINTS);
    let is_own = modality_or_channel(&scan.stem)
        || scan.stem == *folder
        || scan
            .stem
            .strip_prefix(folder.as_str())
            .is_some_and(|rest| rest.starts_with(JOINTS));
    is_landmark && is_own
}

/// Scans without those that have the name of another in their folder, as `a.nii.gz` beside
/// `a.nii`.
fn without_doubles(scans: Vec<Named>) -> (Vec<Named>, Vec<Unused>) {
    let mut seen = HashMap::new();
    let (mut kept, mut doubles) = (Vec::with_capacity(scans.len()), Vec::new());
    for scan in scans {
        let key = (scan.path.parent().map(Path::to_owned), scan.stem.clone());
        match seen.entry(key) {
            Slot::Occupied(first) => {
                let first: &PathBuf = first.get();
                let first = first.display();
                let reason =
                    format!("is not used: it has the same name as '{first}'; remove or rename one");
                doubles.push(Unused::new(scan.path, reason, true));
            }
            Slot::Vacant(slot) => {
                slot.insert(scan.path.clone());
                kept.push(scan);
            }
        }
    }
    (kept, doubles)
}
