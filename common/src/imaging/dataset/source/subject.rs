//! The subject of a scan, where names show it.

use std::fmt;
use std::path::{Component, Path};

use super::tree::{marker, modality_or_channel, normal};
use crate::imaging::nifti_io::bare_name;

/// A person or animal that was scanned. Subjects of different data sets differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    name: String,
    /// The folders above, without those that name a split or a session.
    within: Vec<String>,
}

/// Shows the name.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Words that begin the folder of a subject, before its number.
const PEOPLE: [&str; 7] = [
    "sub",
    "subject",
    "subj",
    "patient",
    "pat",
    "participant",
    "case",
];
/// Words before the number or name of a repetition: `ses-2`, `run_01`, `acq-highres`.
const REPETITIONS: [&str; 16] = [
    "ses", "session", "visit", "run", "acq", "task", "rec", "dir", "echo", "desc", "space", "tp",
    "time", "day", "week", "fu",
];
/// Words that say what was scanned, not who.
const GENERIC: [&str; 12] = [
    "volume", "vol", "head", "brain", "skull", "data", "study", "series", "exam", "export", "file",
    "nifti",
];
/// Words that tell two scans of one subject apart.
const TIMES: [&str; 9] = [
    "baseline", "bl", "followup", "fu", "pre", "post", "preop", "postop", "retest",
];
/// Signs between the words of a name.
pub(super) const JOINTS: [char; 4] = ['_', '-', ' ', '.'];

impl Subject {
    /// The subject of each scan of one source, where its name shows it: `sub-01` in a folder
    /// or in the name, a folder such as `patient7`, or what comes before words such as
    /// `_ses-1`, `_T1w` and `_run2`. Folders that all scans share say nothing.
    #[must_use]
    pub fn of_all(images: &[&Path]) -> Vec<Option<Self>> {
        let mut parents = images
            .iter()
            .map(|image| image.parent().unwrap_or(Path::new("")));
        let mut shared = parents.next().unwrap_or(Path::new("")).to_owned();
        for parent in parents {
            while !parent.starts_with(&shared) && shared.pop() {}
        }
        let inside = images
            .iter()
            .map(|image| image.strip_prefix(&shared).unwrap_or(image));
        inside.map(Self::of).collect()
    }

    fn of(image: &Path) -> Option<Self> {
        let parts = image.components().filter_map(|part| match part {
            Component::Normal(part) => Some(normal(&part.to_string_lossy())),
            _ => None,
        });
        let mut folders: Vec<String> = parts.collect();
        let file = folders.pop()?;
        let stem = bare_name(&file).unwrap_or(&file);
        let within = |folders: &[String]| -> Vec<String> {
            let others = folders.iter().filter(|folder| !sorts(folder));
            others.cloned().collect()
        };
        if let Some(at) = folders.iter().position(|folder| is_person(folder)) {
            return Some(Self {
                name: folders[at].to_lowercase(),
                within: within(&folders[..at]),
            });
        }
        let bids = stem.split('_').find(|word| word.starts_with("sub-"));
        let mut above = within(&folders);
        if let Some(name) = bids.or_else(|| before_repetition(stem)) {
            return Some(Self {
                name: name.to_lowercase(),
                within: above,
            });
        }
        // `p07/T1.nii`: the folder names the subject.
        let name = above.pop().filter(|_| modality_or_channel(stem))?;
        Some(Self {
            name: name.to_lowercase(),
            within: above,
        })
    }
}

/// Whether a folder only sorts scans: by purpose, split, session or kind.
fn sorts(folder: &str) -> bool {
    let lower = folder.to_lowercase();
    let is_kind = ["anat", "derivatives", "rawdata"].contains(&lower.as_str());
    let mut words = lower.splitn(2, JOINTS);
    let repeats = words.next().is_some_and(|word| REPETITIONS.contains(&word));
    is_kind
        || repeats
        || repetition(&lower)
        || modality_or_channel(&lower)
        || marker(folder).is_some()
}

/// `sub-01`, `Patient_7`, `case12`.
fn is_person(folder: &str) -> bool {
    let lower = folder.to_lowercase();
    let number = PEOPLE.into_iter().filter_map(|word| {
        let rest = lower.strip_prefix(word)?;
        let own = rest.strip_prefix(JOINTS);
        own.or_else(|| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                .then_some(rest)
        })
    });
    let mut number = number.filter(|id| !id.is_empty());
    let is_id = |id: &str| {
        id.chars().all(char::is_alphanumeric) && id.contains(|c: char| c.is_ascii_digit())
    };
    lower.starts_with("sub-") || number.any(is_id)
}

/// What comes before the words at the end that tell scans of a subject apart.
fn before_repetition(stem: &str) -> Option<&str> {
    let mut rest = stem;
    while let Some((head, last)) = rest.rsplit_once(JOINTS) {
        if repetition(last) || modality_or_channel(last) {
            rest = head;
            continue;
        }
        let numbered = head.rsplit_once(JOINTS);
        let numbered =
            numbered.filter(|(_, word)| REPETITIONS.contains(&word.to_lowercase().as_str()));
        let Some((head, _)) = numbered else { break };
        rest = head;
    }
    let lower = rest.to_lowercase();
    let is_general = PEOPLE.contains(&lower.as_str())
        || GENERIC.contains(&lower.as_str())
        || modality_or_channel(rest);
    (rest != stem && !rest.is_empty() && !is_general).then_some(rest)
}

/// `ses1`, `run02`, `baseline`, `20240131`.
fn repetition(word: &str) -> bool {
    let word = word.to_lowercase();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_date = is_number(&word) && is_date(&word);
    let mut numbered = REPETITIONS.iter().filter_map(|w| word.strip_prefix(w));
    is_date || TIMES.contains(&word.as_str()) || numbered.any(is_number)
}

/// Whether eight digits are a year, a month and a day.
fn is_date(digits: &str) -> bool {
    let part = |range: std::ops::Range<usize>| -> Option<u32> {
        digits.get(range).and_then(|part| part.parse().ok())
    };
    let parts = [part(0..4), part(4..6), part(6..8)];
    let [Some(year), Some(month), Some(day)] = parts else {
        return false;
    };
    let is_year = (1900..2100).contains(&year);
    digits.len() == 8 && is_year && (1..=12).contains(&month) && (1..=31).contains(&day)
}

/// Whether a word only tells scans of one subject apart, or begins such a pair of words.
pub(super) fn repeats(word: &str) -> bool {
    REPETITIONS.contains(&word.to_lowercase().as_str()) || repetition(word)
}
