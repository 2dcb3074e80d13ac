//! Reorients a file's grid to the nearest RAS one: axes are permuted and flipped,
//! voxel values do not change, oblique affines keep their rotation.

use rayon::prelude::*;

use crate::imaging::geometry::{Affine, AxisMap, Pitch};

/// All permutations of three axes.
pub(crate) const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// The permutation and flips that align our x, y, z best with right, anterior
/// and superior.
///
/// The best alignment has the largest sum of cosines between our axes and the
/// world's. For affines without shear it equals nibabel's `as_closest_canonical`
/// except where two choices are nearly equal. In a tie, the first wins.
#[must_use]
pub fn nearest_ras(affine: &Affine, file_dims: [usize; 3]) -> AxisMap {
    let lengths = affine.column_lengths();
    let cosine = |world: usize, axis: usize| affine.rows[world][axis] / lengths[axis];
    let mut best = ORDERS[0];
    let mut largest = f64::NEG_INFINITY;
    for order in ORDERS {
        let sum: f64 = (0..3).map(|world| cosine(world, order[world]).abs()).sum();
        // Rounding must not decide a tie.
        if sum > largest + 1e-9 {
            (best, largest) = (order, sum);
        }
    }
    let axes = [0, 1, 2].map(|world| (best[world], cosine(world, best[world]) < 0.0));
    AxisMap {
        axes,
        file_dims,
        pitch: [Pitch::SAME; 3],
    }
}

/// Voxels per axis after a map that does not resample.
#[must_use]
pub fn mapped_dims(map: &AxisMap) -> [usize; 3] {
    map.axes.map(|(axis, _)| map.file_dims[axis])
}

/// Our voxel positions → RAS mm, from the file's affine.
#[must_use]
pub fn mapped_affine(file: &Affine, map: &AxisMap) -> Affine {
    let origin = file.to_world(map.to_file([0.0; 3]));
    let mut rows = [[0.0; 4]; 3];
    for (row, (file_row, shift)) in rows.iter_mut().zip(file.rows.iter().zip(origin)) {
        for (value, (axis, flipped)) in row.iter_mut().zip(map.axes) {
            *value = if flipped {
                -file_row[axis]
            } else {
                file_row[axis]
            };
        }
        row[3] = shift;
    }
    Affine { rows }
}

/// The file's voxel positions → RAS mm, from our affine: the inverse of [`mapped_affine`].
#[must_use]
pub fn file_affine(ours: &Affine, map: &AxisMap) -> Affine {
    let first = map.from_file([0.0; 3]);
    let origin = ours.to_world(first);
    // The step on our axes per voxel along each axis of the file. Computed from
    // steps, because the difference of two positions would be rounded.
    let steps = [0, 1, 2].map(|axis| {
        let mut next = [0.0; 3];
        next[axis] = 1.0;
        let next = map.from_file(next);
        [0, 1, 2].map(|i| next[i] - first[i])
    });
    let mut rows = [[0.0; 4]; 3];
    for (row, (our_row, shift)) in rows.iter_mut().zip(ours.rows.iter().zip(origin)) {
        for (value, step) in row.iter_mut().zip(steps) {
            *value = our_row[0] * step[0] + our_row[1] * step[1] + our_row[2] * step[2];
        }
        row[3] = shift;
    }
    Affine { rows }
}

/// Reorders the file's voxels (first axis fastest) to ours (z fastest) and converts each.
///
/// # Panics
///
/// When the length of `voxels` does not match `map.file_dims`.
#[must_use]
pub fn reorder<T, U>(voxels: &[T], map: &AxisMap, convert: impl Fn(T) -> U + Sync) -> Vec<U>
where
    T: Copy + Sync,
    U: Copy + Default + Send,
{
    assert_eq!(
        voxels.len(),
        map.file_dims.iter().product::<usize>(),
        "voxels and dims differ"
    );
    let [_, ny, nz] = mapped_dims(map);
    let mut ours = vec![U::default(); voxels.len()];
    if ours.is_empty() {
        return ours;
    }
    let strides = [1, map.file_dims[0], map.file_dims[0] * map.file_dims[1]];
    let along = |i: usize, v: usize| {
        let (axis, flipped) = map.axes[i];
        let last = map.file_dims[axis] - 1;
        strides[axis] * if flipped { last - v } else { v }
    };
    let z_offsets: Vec<usize> = (0..nz).map(|z| along(2, z)).collect();
    ours.par_chunks_mut(ny * nz)
        .enumerate()
        .for_each(|(x, slab)| {
            for (y, row) in slab.chunks_mut(nz).enumerate() {
                let start = along(0, x) + along(1, y);
                for (voxel, z_offset) in row.iter_mut().zip(&z_offsets) {
                    *voxel = convert(voxels[start + z_offset]);
                }
            }
        });
    ours
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each of the 48 orientations of axes, as (world axis, negative) per file axis.
    fn orientations() -> Vec<[(usize, bool); 3]> {
        let mut all = Vec::new();
        for order in ORDERS {
            for signs in 0..8 {
                all.push([0, 1, 2].map(|i| (order[i], signs >> i & 1 == 1)));
            }
        }
        all
    }

    fn affine_of(orientation: [(usize, bool); 3], spacing: [f64; 3]) -> Affine {
        let mut rows = Affine::diagonal([0.0; 3], [-7.5, 3.25, 11.0]).rows;
        for (axis, (world, negative)) in orientation.into_iter().enumerate() {
            let sign = if negative { -1.0 } else { 1.0 };
            rows[world][axis] = sign * spacing[axis];
        }
        Affine { rows }
    }

    #[test]
    fn all_48_orientations_keep_every_voxel_where_it_was_in_the_world() {
        let dims = [2, 3, 4];
        let voxels: Vec<u16> = (0..24).collect();
        let all = orientations();
        assert_eq!(all.len(), 48);
        for orientation in all {
            let file = affine_of(orientation, [0.5, 1.0, 2.0]);
            let map = nearest_ras(&file, dims);
            let ours = mapped_affine(&file, &map);
            assert_eq!(file_affine(&ours, &map), file);
            for i in 0..3 {
                for j in 0..3 {
                    let value = ours.rows[i][j];
                    assert!(if i == j { value > 0.0 } else { value == 0.0 }, "{ours:?}");
                }
            }
            let [nx, ny, nz] = mapped_dims(&map);
            let values = reorder(&voxels, &map, |v| v);
            for x in 0..nx {
                for y in 0..ny {
                    for z in 0..nz {
                        let position = [x as f64, y as f64, z as f64];
                        let world = ours.to_world(position);
                        // Naive reference: the file voxel at that world position.
                        let f = file.to_voxel(world).unwrap().map(f64::round);
                        let f = f.map(|v| v as usize);
                        let expected = voxels[f[0] + dims[0] * (f[1] + dims[1] * f[2])];
                        assert_eq!(values[(x * ny + y) * nz + z], expected);
                        assert_eq!(map.to_file(position), f.map(|v| v as f64));
                    }
                }
            }
        }
    }

    // import nibabel as nib, numpy as np
    // def rot(axis, deg):
    //     a = np.deg2rad(deg); c, s = np.cos(a), np.sin(a); m = np.eye(3)
    //     i, j = [k for k in range(3) if k != axis]; m[i,i] = m[j,j] = c; m[i,j] = -s; m[j,i] = s; return m
    // LIA = np.array([[-1,0,0],[0,0,1],[0,-1,0]])
    // A = np.eye(4); A[:3,:3] = rot(0,20) @ rot(1,-15) @ rot(2,30) @ LIA @ np.diag([0.8,1.2,1.5]); A[:3,3] = [10,-20,30]
    // im = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2,3,4), A)
    // c = nib.as_closest_canonical(im); print(nib.io_orientation(A), A[:3].tolist(), c.affine[:3].tolist(), c.dataobj)
    #[test]
    fn an_oblique_affine_keeps_its_rotation_as_in_nibabel() {
        let file = Affine { rows: FILE };
        let map = nearest_ras(&file, [2, 3, 4]);
        assert_eq!(map.axes, [(0, true), (2, false), (1, true)]);
        let ours = mapped_affine(&file, &map);
        for (row, expected) in ours.rows.iter().zip(CANONICAL) {
            for (value, expected) in row.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-12, "{ours:?}");
            }
        }
        // In the file's memory order the first axis is fastest; nibabel's arange has the last fastest.
        let voxels: Vec<i16> = (0..24)
            .map(|i| (i % 2) * 12 + (i / 2 % 3) * 4 + i / 6)
            .collect();
        assert_eq!(reorder(&voxels, &map, |v| v), VALUES);
    }

    #[rustfmt::skip]
    const FILE: [[f64; 4]; 3] = [
        [-0.6692130429902464, -0.3105828541230249, -0.7244443697168012, 10.0],
        [-0.4372064226130027, 0.39643930745922257, 1.154305526848028, -20.0],
        [0.03169301370452484, -1.0892080454284425, 0.6267049591903062, 30.0],
    ];
    #[rustfmt::skip]
    const CANONICAL: [[f64; 4]; 3] = [
        [0.6692130429902464, -0.7244443697168012, 0.3105828541230249, 8.709621248763703],
        [0.4372064226130027, 1.154305526848028, -0.39643930745922257, -19.64432780769456],
        [-0.03169301370452484, 0.6267049591903062, 1.0892080454284425, 27.85327692284764],
    ];
    const VALUES: [i16; 24] = [
        20, 16, 12, 21, 17, 13, 22, 18, 14, 23, 19, 15, 8, 4, 0, 9, 5, 1, 10, 6, 2, 11, 7, 3,
    ];

    proptest! {
        #[test]
        fn rotations_up_to_forty_degrees_do_not_change_the_choice(
            which in 0_usize..48, angle in -0.6_f64..0.6, about in 0_usize..3,
        ) {
            let orientation = orientations()[which];
            let straight = affine_of(orientation, [1.0, 0.7, 1.3]);
            let (i, j) = ((about + 1) % 3, (about + 2) % 3);
            let mut turned = straight;
            for c in 0..3 {
                let (a, b) = (straight.rows[i][c], straight.rows[j][c]);
                turned.rows[i][c] = angle.cos() * a - angle.sin() * b;
                turned.rows[j][c] = angle.sin() * a + angle.cos() * b;
            }
            prop_assert_eq!(nearest_ras(&turned, [4, 5, 6]), nearest_ras(&straight, [4, 5, 6]));
            let map = nearest_ras(&turned, [4, 5, 6]);
            let p = [1.5, 2.25, 0.5];
            let (a, b) = (mapped_affine(&turned, &map).to_world(p), turned.to_world(map.to_file(p)));
            for k in 0..3 { prop_assert!((a[k] - b[k]).abs() < 1e-9); }
            let back = file_affine(&mapped_affine(&turned, &map), &map);
            let apart = |(a, b): (&f64, &f64)| (a - b).abs();
            let rows = back.rows.iter().flatten().zip(turned.rows.iter().flatten());
            prop_assert!(rows.map(apart).all(|d| d < 1e-12));
        }
    }
}
