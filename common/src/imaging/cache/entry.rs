//! The name, the header and the trailer of a cached volume. Little-endian; the header has 384
//! bytes, so that the voxels after it are aligned to 64:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | format version |
//! | 12 | 4 | preprocessing version |
//! | 16 | 24 | dims |
//! | 40 | 24 | spacing, mm |
//! | 64 | 96 | affine, row by row |
//! | 160 | 24 | (file axis, flipped) per axis |
//! | 184 | 24 | the file's dims |
//! | 208 | 48 | (first, step) among the file's voxels per axis |
//! | 256 | 32 | SHA-256 of the scan file, or of its files' |
//! | 288 | 32 | hash of the volume |
//! | 320 | 8 | bytes of the trailer |
//! | 328 | 32 | SHA-256 of the bytes before and of the trailer |
//! | 360 | 24 | zeros |
//!
//! The trailer, after the voxels, holds the scan file's warnings as JSON.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::Preprocessed;
use crate::imaging::geometry::{Affine, AxisMap, Geometry, Pitch};
use crate::imaging::manifest::hex;
use crate::imaging::orientation::mapped_dims;
use crate::imaging::preprocess::PREPROCESS_VERSION;
use crate::imaging::scan::{ScanWarning, VolumeHash};

pub(super) const HEADER_LEN: usize = 384;
const MAGIC: [u8; 8] = *b"lmrl-vol";
const FORMAT_VERSION: u32 = 3;
const CHECKED: usize = 328;

/// The name holds everything that the voxels depend on, so that other versions' files coexist.
pub(super) fn file_name(source: &[u8; 32], resample_mm: Option<f64>) -> String {
    let spacing = resample_mm.map(|mm| format!("-{mm}mm")).unwrap_or_default();
    let (source, format, version) = (hex(source), FORMAT_VERSION, PREPROCESS_VERSION);
    format!("{source}-f{format}-v{version}-u8{spacing}.volume")
}

/// A cache file without its voxels.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) geometry: Geometry,
    pub(super) hash: VolumeHash,
    pub(super) warnings: Vec<ScanWarning>,
    /// Where the voxels lie in the file.
    pub(super) voxels: Range<usize>,
}

/// The bytes before and after the voxels of a cache file.
pub(super) fn encode(
    volume: &Preprocessed,
    source: &[u8; 32],
) -> Result<[Vec<u8>; 2], serde_json::Error> {
    let trailer = serde_json::to_vec(&volume.warnings)?;
    let geometry = &volume.geometry;
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(PREPROCESS_VERSION.to_le_bytes());
    let dims = |dims: [usize; 3]| dims.map(|d| (d as u64).to_le_bytes()).concat();
    bytes.extend(dims(geometry.dims));
    let affine = geometry.affine.rows.iter().flatten();
    for value in geometry.spacing_mm.iter().chain(affine) {
        bytes.extend(value.to_le_bytes());
    }
    for (axis, flipped) in geometry.axis_map.axes {
        let axis = u32::try_from(axis).unwrap_or(u32::MAX);
        bytes.extend(axis.to_le_bytes());
        bytes.extend(u32::from(flipped).to_le_bytes());
    }
    bytes.extend(dims(geometry.axis_map.file_dims));
    for Pitch { first, step } in geometry.axis_map.pitch {
        bytes.extend(first.to_le_bytes());
        bytes.extend(step.to_le_bytes());
    }
    bytes.extend(source);
    bytes.extend(volume.hash);
    bytes.extend((trailer.len() as u64).to_le_bytes());
    let checksum = checksum(&bytes, &trailer);
    bytes.extend(checksum);
    bytes.resize(HEADER_LEN, 0);
    Ok([bytes, trailer])
}

fn checksum(header: &[u8], trailer: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(header);
    hasher.update(trailer);
    hasher.finalize().into()
}

/// Takes `N` bytes from the front; the caller has checked the length.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, rest) = bytes.split_first_chunk().ok_or("it is too short")?;
    *bytes = rest;
    Ok(*first)
}

fn take_dims(bytes: &mut &[u8]) -> Result<[usize; 3], String> {
    let mut dims = [0; 3];
    for dim in &mut dims {
        *dim = usize::try_from(u64::from_le_bytes(take(bytes)?)).map_err(|e| e.to_string())?;
    }
    Ok(dims)
}

fn take_numbers<const N: usize>(bytes: &mut &[u8]) -> Result<[f64; N], String> {
    let mut numbers = [0.0; N];
    for number in &mut numbers {
        *number = f64::from_le_bytes(take(bytes)?);
    }
    Ok(numbers)
}

/// Checks and reads a cache file; fails with the reason when it is not the volume of `source`.
pub(super) fn decode(file: &[u8], source: &[u8; 32]) -> Result<Entry, String> {
    if file.len() < HEADER_LEN || file[..8] != MAGIC {
        return Err("it is no cached volume".to_owned());
    }
    let trailer = take(&mut &file[CHECKED - 8..])?;
    let trailer = usize::try_from(u64::from_le_bytes(trailer)).unwrap_or(usize::MAX);
    let end = file.len().checked_sub(trailer);
    let end = end.filter(|&end| end >= HEADER_LEN);
    let sum = |end: usize| checksum(&file[..CHECKED], &file[end..]);
    let Some(end) = end.filter(|&end| file[CHECKED..CHECKED + 32] == sum(end)) else {
        return Err("its header or trailer is damaged".to_owned());
    };
    let bytes = &mut &file[8..];
    let versions = [take(bytes)?, take(bytes)?].map(u32::from_le_bytes);
    if versions != [FORMAT_VERSION, PREPROCESS_VERSION] {
        return Err("it is of another version".to_owned());
    }
    let dims = take_dims(bytes)?;
    let spacing_mm = take_numbers(bytes)?;
    let mut rows = [[0.0; 4]; 3];
    for row in &mut rows {
        *row = take_numbers(bytes)?;
    }
    let mut axes = [(0, false); 3];
    for axis in &mut axes {
        let [index, _, _, _, flipped, ..]: [u8; 8] = take(bytes)?;
        *axis = (usize::from(index), flipped == 1);
    }
    let file_dims = take_dims(bytes)?;
    let mut pitch = [Pitch::SAME; 3];
    for pitch in &mut pitch {
        let [first, step] = take_numbers(bytes)?;
        *pitch = Pitch { first, step };
    }
    let axis_map = AxisMap {
        axes,
        file_dims,
        pitch,
    };
    if &take::<32>(bytes)? != source {
        return Err("it belongs to another scan".to_owned());
    }
    let hash = take(bytes)?;
    let voxels = dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let mut order = axes.map(|(axis, _)| axis);
    order.sort_unstable();
    if voxels != Some(end - HEADER_LEN)
        || order != [0, 1, 2]
        || pitch == [Pitch::SAME; 3] && mapped_dims(&axis_map) != dims
    {
        return Err("its size does not fit its header".to_owned());
    }
    let geometry = Geometry {
        dims,
        spacing_mm,
        affine: Affine { rows },
        axis_map,
    };
    Ok(Entry {
        geometry,
        hash,
        warnings: serde_json::from_slice(&file[end..]).map_err(|error| error.to_string())?,
        voxels: HEADER_LEN..end,
    })
}
