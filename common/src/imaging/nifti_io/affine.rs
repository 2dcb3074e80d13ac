//! The voxel → RAS mm affine: its three encodings in the header, and its quaternion.

use std::path::Path;

use super::ReadError;
use super::fields::Fields;
use crate::imaging::geometry::{Affine, centre, distance_mm};

/// Whether the affine is a usable map: finite, and no column in the plane of the others.
pub(super) fn is_regular(affine: &Affine) -> bool {
    let spacing = affine.column_lengths();
    let volume: f64 = spacing.iter().product();
    affine.rows.iter().flatten().all(|v| v.is_finite())
        && volume.is_finite()
        && volume > 1e-30
        && (affine.determinant() / volume).abs() > 1e-4
}

/// The sform, else the qform, else the pixdims (placed as nibabel does), validated.
pub(super) fn from_header(
    header: &Fields,
    dims: [usize; 3],
    path: &Path,
) -> Result<Affine, ReadError> {
    let (which, affine) = if header.sform_code > 0 {
        ("sform", sform(header))
    } else if header.qform_code > 0 {
        ("qform", qform(header))
    } else {
        tracing::warn!(scan = %path.display(), "no orientation in the header; taking voxel sizes alone");
        ("pixdim", from_pixdim(header, dims))
    };
    if !is_regular(&affine) {
        return Err(ReadError::BadAffine {
            path: path.to_owned(),
            which,
            detail: format!("{:?}", affine.rows),
        });
    }
    warn_when_odd(header, &affine, dims, path);
    Ok(affine)
}

fn warn_when_odd(header: &Fields, affine: &Affine, dims: [usize; 3], path: &Path) {
    let scan = path.display();
    if header.sform_code > 0 && header.qform_code > 0 {
        let apart = corner_distance(affine, &qform(header), dims);
        if apart.is_nan() || apart > 0.1 {
            tracing::warn!(%scan, apart_mm = apart, "sform and qform disagree; taking the sform");
        }
    }
    let spacing = affine.column_lengths();
    let stored = zooms(header);
    // Programs that only read the voxel sizes would see another scan.
    if (0..3).any(|i| stored[i] > 0.0 && (stored[i] / spacing[i] - 1.0).abs() > 0.01) {
        tracing::warn!(%scan, ?stored, taken = ?spacing, "pixdim and orientation disagree about the voxel size");
    }
    let skewed = (0..3).any(|i| {
        let j = (i + 1) % 3;
        let dot: f64 = affine.rows.iter().map(|row| row[i] * row[j]).sum();
        (dot / (spacing[i] * spacing[j])).abs() > 0.01
    });
    if skewed {
        tracing::warn!(%scan, "the axes are not at right angles; distances in mm are approximate");
    }
    if header.xyzt_units & 7 == 3 || header.xyzt_units & 7 == 1 {
        tracing::warn!(%scan, "the header's unit is metres or micrometres; its numbers are taken as mm");
    }
}

/// The largest distance in mm between the two affines' images of a corner.
fn corner_distance(a: &Affine, b: &Affine, dims: [usize; 3]) -> f64 {
    let far = dims.map(|d| d as f64 - 1.0);
    let mut largest = 0.0_f64;
    for corner in 0..8_u8 {
        let voxel = [0, 1, 2].map(|i| if corner >> i & 1 == 1 { far[i] } else { 0.0 });
        let (p, q) = (a.to_world(voxel), b.to_world(voxel));
        let apart = distance_mm(p, q, [1.0; 3]);
        if apart.is_nan() {
            return f64::NAN;
        }
        largest = largest.max(apart);
    }
    largest
}

fn sform(header: &Fields) -> Affine {
    Affine { rows: header.srow }
}

fn zooms(header: &Fields) -> [f64; 3] {
    [1, 2, 3].map(|i| header.pixdim[i].abs())
}

/// Method 2 of the standard (`nifti1.h`): rotation by a unit quaternion, qfac 0 read as 1.
fn qform(header: &Fields) -> Affine {
    let [mut b, mut c, mut d] = header.quatern;
    let square = b * b + c * c + d * d;
    let mut a = (1.0 - square).max(0.0).sqrt();
    if 1.0 - square < 1e-7 {
        // A half turn, or longer than 1 by rounding: nifti1_io does the same.
        let length = square.sqrt();
        (a, b, c, d) = (0.0, b / length, c / length, d / length);
    }
    #[rustfmt::skip]
    let rotation: [[f64; 3]; 3] = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let [x, y, z] = zooms(header);
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let shift = header.qoffset;
    let row = |i: usize| {
        let r = rotation[i];
        [r[0] * x, r[1] * y, r[2] * z * qfac, shift[i]]
    };
    Affine {
        rows: [row(0), row(1), row(2)],
    }
}

/// nibabel's `get_base_affine`: x runs to the left, the origin is the centre.
fn from_pixdim(header: &Fields, dims: [usize; 3]) -> Affine {
    let [x, y, z] = zooms(header);
    let [a, b, c] = centre(dims);
    Affine::diagonal([-x, y, z], [x * a, -y * b, -z * c])
}

/// Quaternion (b, c, d) and qfac of an affine, `None` when its axes are not orthogonal.
pub(super) fn to_quaternion(affine: &Affine) -> Option<([f64; 3], f64)> {
    let spacing = affine.column_lengths();
    let qfac = if affine.determinant() < 0.0 {
        -1.0
    } else {
        1.0
    };
    let mut r = affine
        .rows
        .map(|row| [0, 1, 2].map(|c| row[c] / spacing[c]));
    for row in &mut r {
        row[2] *= qfac;
    }
    for i in 0..3 {
        let j = (i + 1) % 3;
        let dot: f64 = r.iter().map(|row| row[i] * row[j]).sum();
        if dot.abs() > 1e-5 {
            return None;
        }
    }
    // Start with the largest of the four components, for accuracy.
    let squares = [
        1.0 + r[0][0] + r[1][1] + r[2][2],
        1.0 + r[0][0] - r[1][1] - r[2][2],
        1.0 - r[0][0] + r[1][1] - r[2][2],
        1.0 - r[0][0] - r[1][1] + r[2][2],
    ];
    let ([ab, ac, ad], [bc, bd, cd]) = (
        [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]],
        [r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]],
    );
    let products = [
        [squares[0], ab, ac, ad],
        [ab, squares[1], bc, bd],
        [ac, bc, squares[2], cd],
        [ad, bd, cd, squares[3]],
    ];
    let largest = (0..4).max_by(|&i, &j| squares[i].total_cmp(&squares[j]))?;
    let scale = 2.0 * squares[largest].max(0.0).sqrt();
    let q = products[largest].map(|v| v / scale);
    // a is not stored: it is taken as non-negative.
    let sign = if q[0] < 0.0 { -1.0 } else { 1.0 };
    Some(([q[1] * sign, q[2] * sign, q[3] * sign], qfac))
}
