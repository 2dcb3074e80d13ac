//! Resampling to another grid: the same axes, the same spacing along each.
//!
//! New voxel centres are placed symmetrically about the centre of the file's grid,
//! so that a mirrored scan gives the same voxels mirrored. Intensities are
//! interpolated linearly between the eight nearest voxels; outside the outermost
//! centres (half a voxel at most) the nearest one is used. There is no smoothing
//! first: a much coarser spacing picks voxels rather than averaging them.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::imaging::geometry::{Affine, Pitch};
use crate::imaging::nifti_io::{Image, Limits, MAX_AXIS, Samples};

/// A spacing with a smaller relative difference is kept: interpolation would only blur.
const SAME_SPACING: f64 = 1e-3;

/// A scan that cannot be resampled to the requested spacing.
#[derive(Debug, thiserror::Error)]
#[error(
    "scan '{}' would have {dims:?} voxels at {spacing_mm} mm, more than {limit} in all or \
     {MAX_AXIS} along an axis; set data.resample_mm to a larger spacing", path.display()
)]
pub struct ResampleError {
    pub path: PathBuf,
    /// The requested spacing, in mm.
    pub spacing_mm: f64,
    /// Voxels per axis of the file at that spacing.
    pub dims: [u64; 3],
    /// The limit on voxels.
    pub limit: u64,
}

/// An image on a new grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    /// The image; its affine maps its own voxels to RAS mm.
    pub image: Image,
    /// The position of its voxels among the file's, per axis of the file.
    pub pitch: [Pitch; 3],
}

/// Resamples an image to `spacing_mm` along each of its axes; errors name `path`.
///
/// An image that already has this spacing is returned unchanged.
pub fn resample(
    image: Image,
    spacing_mm: f64,
    limits: &Limits,
    path: &Path,
) -> Result<Resampled, ResampleError> {
    let from = image.spacing_mm();
    let same = |s: &f64| (s / spacing_mm - 1.0).abs() <= SAME_SPACING;
    if from.iter().all(same) {
        let pitch = [Pitch::SAME; 3];
        return Ok(Resampled { image, pitch });
    }
    let file_dims = image.dims();
    let (dims, pitch) =
        grid(file_dims, from, spacing_mm, limits).map_err(|dims| ResampleError {
            path: path.to_owned(),
            spacing_mm,
            dims,
            limit: limits.max_voxels,
        })?;
    let samples = match image.samples() {
        Samples::U8(values) => interpolate(values, file_dims, dims, pitch, f32::from),
        Samples::F32(values) => interpolate(values, file_dims, dims, pitch, |v| v),
    };
    let affine = on_grid(image.affine(), pitch);
    let image = Image::new(dims, Samples::F32(samples), affine);
    let image = image.expect("one sample was made for each voxel");
    Ok(Resampled { image, pitch })
}

/// The number of voxels that covers the file's grid best, about its centre. Absurdly
/// many saturate and are refused.
fn grid(
    file_dims: [usize; 3],
    from: [f64; 3],
    spacing_mm: f64,
    limits: &Limits,
) -> Result<([usize; 3], [Pitch; 3]), [u64; 3]> {
    let steps = from.map(|s| spacing_mm / s);
    let wanted = [0, 1, 2].map(|i| ((file_dims[i] as f64 / steps[i]).round() as u64).max(1));
    let voxels = wanted.iter().try_fold(1_u64, |n, &d| n.checked_mul(d));
    let too_long = wanted.iter().any(|&d| d > MAX_AXIS as u64);
    if too_long || voxels.is_none_or(|n| n > limits.max_voxels) {
        return Err(wanted);
    }
    let dims = wanted.map(|d| d as usize);
    let pitch = [0, 1, 2].map(|i| {
        let (step, centre) = (steps[i], (file_dims[i] as f64 - 1.0) / 2.0);
        let first = centre - (dims[i] as f64 - 1.0) / 2.0 * step;
        Pitch { first, step }
    });
    Ok((dims, pitch))
}

/// Positions on the new grid → RAS mm, from the file's affine.
fn on_grid(file: &Affine, pitch: [Pitch; 3]) -> Affine {
    let origin = file.to_world(pitch.map(|p| p.first));
    let mut rows = file.rows;
    for (row, shift) in rows.iter_mut().zip(origin) {
        for (value, pitch) in row.iter_mut().zip(pitch) {
            *value *= pitch.step;
        }
        row[3] = shift;
    }
    Affine { rows }
}

/// The two samples around a position on an axis, and the weight of the second.
type Between = (usize, usize, f32);

fn between(file_dim: usize, dim: usize, pitch: Pitch) -> Vec<Between> {
    let last = file_dim - 1;
    let place = |v: usize| (pitch.first + pitch.step * v as f64).clamp(0.0, last as f64);
    let around = |place: f64| {
        let low = place.floor() as usize;
        (low, (low + 1).min(last), place.fract() as f32)
    };
    (0..dim).map(|v| around(place(v))).collect()
}

fn interpolate<T: Copy + Sync>(
    values: &[T],
    file_dims: [usize; 3],
    dims: [usize; 3],
    pitch: [Pitch; 3],
    float: impl Fn(T) -> f32 + Sync,
) -> Vec<f32> {
    let [xs, ys, zs] = [0, 1, 2].map(|i| between(file_dims[i], dims[i], pitch[i]));
    let [nx, ny, _] = file_dims;
    let row = |y: usize, z: usize| &values[(z * ny + y) * nx..][..nx];
    let mut all = vec![0.0; dims.iter().product()];
    let slabs = all.par_chunks_mut(dims[0] * dims[1]).zip(&zs);
    slabs.for_each(|(slab, &(z0, z1, tz))| {
        for (line, &(y0, y1, ty)) in slab.chunks_mut(dims[0]).zip(&ys) {
            let rows = [row(y0, z0), row(y1, z0), row(y0, z1), row(y1, z1)];
            for (to, &(x0, x1, tx)) in line.iter_mut().zip(&xs) {
                let [a, b, c, d] = rows.map(|r| mix(float(r[x0]), float(r[x1]), tx));
                *to = mix(mix(a, b, ty), mix(c, d, ty), tz);
            }
        }
    });
    all
}

/// Interpolates linearly between two finite values, without overshoot.
fn mix(a: f32, b: f32, t: f32) -> f32 {
    // Not a + (b - a)·t: the difference of two large values may be infinite.
    a * (1.0 - t) + b * t
}

#[cfg(test)]
mod tests;
