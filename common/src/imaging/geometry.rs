//! The geometry of voxels: spacing, the affine to RAS millimetres, and the axis
//! permutation from a file's grid to the nearest RAS one.

/// The affine map from voxel indices to world millimetres, RAS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The three rows of the 4×4 matrix above `0 0 0 1`.
    pub rows: [[f64; 4]; 3],
}

impl Affine {
    /// Axes parallel to the world's: voxels `steps` mm apart, the first one at `origin` (RAS mm).
    #[must_use]
    pub const fn diagonal(steps: [f64; 3], origin: [f64; 3]) -> Self {
        let ([x, y, z], [a, b, c]) = (steps, origin);
        Self {
            rows: [[x, 0.0, 0.0, a], [0.0, y, 0.0, b], [0.0, 0.0, z, c]],
        }
    }

    /// World position (RAS mm) of a voxel position, fractions allowed.
    #[must_use]
    pub fn to_world(&self, voxel: [f64; 3]) -> [f64; 3] {
        self.rows
            .map(|r| r[0] * voxel[0] + r[1] * voxel[1] + r[2] * voxel[2] + r[3])
    }

    /// Voxel position of a world position (RAS mm); `None` when the matrix is singular.
    #[must_use]
    pub fn to_voxel(&self, world: [f64; 3]) -> Option<[f64; 3]> {
        let m = self.rows;
        let det = self.determinant();
        // Relative to the box whose sides are the columns, since voxels may have any size. A
        // column in the plane of the others leaves only rounding.
        let share = det / self.column_lengths().iter().product::<f64>();
        if !share.is_finite() || share.abs() < 1e-12 {
            return None;
        }
        let b = [world[0] - m[0][3], world[1] - m[1][3], world[2] - m[2][3]];
        let solve = |column: usize| {
            let mut a = m;
            for (row, value) in a.iter_mut().zip(b) {
                row[column] = value;
            }
            Affine { rows: a }.determinant() / det
        };
        Some([solve(0), solve(1), solve(2)])
    }

    /// Lengths of the columns: millimetres between voxel centres along each axis.
    #[must_use]
    pub fn column_lengths(&self) -> [f64; 3] {
        [0, 1, 2].map(|c| {
            let squares = self.rows.iter().map(|row| row[c] * row[c]);
            squares.sum::<f64>().sqrt()
        })
    }

    /// Determinant of the 3×3 part; its sign is the handedness.
    #[must_use]
    pub fn determinant(&self) -> f64 {
        let m = self.rows;
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    }
}

/// The file axis, direction and step that each axis of our volume follows.
///
/// `axes[i] = (file axis, flipped)`: our index `v[i]` is the file's index
/// `f[axes[i].0]`, counted from the far end where flipped. Unless the scan was
/// resampled, `pitch` is 1 on each axis: a permutation and flips only, no voxel
/// changes its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisMap {
    /// (file axis, flipped) per axis of our volume.
    pub axes: [(usize, bool); 3],
    /// Voxels per axis of the file's grid.
    pub file_dims: [usize; 3],
    /// Where our voxels lie among the file's, per axis of our volume.
    pub pitch: [Pitch; 3],
}

/// The samples of an axis in terms of another sampling of it: sample `v` is at `first + step · v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pitch {
    /// The other sampling's index (fractions allowed) of our first sample.
    pub first: f64,
    /// The step to the next one.
    pub step: f64,
}

impl Pitch {
    /// The identity.
    pub const SAME: Self = Self {
        first: 0.0,
        step: 1.0,
    };
}

impl AxisMap {
    /// The identity map.
    #[must_use]
    pub fn identity(dims: [usize; 3]) -> Self {
        Self {
            axes: [(0, false), (1, false), (2, false)],
            file_dims: dims,
            pitch: [Pitch::SAME; 3],
        }
    }

    /// Our voxel position → the file's.
    #[must_use]
    pub fn to_file(&self, ours: [f64; 3]) -> [f64; 3] {
        let mut file = [0.0; 3];
        for ((value, &(axis, flipped)), pitch) in ours.into_iter().zip(&self.axes).zip(self.pitch) {
            file[axis] = self.flip(pitch.first + pitch.step * value, axis, flipped);
        }
        file
    }

    /// The file's voxel position → ours.
    #[must_use]
    pub fn from_file(&self, file: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|i| {
            let ((axis, flipped), pitch) = (self.axes[i], self.pitch[i]);
            (self.flip(file[axis], axis, flipped) - pitch.first) / pitch.step
        })
    }

    /// Our voxel position in units of the file's voxels, along our axes. Unless the scan was
    /// resampled, both are the same.
    #[must_use]
    pub fn in_file_voxels(&self, ours: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|i| self.pitch[i].first + self.pitch[i].step * ours[i])
    }

    fn flip(&self, value: f64, axis: usize, flipped: bool) -> f64 {
        if flipped {
            (self.file_dims[axis] as f64 - 1.0) - value
        } else {
            value
        }
    }
}

/// The position of a volume in the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Voxels per axis (x, y, z) of our volume.
    pub dims: [usize; 3],
    /// Millimetres between voxel centres along each axis of our volume.
    pub spacing_mm: [f64; 3],
    /// Our voxel positions → RAS mm.
    pub affine: Affine,
    /// Our voxel positions → the file's.
    pub axis_map: AxisMap,
}

impl Geometry {
    /// A grid along RAS axes, stored as it is, whose first voxel is the world's origin.
    #[must_use]
    pub fn straight(dims: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        Self {
            dims,
            spacing_mm,
            affine: Affine::diagonal(spacing_mm, [0.0; 3]),
            axis_map: AxisMap::identity(dims),
        }
    }

    /// Distance in mm between two voxel positions of one volume.
    #[must_use]
    pub fn distance_mm(&self, a: [f64; 3], b: [f64; 3]) -> f64 {
        distance_mm(a, b, self.spacing_mm)
    }
}

/// The centre of a grid, in voxels.
#[must_use]
pub fn centre(dims: [usize; 3]) -> [f64; 3] {
    dims.map(|n| (n as f64 - 1.0) / 2.0)
}

/// Distance in mm between two voxel positions at the given spacing.
#[must_use]
pub fn distance_mm(a: [f64; 3], b: [f64; 3], spacing_mm: [f64; 3]) -> f64 {
    (0..3)
        .map(|i| ((a[i] - b[i]) * spacing_mm[i]).powi(2))
        .sum::<f64>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_and_voxel_are_inverse() {
        let a = Affine {
            rows: [
                [0.9, 0.1, 0.0, -5.0],
                [-0.1, 1.1, 0.2, 7.0],
                [0.05, -0.2, 2.0, 1.5],
            ],
        };
        let v = [3.25, 10.5, -2.0];
        let back = a.to_voxel(a.to_world(v)).unwrap();
        for i in 0..3 {
            assert!((back[i] - v[i]).abs() < 1e-9, "{back:?}");
        }
        let flat = Affine::diagonal([0.0; 3], [0.0; 3]);
        assert_eq!(flat.to_voxel([0.0; 3]), None);
    }

    /// A header in metres may have voxels of 5e-5: singularity must not depend on size.
    #[test]
    fn small_voxels_are_regular_and_flat_ones_singular() {
        for size in [5e-5, 1e-20, 1e3] {
            let a = Affine::diagonal([size; 3], [0.0; 3]);
            let v = [3.25, 10.5, -2.0];
            let back = a.to_voxel(a.to_world(v)).unwrap();
            assert!((0..3).all(|i| (back[i] - v[i]).abs() < 1e-9), "{back:?}");
            // The third column is the sum of the others.
            let flat = [[0.9, 0.1, 1.0], [-0.1, 1.1, 1.0], [0.05, -0.2, -0.15]];
            let rows = flat.map(|[x, y, z]| [x * size, y * size, z * size, 4.0]);
            assert_eq!(Affine { rows }.to_voxel([1.0; 3]), None, "{size}");
        }
    }

    #[test]
    fn axis_map_is_invertible() {
        // Ours: x follows file axis 2 backwards, y follows 0, z follows 1 backwards.
        let map = AxisMap {
            axes: [(2, true), (0, false), (1, true)],
            file_dims: [10, 20, 30],
            pitch: [Pitch::SAME; 3],
        };
        assert_eq!(map.to_file([0.0, 0.0, 0.0]), [0.0, 19.0, 29.0]);
        assert_eq!(map.from_file(map.to_file([4.5, 3.0, 2.0])), [4.5, 3.0, 2.0]);
        // Every other voxel of the file along our x, starting at the last but one.
        let mut coarse = map;
        coarse.pitch[0] = Pitch {
            first: 0.5,
            step: 2.0,
        };
        assert_eq!(coarse.to_file([1.0, 0.0, 0.0]), [0.0, 19.0, 26.5]);
        assert_eq!(coarse.from_file([0.0, 19.0, 26.5]), [1.0, 0.0, 0.0]);
        assert_eq!(map.in_file_voxels([4.5, 3.0, 2.0]), [4.5, 3.0, 2.0]);
        assert_eq!(coarse.in_file_voxels([1.0, 3.0, 2.0]), [2.5, 3.0, 2.0]);
    }
}
