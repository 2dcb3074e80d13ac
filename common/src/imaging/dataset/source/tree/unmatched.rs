//! Why files of a tree are not used.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::{Entry, Unused};
use super::Found;
use super::matching::{Loose, Matcher, Owned};
use super::names::{Kind, LANDMARK_ENDINGS, Named, Role, near};
use crate::imaging::landmark_file::LandmarkFile;

/// Files of one format in one folder that are named one by one.
const LISTED: usize = 3;
/// Most pairs of names that are compared for typing errors.
const COMPARED: usize = 1 << 20;

const ONLY_NIFTI: &str = "only NIfTI is read (.nii, .nii.gz, or .hdr with .img): convert it, for \
                          example with SimpleITK, or dcm2niix for DICOM";

/// Adds a reason for each file that is not used.
pub(super) fn explain(matcher: &Matcher, owned: &[Owned], loose: &[Loose], found: &mut Found) {
    let numbered = matcher.scans.iter().enumerate();
    let bare = numbered.filter(|(number, _)| owned[*number].is_empty());
    let bare: Vec<&Named> = bare.map(|(_, scan)| scan).collect();
    let mut mistaken: Vec<&Named> = Vec::new();
    for file in loose {
        let landmarks = &matcher.landmarks[file.number];
        let few = bare.len() * loose.len() <= COMPARED;
        let close = bare
            .iter()
            .copied()
            .find(|scan| few && near(&scan.stem, &landmarks.stem));
        let Some(reason) = reason(matcher, file, close) else {
            continue;
        };
        mistaken.push(landmarks);
        let path = landmarks.path.clone();
        if landmarks.role == Some(Role::Landmarks) {
            found.stray.push((landmarks.split(), path, reason));
        } else {
            found.unused.push(Unused {
                path,
                reason,
                mistake: true,
            });
        }
    }
    for scan in &bare {
        explain_scan(matcher, owned, scan, &mistaken, found);
    }
    explain_others(matcher, found);
}

/// What is wrong with a loose landmark file; `None` for a file of another kind.
fn reason(matcher: &Matcher, file: &Loose, close: Option<&Named>) -> Option<String> {
    let landmarks = &matcher.landmarks[file.number];
    let name = landmarks.path.file_name().unwrap_or_default();
    let is_note = ["readme", "license", "licence", "changes"]
        .iter()
        .any(|word| name.to_string_lossy().to_lowercase().starts_with(word));
    let certain = match landmarks.kind {
        Kind::Landmarks => true,
        Kind::Perhaps => landmarks.role == Some(Role::Landmarks) && !is_note,
        _ => false,
    };
    let read = (!certain).then(|| LandmarkFile::read(&landmarks.path));
    match read {
        Some(Err(error)) if landmarks.kind != Kind::Sidecar && close.is_some() && !is_note => {
            return Some(format!(
                "is not used, and cannot be read as landmarks: {error}"
            ));
        }
        Some(Err(_)) => return None,
        Some(Ok(file)) if file.points.is_empty() => return None,
        _ => {}
    }
    if !file.owners.is_empty() {
        let owners = file.owners.iter().map(|&n| shown(&matcher.scans[n].path));
        let owners: Vec<String> = owners.collect();
        let owners = owners.join(" or ");
        return Some(format!(
            "may belong to {owners}; name its scan in a manifest"
        ));
    }
    let mut reason = "belongs to no scan: none has its name".to_owned();
    let stem = |other: &&Named| other.stem == landmarks.stem;
    if let Some(other) = matcher.others.iter().find(stem) {
        reason += &format!("; {} has it, but {ONLY_NIFTI}", shown(&other.path));
    } else if let Some(scan) = close {
        reason += &format!(
            "; {} has nearly the same name: rename one of them, or write a manifest",
            shown(&scan.path)
        );
    }
    Some(reason)
}

fn explain_scan(
    matcher: &Matcher,
    owned: &[Owned],
    scan: &Named,
    mistaken: &[&Named],
    found: &mut Found,
) {
    let unused = |reason: String, mistake: bool| Unused {
        path: scan.path.clone(),
        reason,
        mistake,
    };
    let first_channel_is_used = scan.channel().filter(|(case, _)| {
        // A landmark file called CASE_0000 means that the digits number the cases.
        let first = format!("{case}_0000");
        let mut scans = matcher.scans.iter().zip(owned);
        scans.any(|(other, owned)| {
            other.stem == first && other.is_beside(scan) && owned.by_case(matcher)
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
    } else if let Some(expected) = expected(matcher, scan) {
        found.entries.push(Entry {
            expected,
            ..Entry::found(scan.path.clone(), Vec::new(), scan.split())
        });
    } else {
        let close = mistaken.iter().find(|file| {
            mistaken.len() <= COMPARED / matcher.scans.len() && near(&scan.stem, &file.stem)
        });
        let reason = close.map_or_else(
            || "has no landmark file".to_owned(),
            |file| {
                let file = shown(&file.path);
                format!("has no landmark file; {file} has nearly the same name")
            },
        );
        found.unused.push(unused(reason, close.is_some()));
    }
}

/// Advice for a scan in a folder of images that stands beside one of landmark files.
fn expected(matcher: &Matcher, scan: &Named) -> Option<String> {
    if scan.role != Some(Role::Images) {
        return None;
    }
    let fits = |file: &&Named| {
        let splits = file.split().zip(scan.split());
        file.role == Some(Role::Landmarks) && splits.is_none_or(|(a, b)| a == b)
    };
    let folders = || matcher.landmarks.iter().filter(fits);
    let mut beside = folders().filter(|file| file.role_root.parent() == scan.role_root.parent());
    let folder = &beside.next().or_else(|| folders().next())?.role_root;
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

/// Scans in other formats, and voxel files without a header.
fn explain_others(matcher: &Matcher, found: &mut Found) {
    let mut formats: BTreeMap<(&Path, &str), Vec<&Named>> = BTreeMap::new();
    for file in &matcher.others {
        if let Kind::OtherScan(ending) = file.kind {
            let folder = file.path.parent().unwrap_or(Path::new(""));
            formats.entry((folder, ending)).or_default().push(file);
            continue;
        }
        let mut scans = matcher.scans.iter();
        if !scans.any(|scan| scan.stem == file.stem && scan.is_beside(file)) {
            found.unused.push(Unused {
                path: file.path.clone(),
                reason: "is not used: there is no header (.hdr) of its name".to_owned(),
                mistake: true,
            });
        }
    }
    for ((folder, ending), files) in formats {
        if files.len() > LISTED {
            found.unused.push(Unused {
                path: folder.to_owned(),
                reason: format!("holds {} files {ending}; {ONLY_NIFTI}", files.len()),
                mistake: false,
            });
            continue;
        }
        found.unused.extend(files.into_iter().map(|file| Unused {
            path: file.path.clone(),
            reason: format!("is not used: {ONLY_NIFTI}"),
            mistake: false,
        }));
    }
}

fn shown(path: &Path) -> String {
    format!("'{}'", path.display())
}
