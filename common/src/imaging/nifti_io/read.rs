//! Reads a file or a pair of files into an [`Image`].

use std::io::{self, BufRead};
use std::path::Path;

use super::decode::Decoder;
use super::fields::{Fields, NIFTI1_LEN, Version};
use super::header::{self, Layout, Place};
use super::pair::files_of;
use super::placement::{Placed, place};
use super::stream::{CHUNK, Source, Stream};
use super::{Image, Limits, ReadError, Samples, foreign};
use crate::imaging::scan::ScanWarning;

/// Reads a NIfTI-1 or NIfTI-2 scan: one file, or a `.hdr`/`.img` pair by either
/// name (see [`files_of`]), each compressed with gzip or not. The content, not
/// the name, determines version, byte order and compression.
///
/// Voxels keep the file's order, scaled by its slope and intercept; those that are not finite
/// are 0. The affine is the one of ITK, and so of 3D Slicer; for most files it is the sform,
/// else the qform. [`Image::warnings`] says what is suspicious.
pub fn read(path: &Path, limits: &Limits) -> Result<Image, ReadError> {
    match files_of(path)?.as_slice() {
        [header, voxels] => pair(Stream::open(header)?, Stream::open(voxels)?, limits),
        _ => single(Stream::open(path)?, limits),
    }
}

/// Reads a scan from a source that holds a single file.
pub fn read_from<R: BufRead>(source: Source<'_, R>, limits: &Limits) -> Result<Image, ReadError> {
    single(Stream::new(source)?, limits)
}

/// Reads a scan from the sources of a header and of its voxels.
pub fn read_pair_from<H: BufRead, V: BufRead>(
    header: Source<'_, H>,
    voxels: Source<'_, V>,
    limits: &Limits,
) -> Result<Image, ReadError> {
    pair(Stream::new(header)?, Stream::new(voxels)?, limits)
}

fn single(mut stream: Stream<'_>, limits: &Limits) -> Result<Image, ReadError> {
    let (fields, layout) = header(&mut stream, Place::Same, limits)?;
    let placed = place(&fields, layout.dims, stream.path)?;
    voxels(&mut stream, &layout, placed, limits)
}

fn pair(mut start: Stream<'_>, mut rest: Stream<'_>, limits: &Limits) -> Result<Image, ReadError> {
    let (fields, mut layout) = header(&mut start, Place::Beside, limits)?;
    layout.warnings.extend(start.check_tail()?);
    let placed = place(&fields, layout.dims, start.path)?;
    voxels(&mut rest, &layout, placed, limits)
}

/// The header of a stream, whose voxels must be at `expected`.
fn header(
    stream: &mut Stream<'_>,
    expected: Place,
    limits: &Limits,
) -> Result<(Fields, Layout), ReadError> {
    let (bytes, path) = (stream.start()?, stream.path);
    if bytes.len() < NIFTI1_LEN {
        let short = || stream.too_short("a NIfTI-1 header", NIFTI1_LEN as u64);
        return Err(foreign::foreign(&bytes, path).unwrap_or_else(short));
    }
    let (version, big_endian, place) = header::identify(&bytes, path)?;
    let Some(fields) = Fields::of(&bytes, version, big_endian) else {
        let needed = version.header_len() as u64;
        return Err(stream.too_short(&format!("a {version} header"), needed));
    };
    if place != expected {
        return Err(misplaced(path, version, place));
    }
    let layout = header::layout(&fields, place, path, limits)?;
    Ok((fields, layout))
}

fn misplaced(path: &Path, version: Version, place: Place) -> ReadError {
    let (found, advice) = match place {
        Place::Beside => (
            "the header of a pair",
            "name it .hdr and put its .img beside it, or write both as one .nii.gz",
        ),
        Place::Same => (
            "a header whose voxels follow in the same file",
            "give the file its own name (.nii), or write it again as one .nii.gz",
        ),
    };
    ReadError::WrongMagic {
        path: path.to_owned(),
        found: format!("{found} ({version})"),
        advice,
    }
}

fn voxels(
    stream: &mut Stream<'_>,
    layout: &Layout,
    placed: Placed,
    limits: &Limits,
) -> Result<Image, ReadError> {
    let (claim, needed) = (layout.claim(), layout.offset + layout.bytes());
    stream.check_length(&claim, needed, limits)?;
    stream.skip_to(layout.offset, &claim, needed)?;
    let (samples, not_finite) = samples(stream, layout, &claim, needed)?;
    let mut warnings = placed.warnings;
    warnings.extend(layout.warnings.iter().cloned());
    if not_finite > 0 {
        warnings.push(ScanWarning::NotFinite { count: not_finite });
    }
    for warning in stream.check_tail()? {
        // Both files of a pair may have the same.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let image = Image::new(layout.dims, samples, placed.affine).map_err(|error| ReadError::Io {
        path: stream.path.to_owned(),
        at: needed,
        error: io::Error::other(error),
    })?;
    Ok(Image { warnings, ..image })
}

/// The voxels, and how many were not finite.
fn samples(
    stream: &mut Stream<'_>,
    layout: &Layout,
    claim: &str,
    needed: u64,
) -> Result<(Samples, u64), ReadError> {
    let mut decoder = Decoder::new(layout).map_err(|bytes| ReadError::OutOfMemory {
        path: stream.path.to_owned(),
        bytes,
    })?;
    let mut left = layout.voxels() * layout.datatype.bytes();
    let mut buffer = vec![0; CHUNK.min(left)];
    while left > 0 {
        let part = CHUNK.min(left);
        if stream.fill(&mut buffer[..part])? < part {
            return Err(stream.too_short(claim, needed));
        }
        decoder.push(&buffer[..part]);
        left -= part;
    }
    let (samples, not_finite) = decoder.finish();
    if not_finite == samples.len() as u64 {
        return Err(ReadError::NotFinite {
            path: stream.path.to_owned(),
            voxels: not_finite,
        });
    }
    Ok((samples, not_finite))
}
