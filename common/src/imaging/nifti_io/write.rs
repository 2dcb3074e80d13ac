//! Writes an image as NIfTI-1, atomically and reproducibly.

use std::io::{self, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};

use super::{WriteError, affine, placement};
use crate::imaging::geometry::{Affine, Geometry};
use crate::imaging::volume::{Volume, Voxels, check_size};
use crate::run::durable::{AtomicFile, DurableError};

/// Voxels to write, the first axis fastest.
#[derive(Debug, Clone, Copy)]
pub enum SamplesRef<'a> {
    /// Written as `uint8`.
    U8(&'a [u8]),
    /// Written as `float32`.
    F32(&'a [f32]),
}

/// An image to write.
#[derive(Debug, Clone, Copy)]
pub struct ImageRef<'a> {
    pub dims: [usize; 3],
    pub samples: SamplesRef<'a>,
    pub affine: &'a Affine,
}

/// Writes `.nii` or `.nii.gz`, depending on the name. The affine, in mm, is stored as sform,
/// and as qform unless its axes are so skewed that the two would be apart: then ITK and 3D
/// Slicer refuse it, as they refuse a scan with such axes.
pub fn write(path: &Path, image: &ImageRef<'_>) -> Result<(), WriteError> {
    let (found, bits) = match image.samples {
        SamplesRef::U8(values) => (values.len(), 8),
        SamplesRef::F32(values) => (values.len(), 32),
    };
    check_size(image.dims, found)?;
    write_with(path, image.dims, bits, image.affine, |out| {
        match image.samples {
            SamplesRef::U8(values) => out.write_all(values),
            SamplesRef::F32(values) => write_floats(out, values.iter().copied()),
        }
    })
}

/// Writes one of our volumes on our axes (nearest RAS), not on those of its file.
pub fn write_volume(path: &Path, volume: &Volume, geometry: &Geometry) -> Result<(), WriteError> {
    let dims = volume.dims();
    let bits = match volume.voxels() {
        Voxels::U8(_) => 8,
        Voxels::F32(_) => 32,
    };
    write_with(path, dims, bits, &geometry.affine, |out| {
        let [nx, ny, nz] = dims;
        for z in 0..nz {
            for y in 0..ny {
                let row = (0..nx).map(|x| (x * ny + y) * nz + z);
                match volume.voxels() {
                    Voxels::U8(bytes) => {
                        let bytes = (**bytes).as_ref();
                        out.write_all(&row.map(|i| bytes[i]).collect::<Vec<_>>())?;
                    }
                    Voxels::F32(values) => write_floats(out, row.map(|i| values[i]))?,
                }
            }
        }
        Ok(())
    })
}

fn write_floats(out: &mut dyn Write, values: impl Iterator<Item = f32>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1 << 16);
    for value in values {
        buffer.extend_from_slice(&value.to_le_bytes());
        if buffer.len() == 1 << 16 {
            out.write_all(&buffer)?;
            buffer.clear();
        }
    }
    out.write_all(&buffer)
}

fn write_with(
    path: &Path,
    dims: [usize; 3],
    bits: i16,
    affine: &Affine,
    voxels: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let gzip = name.ends_with(".nii.gz");
    let path_of = || path.to_owned();
    if !gzip && !name.ends_with(".nii") {
        return Err(WriteError::Name { path: path_of() });
    }
    let Some(short) = short_dims(dims) else {
        let path = path_of();
        return Err(WriteError::Dims { path, dims });
    };
    if !affine::is_regular(affine) {
        let (path, rows) = (path_of(), Box::new(affine.rows));
        return Err(WriteError::Affine { path, rows });
    }
    let header = header(dims, short, bits, affine);
    let mut file = AtomicFile::create(path)?;
    let written = if gzip {
        // The gzip header has no name and no time: equal images give equal files.
        let mut gz = GzBuilder::new()
            .mtime(0)
            .write(&mut file, Compression::default());
        gz.write_all(&header)
            .and_then(|()| voxels(&mut gz))
            .and_then(|()| gz.finish().map(|_| ()))
    } else {
        file.write_all(&header).and_then(|()| voxels(&mut file))
    };
    written.map_err(|error| DurableError {
        action: "write",
        path: path.to_owned(),
        error,
    })?;
    Ok(file.commit()?)
}

fn short_dims(dims: [usize; 3]) -> Option<[i16; 3]> {
    let mut short = [0; 3];
    for (to, from) in short.iter_mut().zip(dims) {
        *to = i16::try_from(from).ok().filter(|&d| d > 0)?;
    }
    Some(short)
}

/// 348 bytes of header and four that declare no extension, little-endian.
fn header(dims: [usize; 3], short: [i16; 3], bits: i16, affine: &Affine) -> [u8; 352] {
    let mut bytes = [0; 352];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    put(38, b"r");
    let dim = [3, short[0], short[1], short[2], 1, 1, 1, 1];
    for (i, dim) in dim.into_iter().enumerate() {
        put(40 + 2 * i, &dim.to_le_bytes());
    }
    put(70, &(if bits == 8 { 2_i16 } else { 16 }).to_le_bytes());
    put(72, &bits.to_le_bytes());
    let (quaternion, qfac) = affine::to_quaternion(affine);
    let sizes = affine.column_lengths();
    let shift = affine.rows.map(|row| row[3]);
    let qform = affine::qform(quaternion, shift, sizes, qfac);
    let has_qform = placement::far(&qform, affine, dims).is_none();
    let qfac = if has_qform { qfac } else { 1.0 };
    let [sx, sy, sz] = sizes;
    let pixdim = [qfac, sx, sy, sz, 1.0, 1.0, 1.0, 1.0];
    for (i, value) in pixdim.into_iter().enumerate() {
        put(76 + 4 * i, &(value as f32).to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    put(123, &[2]); // millimetres
    // Code 1: scanner coordinates, the caller's best knowledge.
    put(252, &i16::from(has_qform).to_le_bytes());
    put(254, &1_i16.to_le_bytes());
    if has_qform {
        for (i, value) in quaternion.into_iter().chain(shift).enumerate() {
            put(256 + 4 * i, &(value as f32).to_le_bytes());
        }
    }
    for (i, value) in affine.rows.iter().flatten().enumerate() {
        put(280 + 4 * i, &(*value as f32).to_le_bytes());
    }
    put(344, b"n+1\0");
    bytes
}
