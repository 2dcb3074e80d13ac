//! Why files of a tree are not used.

use std::collections::HashSet;
use std::path::Path;

use super::super::{Entry, Unused};
use super::Found;
use super::matching::{Loose, Matcher, Owned};
use super::names::{Kind, LANDMARK_ENDINGS, Named, Plain, Role, near};

/// Most pairs of names that are compared for typing errors.
const COMPARED: usize = 1 << 20;

const ONLY_NIFTI: &str = "only NIfTI is read (.nii, .nii.gz, or .hdr with .img): convert it, for \
                          example with SimpleITK, or dcm2niix for DICOM";

/// Adds a reason for each file that is not used.
pub(super) fn explain(matcher: &Matcher, owned: &[Owned], loose: &[Loose], found: &mut Found) {
    let used = owned.iter().flat_map(|owned| owned.files(matcher));
    let used = used.filter(|file| file.role == Some(Role::Landmarks));
    let used: Vec<&Named> = used.collect();
    let roots: HashSet<&Path> = used.iter().map(|file| &*file.role_root).collect();
    let explainer = Explainer {
        matcher,
        owned,
        used,
    };
    let numbered = matcher.scans.iter().enumerate();
    let bare = numbered.filter(|(number, _)| owned[*number].is_empty());
    let bare: Vec<Bare<'_>> = bare.map(|(number, scan)| Bare::of(number, scan)).collect();
    let mut mistaken: Vec<(&Named, Plain)> = Vec::new();
    for file in loose {
        let landmarks = &matcher.landmarks[file.number];
        let plain = Plain::of(&landmarks.stem);
        let few = bare.len() * loose.len() <= COMPARED;
        let mut close = bare.iter();
        let close = close.find(|b| file.owners == [b.number] || (few && near(&b.plain, &plain)));
        let Some(reason) = explainer.reason(file, close.map(|bare| bare.scan)) else {
            continue;
        };
        mistaken.push((landmarks, plain));
        let path = landmarks.path.clone();
        if landmarks.role == Some(Role::Landmarks) && roots.contains(&*landmarks.role_root) {
            found.stray.push((landmarks.split(), path, reason));
        } else {
            found.unused.push(Unused::new(path, reason, true));
        }
    }
    for bare in &bare {
        explainer.explain_scan(bare, &mistaken, found);
    }
    explain_others(matcher, found);
}

/// A scan without landmark files.
struct Bare<'a> {
    number: usize,
    scan: &'a Named,
    plain: Plain,
}

impl<'a> Bare<'a> {
    fn of(number: usize, scan: &'a Named) -> Self {
        Self {
            number,
            scan,
            plain: Plain::of(&scan.stem),
        }
    }
}

struct Explainer<'a> {
    matcher: &'a Matcher,
    owned: &'a [Owned],
    /// The files that are used of folders of landmark files.
    used: Vec<&'a Named>,
}

impl Explainer<'_> {
    /// What is wrong with a loose landmark file; `None` for a file of another kind.
    fn reason(&self, file: &Loose, close: Option<&Named>) -> Option<String> {
        let landmarks = &self.matcher.landmarks[file.number];
        if landmarks.kind != Kind::Landmarks {
            let content = self.matcher.content(file.number);
            if content.points == Some(0) {
                return None;
            }
            if !content.is_landmarks() {
                let is_other =
                    landmarks.kind == Kind::Sidecar || landmarks.derived || is_note(landmarks);
                close.filter(|_| !is_other)?;
                let problem = &content.problem;
                return Some(format!(
                    "is not used, and cannot be read as landmarks: {problem}"
                ));
            }
        }
        if !file.owners.is_empty() {
            let owners = file.owners.iter();
            let owners = owners.map(|&n| shown(&self.matcher.scans[n].path));
            let owners: Vec<String> = owners.collect();
            let owners = owners.join(" or ");
            return Some(format!(
                "may belong to {owners}; name its scan in a manifest"
            ));
        }
        let mut reason = "belongs to no scan: none has its name".to_owned();
        let mut others = self.matcher.others.iter();
        if let Some(other) = others.find(|other| other.stem == landmarks.stem) {
            reason += &format!("; {} has it, but {ONLY_NIFTI}", shown(&other.path));
        } else if let Some(scan) = close {
            reason += &format!(
                "; {} has nearly the same name: rename one of them, or write a manifest",
                shown(&scan.path)
            );
        }
        Some(reason)
    }

    fn explain_scan(&self, bare: &Bare<'_>, mistaken: &[(&Named, Plain)], found: &mut Found) {
        let scan = bare.scan;
        let unused = |reason: String, mistake| Unused::new(scan.path.clone(), reason, mistake);
        let first_channel_is_used = scan.channel().filter(|(case, _)| {
            // A landmark file called CASE_0000 means that the digits number the cases.
            let first = format!("{case}_0000");
            let mut scans = self.matcher.scans.iter().zip(self.owned);
            scans.any(|(other, owned)| {
                other.stem == first && other.is_beside(scan) && owned.by_case(self.matcher)
            })
        });
        if let Some((case, channel)) = first_channel_is_used {
            let reason = format!(
                "is channel {channel} of case '{case}', of which only the first, 0000, is used"
            );
            found.unused.push(unused(reason, false));
        } else if scan.role == Some(Role::Landmarks) {
            let reason = "is not used: it lies among landmark files, as a label map does";
            found.unused.push(unused(reason.to_owned(), false));
        } else if let Some(expected) = self.expected(scan) {
            found.entries.push(Entry {
                expected,
                ..Entry::found(scan.path.clone(), Vec::new(), scan.split())
            });
        } else {
            let few = mistaken.len() <= COMPARED / self.matcher.scans.len();
            let close = mistaken
                .iter()
                .find(|(_, plain)| few && near(&bare.plain, plain));
            let reason = close.map_or_else(
                || "has no landmark file".to_owned(),
                |(file, _)| {
                    let file = shown(&file.path);
                    format!("has no landmark file; {file} has nearly the same name")
                },
            );
            found.unused.push(unused(reason, close.is_some()));
        }
    }

    /// Advice for a scan in a folder of images that stands beside one of landmark files.
    fn expected(&self, scan: &Named) -> Option<String> {
        if scan.role != Some(Role::Images) {
            return None;
        }
        let fits = |file: &&&Named| {
            let splits = file.split().zip(scan.split());
            splits.is_none_or(|(a, b)| a == b)
        };
        let beside = |file: &&&Named| file.role_root.parent() == scan.role_root.parent();
        let fitting = || self.used.iter().filter(fits);
        let folder = fitting().find(beside).or_else(|| fitting().next());
        let folder = &folder?.role_root;
        let inside = scan.path.strip_prefix(&scan.role_root).ok()?;
        let stem = match scan.channel() {
            Some((case, "0000")) => case,
            _ => &scan.stem,
        };
        Some(format!(
            "scan {} has no landmark file; expected {} and one of {}",
            shown(&scan.path),
            folder.join(inside.with_file_name(stem)).display(),
            LANDMARK_ENDINGS.join(", ")
        ))
    }
}

/// Whether a file is a note about the data: `README.txt`.
fn is_note(file: &Named) -> bool {
    let stem = file.stem.to_lowercase();
    let notes = ["readme", "license", "licence", "changes"];
    notes.iter().any(|word| stem.starts_with(word))
}

/// Scans in other formats, and voxel files without a header.
fn explain_others(matcher: &Matcher, found: &mut Found) {
    for file in &matcher.others {
        if file.kind == Kind::OtherScan {
            let reason = format!("is not used: {ONLY_NIFTI}");
            found
                .unused
                .push(Unused::new(file.path.clone(), reason, false));
        } else if !matcher.scans.iter().any(|scan| scan.is_twin(file)) {
            let reason = "is not used: there is no header (.hdr) of its name";
            found
                .unused
                .push(Unused::new(file.path.clone(), reason, true));
        }
    }
}

fn shown(path: &Path) -> String {
    format!("'{}'", path.display())
}
