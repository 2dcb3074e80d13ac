//! The voxel → RAS mm affine: its encodings in the header, and its quaternion.

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

/// The largest distance in mm between the images of a corner under two regular affines.
pub(super) fn corner_distance(a: &Affine, b: &Affine, dims: [usize; 3]) -> f64 {
    let far = dims.map(|d| d as f64 - 1.0);
    let mut largest = 0.0_f64;
    for corner in 0..8_u8 {
        let voxel = [0, 1, 2].map(|i| if corner >> i & 1 == 1 { far[i] } else { 0.0 });
        let (p, q) = (a.to_world(voxel), b.to_world(voxel));
        largest = largest.max(distance_mm(p, q, [1.0; 3]));
    }
    largest
}

/// The cosines of the angles between the axes 0 and 1, 1 and 2, 2 and 0.
pub(super) fn cosines(affine: &Affine) -> [f64; 3] {
    let spacing = affine.column_lengths();
    [0, 1, 2].map(|i| {
        let j = (i + 1) % 3;
        let dot: f64 = affine.rows.iter().map(|row| row[i] * row[j]).sum();
        dot / (spacing[i] * spacing[j])
    })
}

/// The sform as it is stored.
pub(super) fn sform(header: &Fields) -> Affine {
    Affine { rows: header.srow }
}

/// Method 2 of the standard (`nifti1.h`): rotation by a unit quaternion, for these voxel sizes.
pub(super) fn qform(quatern: [f64; 3], shift: [f64; 3], sizes: [f64; 3], qfac: f64) -> Affine {
    let [mut b, mut c, mut d] = quatern;
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
    let [x, y, z] = sizes;
    let row = |i: usize| {
        let r = rotation[i];
        [r[0] * x, r[1] * y, r[2] * z * qfac, shift[i]]
    };
    Affine {
        rows: [row(0), row(1), row(2)],
    }
}

/// nibabel's `get_base_affine`: x runs to the left, the origin is the centre.
pub(super) fn about_centre(sizes: [f64; 3], dims: [usize; 3]) -> Affine {
    let [x, y, z] = sizes;
    let [a, b, c] = centre(dims);
    Affine::diagonal([-x, y, z], [x * a, -y * b, -z * c])
}

/// Quaternion (b, c, d) and qfac of an affine; of the nearest one with orthogonal axes where its
/// own are not.
pub(super) fn to_quaternion(affine: &Affine) -> ([f64; 3], f64) {
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
    if cosines(affine).iter().any(|cosine| cosine.abs() > 1e-5) {
        r = nearest_rotation(r);
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
    let largest = [1, 2, 3].into_iter().fold(
        0,
        |best, i| if squares[i] >= squares[best] { i } else { best },
    );
    let scale = 2.0 * squares[largest].max(0.0).sqrt();
    let q = products[largest].map(|v| v / scale);
    // a is not stored: it is taken as non-negative.
    let sign = if q[0] < 0.0 { -1.0 } else { 1.0 };
    ([q[1] * sign, q[2] * sign, q[3] * sign], qfac)
}

/// The rotation nearest to a matrix of positive determinant, by Newton's iteration for the
/// polar decomposition.
fn nearest_rotation(mut r: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    for _ in 0..20 {
        let minor = |i: usize, j: usize| {
            let ([a, b], [c, d]) = ([i + 1, i + 2].map(|k| k % 3), [j + 1, j + 2].map(|k| k % 3));
            r[a][c] * r[b][d] - r[a][d] * r[b][c]
        };
        let determinant: f64 = (0..3).map(|j| r[0][j] * minor(0, j)).sum();
        let next = |i: usize, j: usize| 0.5 * (r[i][j] + minor(i, j) / determinant);
        r = std::array::from_fn(|i| std::array::from_fn(|j| next(i, j)));
    }
    r
}
