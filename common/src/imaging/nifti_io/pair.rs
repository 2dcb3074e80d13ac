//! The files of a scan: a single one, or a `.hdr` and its `.img`.

use std::path::{Path, PathBuf};

use super::header::{self, Place};
use super::{ReadError, stream};

/// The file, or header and voxel file, of a scan.
///
/// Either name of a pair is accepted. Only names that end in `.hdr`, `.img`,
/// `.hdr.gz` or `.img.gz` (in any case) can be a pair, and for these the content
/// decides: a single-file NIfTI may be called `.img`.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let Some((stem, given)) = split(path) else {
        return Ok(vec![path.to_owned()]);
    };
    let (other, what) = match (given.part, place(path)?) {
        // Single files, and files other than NIfTI, which the reader reports.
        (_, Some(Place::Same)) | (Part::Header, None) => return Ok(vec![path.to_owned()]),
        (Part::Header, Some(Place::Beside)) => (Part::Voxels, "voxel file"),
        (Part::Voxels, _) => (Part::Header, "header"),
    };
    let candidates = candidates(&stem, other, given.gzip);
    let found = candidates.iter().find(|candidate| candidate.is_file());
    let Some(found) = found else {
        return Err(ReadError::NoPartner {
            path: path.to_owned(),
            what,
            tried: names(&candidates),
        });
    };
    Ok(match given.part {
        Part::Header => vec![path.to_owned(), found.clone()],
        Part::Voxels => vec![found.clone(), path.to_owned()],
    })
}

/// A scan file's name without the ending of its format, in any case; `None` for
/// other names.
#[must_use]
pub fn bare_name(name: &str) -> Option<&str> {
    const ENDS: [&str; 6] = [".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img"];
    ENDS.into_iter().find_map(|end| {
        let at = name.len().checked_sub(end.len())?;
        let (bare, found) = (name.get(..at)?, name.get(at..)?);
        found.eq_ignore_ascii_case(end).then_some(bare)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Voxels,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    part: Part,
    gzip: bool,
}

/// A path without its ending, and the meaning of the ending; `None` for other endings.
fn split(path: &Path) -> Option<(PathBuf, Given)> {
    let name = path.file_name()?.to_str()?;
    let bare = bare_name(name)?;
    let end = name.get(bare.len()..)?.to_ascii_lowercase();
    let part = match end.get(..4)? {
        ".hdr" => Part::Header,
        ".img" => Part::Voxels,
        _ => return None,
    };
    let gzip = end.ends_with(".gz");
    Some((path.with_file_name(bare), Given { part, gzip }))
}

/// Possible names of the other file, the likeliest first.
fn candidates(stem: &Path, part: Part, gzip: bool) -> Vec<PathBuf> {
    let plain = match part {
        Part::Header => [".hdr", ".HDR"],
        Part::Voxels => [".img", ".IMG"],
    };
    let zipped = plain.map(|end| [format!("{end}.gz"), format!("{end}.GZ")]);
    let zipped = zipped.into_iter().flatten();
    let plain = plain.into_iter().map(str::to_owned);
    let ends: Vec<String> = if gzip {
        zipped.chain(plain).collect()
    } else {
        plain.chain(zipped).collect()
    };
    let with = |end: &String| {
        let mut name = stem.file_name().unwrap_or_default().to_owned();
        name.push(end);
        stem.with_file_name(name)
    };
    ends.iter().map(with).collect()
}

fn names(paths: &[PathBuf]) -> String {
    let lower = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let lower = lower.filter(|name| {
        let end = &name[bare_name(name).map_or(0, str::len)..];
        !end.bytes().any(|b| b.is_ascii_uppercase())
    });
    lower.collect::<Vec<_>>().join(" or ")
}

/// The voxel location in a file's NIfTI header; `None` for other files.
fn place(path: &Path) -> Result<Option<Place>, ReadError> {
    let start = stream::Stream::open(path)?.start();
    // Reading the voxels reports whatever is wrong with the file.
    let start = start.unwrap_or_default();
    let place = header::identify(&start, path).map(|(_, _, place)| place);
    Ok(place.ok())
}
