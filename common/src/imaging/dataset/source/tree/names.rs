//! What the names of folders and files say: purpose, split, case.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization as _;

use super::super::Split;
use crate::imaging::nifti_io::bare_name;

/// Endings of landmark files, longer ones first.
pub(super) const LANDMARK_ENDINGS: [&str; 7] = [
    ".mrk.json",
    ".fcsv",
    ".csv",
    ".tsv",
    ".vtk",
    ".txt",
    ".json",
];
/// Endings that only landmark files have.
const SURE: [&str; 2] = [".mrk.json", ".fcsv"];
const SIDECAR: &str = ".json";

/// Endings of scans in formats that are not read.
const OTHER_SCANS: [&str; 13] = [
    ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".dicom", ".ima", ".mgz", ".mgh", ".mnc", ".gipl",
    ".nii.bz2", ".nii.zip",
];

/// Last words of scan names that say how it was acquired, without the case.
const MODALITIES: [&str; 14] = [
    "t1w", "t2w", "t1", "t2", "flair", "pd", "pdw", "ct", "cbct", "mr", "mri", "img", "image",
    "scan",
];
/// Last words of BIDS names of landmark files.
const LANDMARK_SUFFIXES: [&str; 9] = [
    "afids",
    "landmarks",
    "landmark",
    "fiducials",
    "fids",
    "points",
    "markups",
    "coordinates",
    "annotations",
];
/// Last words of BIDS names of images that show no anatomy.
const MAPS: [&str; 5] = ["dseg", "probseg", "mask", "seg", "label"];
/// Parts of a BIDS name that describe a landmark file, not its scan.
const OWN_PARTS: [&str; 3] = ["desc", "rater", "label"];

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::imaging::dataset::source) enum Role {
    Images,
    Landmarks,
}

const ROLES: [(&str, Role); 13] = [
    ("images", Role::Images),
    ("image", Role::Images),
    ("imgs", Role::Images),
    ("scans", Role::Images),
    ("volumes", Role::Images),
    ("landmarks", Role::Landmarks),
    ("landmark", Role::Landmarks),
    ("fiducials", Role::Landmarks),
    ("markups", Role::Landmarks),
    ("points", Role::Landmarks),
    ("annotations", Role::Landmarks),
    ("labels", Role::Landmarks),
    ("label", Role::Landmarks),
];

/// What a folder is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::imaging::dataset::source) struct Marker {
    role: Option<Role>,
    split: Option<Split>,
    /// Whether its name has another word, as `test_data`: a folder `train` below says more.
    is_weak: bool,
}

/// Words of folder names that say nothing by themselves.
const FILLERS: [&str; 7] = [
    "set", "data", "dataset", "split", "cases", "subset", "folder",
];

/// What a folder's name says: `imagesTr`, `landmarks`, `val`, `test_images`, `01_train_set`.
pub(in crate::imaging::dataset::source) fn marker(folder: &str) -> Option<Marker> {
    let lower = folder.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let (mut role, mut split, mut is_short) = (None, None, false);
    for (place, word) in words.iter().enumerate() {
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        if place == 0 && is_number {
            continue;
        }
        let (of_word, in_word) = word_says(word)?;
        is_short |= SHORT.iter().any(|(short, _)| short == word);
        if split.is_some_and(|split| in_word.is_some_and(|other| other != split)) {
            return None;
        }
        role = role.or(of_word);
        split = split.or(in_word);
    }
    let says_something = role.is_some() || (split.is_some() && !is_short);
    says_something.then_some(Marker {
        role,
        split,
        is_weak: words.iter().any(|word| FILLERS.contains(word)),
    })
}

/// Splits beside `images` and `landmarks`, as nnU-Net writes them.
const SHORT: [(&str, Split); 2] = [("tr", Split::Train), ("ts", Split::Test)];

/// The role and split of one word; `None` for a word that means something else.
fn word_says(word: &str) -> Option<(Option<Role>, Option<Split>)> {
    let split_of = |word: &str| {
        let short = SHORT.into_iter().find(|(short, _)| *short == word);
        let word = word.strip_suffix("set").unwrap_or(word);
        short.map(|(_, split)| split).or_else(|| Split::of(word))
    };
    if FILLERS.contains(&word) {
        return Some((None, None));
    }
    if let Some(split) = split_of(word) {
        return Some((None, Some(split)));
    }
    ROLES.into_iter().find_map(|(name, role)| {
        if name == word {
            return Some((Some(role), None));
        }
        let mut rests = [word.strip_prefix(name), word.strip_suffix(name)].into_iter();
        let split = rests.find_map(|rest| split_of(rest?))?;
        Some((Some(role), Some(split)))
    })
}

/// Whether the last word of a scan's name says how it was acquired: `T1w`, `0000`.
pub(in crate::imaging::dataset::source) fn modality_or_channel(word: &str) -> bool {
    word == "0000" || MODALITIES.contains(&word.to_lowercase().as_str())
}

/// A text in one Unicode form: some systems store `é` as two characters.
pub(in crate::imaging::dataset::source) fn normal(text: &str) -> String {
    text.nfc().collect()
}

/// What a file is, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scan,
    /// The voxels of a `.hdr`/`.img` pair, which its header represents.
    Voxels,
    /// Landmarks for certain.
    Landmarks,
    /// Landmarks or any other table, text or JSON.
    Perhaps,
    /// JSON, which beside a scan usually describes it.
    Sidecar,
    /// A scan in a format that is not read.
    OtherScan,
}

/// A file of a folder tree, with what its path says.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) role: Option<Role>,
    /// The folder whose name gives the role.
    pub(super) role_root: PathBuf,
    /// The splits that its folders name, without repetition.
    pub(super) splits: Vec<Split>,
    /// Its folders without those that only sort files: `images`, `train`,
    /// `rawdata`, `derivatives/X`.
    pub(super) folder: Vec<String>,
    pub(super) derived: bool,
    /// Its name without ending.
    pub(super) stem: String,
}

impl Named {
    /// What the path below `root` says; `None` for files of no interest.
    pub(super) fn of(path: &Path, root: &Path, role: Option<Role>) -> Option<Self> {
        let inside = path.strip_prefix(root).unwrap_or(path);
        let name = normal(&inside.file_name()?.to_string_lossy());
        let (stem, kind) = kind(&name)?;
        let mut named = Self {
            path: path.to_owned(),
            kind,
            role,
            role_root: root.to_owned(),
            splits: Vec::new(),
            folder: Vec::new(),
            derived: false,
            stem: stem.to_owned(),
        };
        let folders = inside.parent().into_iter().flat_map(Path::components);
        let mut at = root.to_owned();
        let (mut after_derivatives, mut splits) = (false, Vec::new());
        for part in folders {
            at.push(part);
            let part = normal(&part.as_os_str().to_string_lossy());
            let skipped = after_derivatives && !part.to_lowercase().starts_with("sub-");
            after_derivatives = part.eq_ignore_ascii_case("derivatives");
            named.derived |= after_derivatives;
            match marker(&part) {
                Some(marker) => {
                    if let Some(split) = marker.split {
                        splits.push((split, marker.is_weak));
                    }
                    if let (None, Some(role)) = (named.role, marker.role) {
                        named.role = Some(role);
                        at.clone_into(&mut named.role_root);
                    }
                }
                None if skipped || after_derivatives || part == "rawdata" => {}
                None => named.folder.push(part),
            }
        }
        for (at, (split, is_weak)) in splits.iter().enumerate() {
            let yields = *is_weak && splits[at + 1..].iter().any(|(_, is_weak)| !is_weak);
            if !yields && !named.splits.contains(split) {
                named.splits.push(*split);
            }
        }
        Some(named)
    }

    /// The split of its folders, if they name one.
    pub(super) fn split(&self) -> Option<Split> {
        match self.splits.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.path.parent() == other.path.parent()
    }

    /// Its folders above those of a BIDS subject.
    fn study(&self) -> &[String] {
        let subject = self.folder.iter().position(|part| part.starts_with("sub-"));
        &self.folder[..subject.unwrap_or(self.folder.len())]
    }

    /// What its folders and its name say of the BIDS subject and session: more than two
    /// words where they contradict each other.
    fn subject_and_session(&self) -> BTreeSet<&str> {
        let folders = self.folder.iter().map(String::as_str);
        let words = folders.chain(self.stem.split('_'));
        words
            .filter(|word| word.starts_with("sub-") || word.starts_with("ses-"))
            .collect()
    }

    /// Whether both have one name in one folder.
    pub(super) fn is_twin(&self, other: &Self) -> bool {
        self.stem == other.stem && self.is_beside(other)
    }

    pub(super) fn is_landmarks(&self) -> bool {
        matches!(self.kind, Kind::Landmarks | Kind::Perhaps | Kind::Sidecar)
    }

    /// Shorter names of the case: `CASE` of `CASE_0000` and `CASE_T1w`.
    pub(super) fn case(&self) -> Option<&str> {
        let (case, last) = self.stem.rsplit_once('_')?;
        modality_or_channel(last).then_some(case)
    }

    /// `CASE` and the channel of `CASE_0001`.
    pub(super) fn channel(&self) -> Option<(&str, &str)> {
        let (case, last) = self.stem.rsplit_once('_')?;
        let is_channel = last.len() == 4 && last.bytes().all(|b| b.is_ascii_digit());
        is_channel.then_some((case, last))
    }
}

fn kind(name: &str) -> Option<(&str, Kind)> {
    if let Some(stem) = bare_name(name) {
        let end = name.get(stem.len()..)?.to_ascii_lowercase();
        let voxels = end.starts_with(".img");
        return Some((stem, if voxels { Kind::Voxels } else { Kind::Scan }));
    }
    let cut = |ending: &str| {
        let at = name.len().checked_sub(ending.len())?;
        let (stem, end) = (name.get(..at)?, name.get(at..)?);
        end.eq_ignore_ascii_case(ending).then_some(stem)
    };
    let landmarks = LANDMARK_ENDINGS.into_iter().find_map(|ending| {
        let kind = match ending {
            SIDECAR => Kind::Sidecar,
            sure if SURE.contains(&sure) => Kind::Landmarks,
            _ => Kind::Perhaps,
        };
        Some((cut(ending)?, kind))
    });
    let mut others = OTHER_SCANS.into_iter();
    landmarks.or_else(|| others.find_map(|ending| Some((cut(ending)?, Kind::OtherScan))))
}

/// The parts of a BIDS name: `sub-01_ses-2_T1w` has two, and the suffix `T1w`.
struct Bids<'a> {
    parts: Vec<(&'a str, &'a str)>,
    suffix: Option<String>,
}

impl<'a> Bids<'a> {
    fn of(stem: &'a str) -> Option<Self> {
        let mut words: Vec<&str> = stem.split('_').collect();
        let suffix = words.pop_if(|last| !last.contains('-'));
        let parts: Option<Vec<_>> = words.iter().map(|word| word.split_once('-')).collect();
        let parts = parts.filter(|parts| parts.first().is_some_and(|(key, _)| *key == "sub"))?;
        Some(Self {
            parts,
            suffix: suffix.map(str::to_lowercase),
        })
    }
}

/// The subject of a BIDS name: `01` of `sub-01_T1w`.
pub(super) fn bids_subject(stem: &str) -> Option<&str> {
    Some(Bids::of(stem)?.parts.first()?.1)
}

/// Whether a landmark file belongs to a scan by their BIDS names, which differ:
/// `sub-01_desc-groundtruth_afids` and `sub-01_T1w`. Both must be of one study, subject
/// and session, and in one folder, unless landmark files have folders of their own.
pub(super) fn related(landmarks: &Named, scan: &Named) -> bool {
    let own_folder = landmarks.derived || landmarks.role == Some(Role::Landmarks);
    let may_lie_there = landmarks.is_beside(scan)
        || (!scan.derived && (own_folder || landmarks.folder == scan.folder));
    may_lie_there
        && landmarks.study() == scan.study()
        && landmarks.subject_and_session() == scan.subject_and_session()
        && names_related(&landmarks.stem, &scan.stem)
}

fn names_related(landmarks: &str, scan: &str) -> bool {
    let (Some(points), Some(scan)) = (Bids::of(landmarks), Bids::of(scan)) else {
        return false;
    };
    let shared = points.parts.iter().filter(|p| !OWN_PARTS.contains(&p.0));
    let all_shared = shared.into_iter().all(|part| scan.parts.contains(part));
    let suffix_fits = points.suffix.as_ref().is_none_or(|suffix| {
        LANDMARK_SUFFIXES.contains(&suffix.as_str()) || points.suffix == scan.suffix
    });
    let is_map = scan.suffix.is_some_and(|s| MAPS.contains(&s.as_str()));
    all_shared && suffix_fits && !is_map
}

/// Whether two names differ only in ways that people overlook: capital letters,
/// signs, leading zeros, a word at one end, a typing error.
pub(super) fn near(a: &Plain, b: &Plain) -> bool {
    let same_digits = a.digits == b.digits;
    let (a, b) = (&a.text, &b.text);
    if a.is_empty() || b.is_empty() {
        return false;
    }
    let one_begins = a.starts_with(b) || b.starts_with(a);
    let typed = || {
        let short = a.chars().count().min(b.chars().count());
        short > 3 && crate::config::edit_distance(a, b) <= 2
    };
    a == b || (same_digits && (one_begins || typed()))
}

/// A name in the form in which [`near`] compares it.
#[derive(Debug)]
pub(super) struct Plain {
    text: String,
    /// The runs of digits.
    digits: Vec<String>,
}

impl Plain {
    pub(super) fn of(name: &str) -> Self {
        let text = plain(name);
        let runs = text.split(|c: char| !c.is_ascii_digit());
        let runs = runs.filter(|run| !run.is_empty()).map(str::to_owned);
        Self {
            digits: runs.collect(),
            text,
        }
    }
}

/// Small letters and digits, without leading zeros; `.` between runs of digits.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    let mut in_number = false;
    for word in name.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
        for c in word.chars() {
            if c == '0' && !in_number {
                continue;
            }
            in_number = c.is_ascii_digit();
            plain.push(c);
        }
        if in_number {
            plain.push('.');
        }
        in_number = false;
    }
    plain.trim_end_matches('.').to_owned()
}
