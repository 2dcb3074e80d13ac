//! A label map of spheres around landmarks, in the scan file's own grid, to be
//! overlaid on the scan in any viewer.

use std::path::Path;

use crate::imaging::geometry::{Affine, Geometry, distance_mm};
use crate::imaging::nifti_io::{ImageRef, SamplesRef, WriteError, write};
use crate::imaging::orientation::file_affine;

/// Maximum number of labels: a byte without 0, the background.
pub const MAX_LABELS: usize = 255;

/// Spheres in a scan's own grid.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelMap {
    /// Voxels per axis of the file.
    pub dims: [usize; 3],
    /// The file's voxel positions → RAS mm.
    pub affine: Affine,
    /// Per voxel, the file's first axis fastest: 0, or the landmark's number from 1.
    pub labels: Vec<u8>,
}

impl LabelMap {
    /// Spheres of `radius_mm` around landmarks at these positions (voxels of
    /// our volume), numbered from 1 in their order; `None` takes its number
    /// and no voxel.
    ///
    /// A voxel belongs to a sphere when its centre does, in mm; where spheres
    /// meet, to the nearest landmark. A landmark's nearest voxel is always
    /// its own, however small the radius. Landmarks beyond [`MAX_LABELS`] and
    /// positions outside the scan mark nothing.
    #[must_use]
    pub fn spheres(geometry: &Geometry, positions: &[Option<[f64; 3]>], radius_mm: f64) -> Self {
        let dims = geometry.axis_map.file_dims;
        let mut map = Self {
            dims,
            affine: file_affine(&geometry.affine, &geometry.axis_map),
            labels: vec![0; dims.iter().product()],
        };
        let centres: Vec<Option<[f64; 3]>> = positions
            .iter()
            .take(MAX_LABELS)
            .map(|position| position.map(|p| geometry.axis_map.to_file(p)))
            .collect();
        let reach = map.reach(radius_mm);
        for (label, centre) in (1_u8..=u8::MAX).zip(&centres) {
            if let Some(centre) = *centre {
                map.sphere(label, centre, radius_mm, reach, &centres);
            }
        }
        map
    }

    /// Writes `.nii` or `.nii.gz`, depending on the name.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let image = ImageRef {
            dims: self.dims,
            samples: SamplesRef::U8(&self.labels),
            affine: &self.affine,
        };
        write(path, &image)
    }

    /// Extent of a sphere along each axis, in voxels: radius / spacing for orthogonal
    /// axes, more for slanted ones.
    fn reach(&self, radius_mm: f64) -> [f64; 3] {
        let origin = self.affine.to_voxel([0.0; 3]).unwrap_or_default();
        let mut squares = [0.0; 3];
        for axis in 0..3 {
            let mut world = [0.0; 3];
            world[axis] = radius_mm;
            let step = self.affine.to_voxel(world).unwrap_or_default();
            for i in 0..3 {
                squares[i] += (step[i] - origin[i]).powi(2);
            }
        }
        squares.map(f64::sqrt)
    }

    fn sphere(
        &mut self,
        label: u8,
        centre: [f64; 3],
        radius_mm: f64,
        reach: [f64; 3],
        centres: &[Option<[f64; 3]>],
    ) {
        let nearest = centre.map(f64::round);
        let [xs, ys, zs] = [0, 1, 2].map(|i| span(centre[i], reach[i], self.dims[i]));
        for z in zs {
            for y in ys.clone() {
                for x in xs.clone() {
                    let voxel = [x, y, z].map(|v| v as f64);
                    let distance = self.distance_mm(voxel, centre);
                    let own = voxel == nearest;
                    if !own && (distance.is_nan() || distance > radius_mm) {
                        continue;
                    }
                    let slot = x + self.dims[0] * (y + self.dims[1] * z);
                    let before = usize::from(self.labels[slot]).checked_sub(1);
                    let rival = before.and_then(|i| centres.get(i).copied().flatten());
                    let farther = |r| self.distance_mm(voxel, r) > distance;
                    if rival.is_none_or(farther) {
                        self.labels[slot] = label;
                    }
                }
            }
        }
    }

    fn distance_mm(&self, a: [f64; 3], b: [f64; 3]) -> f64 {
        distance_mm(self.affine.to_world(a), self.affine.to_world(b), [1.0; 3])
    }
}

/// The voxels of an axis that a sphere may touch, including the nearest one.
fn span(centre: f64, reach: f64, dim: usize) -> std::ops::Range<usize> {
    // Casts convert NaN to 0 and saturate at the type's limits.
    let reach = reach.max(0.5);
    let first = (centre - reach).ceil().max(0.0) as usize;
    let last = (centre + reach).floor();
    if last < 0.0 {
        return 0..0;
    }
    first..(last as usize).saturating_add(1).min(dim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::nifti_io::{Limits, Samples, read};
    use crate::imaging::orientation::{mapped_affine, mapped_dims, nearest_ras};

    fn geometry(file: Affine, file_dims: [usize; 3], spacing_mm: [f64; 3]) -> Geometry {
        let axis_map = nearest_ras(&file, file_dims);
        Geometry {
            dims: mapped_dims(&axis_map),
            spacing_mm,
            affine: mapped_affine(&file, &axis_map),
            axis_map,
        }
    }

    /// x runs to the left, y is the world's z, z its y.
    fn odd() -> (Affine, Geometry) {
        let file = Affine {
            rows: [
                [-2.0, 0.0, 0.0, 9.0],
                [0.0, 0.0, 1.0, -3.0],
                [0.0, 1.0, 0.0, 5.0],
            ],
        };
        (file, geometry(file, [6, 7, 8], [2.0, 1.0, 1.0]))
    }

    fn marked(map: &LabelMap, label: u8) -> Vec<[usize; 3]> {
        let [nx, ny, _] = map.dims;
        let all = map.labels.iter().enumerate().filter(|(_, l)| **l == label);
        all.map(|(i, _)| [i % nx, i / nx % ny, i / nx / ny])
            .collect()
    }

    #[test]
    fn a_sphere_lies_in_the_files_grid() {
        let (file, geometry) = odd();
        assert_eq!(geometry.dims, [6, 8, 7]);
        // Our voxel (1, 5, 3) is the file's (6 − 1 − 1, 3, 5).
        let map = LabelMap::spheres(&geometry, &[Some([1.0, 5.0, 3.0])], 1.0);
        assert_eq!((map.dims, map.affine), ([6, 7, 8], file));
        // Along x a voxel is 2 mm, so only y and z have neighbours within 1 mm.
        let expected = [[4, 3, 4], [4, 2, 5], [4, 3, 5], [4, 4, 5], [4, 3, 6]];
        assert_eq!(marked(&map, 1), expected);
        let map = LabelMap::spheres(&geometry, &[Some([1.0, 5.0, 3.0])], 2.0);
        assert!(marked(&map, 1).contains(&[3, 3, 5]) && marked(&map, 1).contains(&[5, 3, 5]));
        assert_eq!(marked(&map, 1).len(), 13 + 2);
    }

    #[test]
    fn numbers_follow_the_order_and_the_nearest_wins() {
        let (_, geometry) = odd();
        let [first, third] = [[1.0, 2.0, 3.0], [1.0, 4.0, 3.0]].map(Some);
        let positions = [first, None, third, Some([40.0; 3])];
        let map = LabelMap::spheres(&geometry, &positions, 1.2);
        // The voxel between belongs to the first: both are equally near.
        assert_eq!(map.labels[4 + 6 * (3 + 7 * 3)], 1);
        assert_eq!((marked(&map, 1).len(), marked(&map, 3).len()), (5, 4));
        assert!(marked(&map, 2).is_empty() && marked(&map, 4).is_empty());
        // Fractional position and no radius: only the nearest voxel.
        let map = LabelMap::spheres(&geometry, &[Some([1.4, 2.0, 3.3])], 0.0);
        assert_eq!(marked(&map, 1), [[4, 3, 2]]);
        let many = vec![Some([1.0, 2.0, 3.0]); 300];
        let map = LabelMap::spheres(&geometry, &many, 0.1);
        assert_eq!(marked(&map, 1).len(), 1);
        let lost = [Some([f64::NAN; 3]), Some([-1e300, 0.0, 1e300])];
        let map = LabelMap::spheres(&geometry, &lost, f64::INFINITY);
        assert!(map.labels.iter().all(|l| *l <= 2));
    }

    #[test]
    fn a_written_map_overlays_the_scan() {
        let (file, geometry) = odd();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.nii.gz");
        let map = LabelMap::spheres(&geometry, &[Some([1.0, 5.0, 3.0])], 1.0);
        map.write(&path).unwrap();
        let image = read(&path, &Limits::default()).unwrap();
        assert_eq!((image.dims(), image.affine()), ([6, 7, 8], &file));
        assert_eq!(image.samples(), &Samples::U8(map.labels));
    }

    proptest! {
        #[test]
        fn a_voxel_is_marked_when_its_centre_is_within_the_radius(
            turn in prop::array::uniform3(-0.7_f64..0.7), shear in -0.4_f64..0.4,
            at in prop::array::uniform3(0.0_f64..8.0), radius in 0.0_f64..4.0,
        ) {
            let [a, b, c] = turn;
            let file = Affine { rows: [
                [1.2, a, shear, -4.0], [-a, 0.8, b, 3.0], [c, -b, 1.5, 0.5],
            ] };
            prop_assume!(file.determinant().abs() > 0.1);
            let geometry = Geometry { affine: file, ..Geometry::straight([9; 3], [1.0; 3]) };
            let labels = LabelMap::spheres(&geometry, &[Some(at)], radius);
            for (i, label) in labels.labels.iter().enumerate() {
                let voxel = [i % 9, i / 9 % 9, i / 81].map(|v| v as f64);
                let distance = labels.distance_mm(voxel, at);
                let inside = distance <= radius || voxel == at.map(f64::round);
                prop_assert_eq!(*label == 1, inside, "{:?} {}", voxel, distance);
            }
        }
    }
}
