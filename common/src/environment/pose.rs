//! Poses: a scan as if the head had been positioned differently.
//!
//! A pose is a rotation, a scaling and possibly a mirroring about the centre of
//! the volume, in mm, on a grid of the same size and spacing. It is a function
//! of the run's seed, the pose's number and the grid alone: actor and learner
//! draw the same one, and a row names it by its number. It changes what an
//! action means and what a step is worth, so windows and landmarks follow it
//! alike. Number 0 is the scan as it is.
//!
//! Positions are mapped in 1/65536 voxels of whole-number arithmetic, so that
//! the same window has the same bytes wherever it is rendered.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::imaging::geometry::{Affine, Geometry, centre};
use serde::{Deserialize, Serialize};

/// The section `[pose]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoseConfig {
    /// Share of training episodes with a random pose.
    pub share: f64,
    /// Largest rotation about each axis, in either direction.
    pub rotation_degrees: f64,
    /// Largest relative change in size, in either direction.
    pub scaling: f64,
    /// Probability of a left-right flip.
    pub flip: f64,
}

/// Number of fractional bits.
pub const FRACTION: u32 = 16;
/// One voxel.
const ONE: f64 = 65_536.0;

/// How a run draws its poses.
#[derive(Debug, Clone, PartialEq)]
pub struct Poses {
    config: PoseConfig,
    seed: u64,
}

/// Maps the voxel positions of a posed volume to those of the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pose {
    /// Rows of scan axis ← posed axes, in 1/65536 voxels.
    matrix: [[i64; 3]; 3],
    /// Includes the half voxel that turns truncation into rounding.
    offset: [i64; 3],
}

impl Poses {
    /// The poses of a run with this seed.
    #[must_use]
    pub fn new(config: &PoseConfig, seed: u64) -> Self {
        Self {
            config: config.clone(),
            seed,
        }
    }

    /// Whether any episode is posed.
    #[must_use]
    pub fn any(&self) -> bool {
        self.config.share > 0.0
    }

    /// Draws the pose number of the next episode: 0 except in a share `pose.share` of them.
    pub fn choose(&self, rng: &mut ChaCha8Rng) -> u32 {
        if self.any() && rng.random::<f64>() < self.config.share {
            rng.random_range(1..=u32::MAX)
        } else {
            0
        }
    }

    /// The pose with a number on a grid; `None` for number 0.
    #[must_use]
    pub fn get(&self, number: u32, geometry: &Geometry) -> Option<Pose> {
        if number == 0 {
            return None;
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..12].copy_from_slice(&number.to_le_bytes());
        key[12..16].copy_from_slice(b"pose");
        let mut rng = ChaCha8Rng::from_seed(key);
        let mut within = |width: f64| width * (2.0 * rng.random::<f64>() - 1.0);
        let angles: [f64; 3] =
            std::array::from_fn(|_| within(self.config.rotation_degrees).to_radians());
        let scale = within((1.0 + self.config.scaling).ln()).exp();
        let mirrored = rng.random::<f64>() < self.config.flip;
        let side = if mirrored { -1.0 } else { 1.0 };
        let mut turn = rotation(angles);
        for row in &mut turn {
            *row = row.map(|v| v * scale);
            row[0] *= side;
        }
        Some(Pose::about_centre(turn, geometry.dims, geometry.spacing_mm))
    }
}

impl Pose {
    /// Scan − centre = `mm` · (posed − centre), both in mm.
    fn about_centre(mm: [[f64; 3]; 3], dims: [usize; 3], spacing: [f64; 3]) -> Self {
        let centre = centre(dims);
        let voxel =
            |i: usize| -> [f64; 3] { std::array::from_fn(|j| mm[i][j] * spacing[j] / spacing[i]) };
        let matrix: [[f64; 3]; 3] = std::array::from_fn(voxel);
        let offset: [f64; 3] = std::array::from_fn(|i| {
            let moved: f64 = (0..3).map(|j| matrix[i][j] * centre[j]).sum();
            centre[i] - moved + 0.5
        });
        Self {
            matrix: matrix.map(|row| row.map(fixed)),
            offset: offset.map(fixed),
        }
    }

    /// The scan's voxel that a posed voxel shows (it may lie outside).
    #[must_use]
    pub fn voxel(&self, posed: [i32; 3]) -> [i64; 3] {
        self.fixed(posed).map(|v| v >> FRACTION)
    }

    /// The map in 1/65536 voxels, for renderers on a device: rows of scan axis ←
    /// posed axes, and the offset. Shifting the sum right by [`FRACTION`] bits gives
    /// the scan's voxel.
    #[must_use]
    pub fn fixed_point(&self) -> ([[i64; 3]; 3], [i64; 3]) {
        (self.matrix, self.offset)
    }

    /// [`Pose::voxel`] in 1/65536 voxels, before truncation.
    pub(crate) fn fixed(&self, posed: [i32; 3]) -> [i64; 3] {
        std::array::from_fn(|i| {
            let row = &self.matrix[i];
            let moved: i64 = (0..3).map(|j| row[j] * i64::from(posed[j])).sum();
            moved + self.offset[i]
        })
    }

    /// The change of [`Pose::fixed`] per voxel along a posed axis.
    pub(crate) fn along(&self, axis: usize) -> [i64; 3] {
        self.matrix.map(|row| row[axis])
    }

    /// The posed position of a position in the scan, in voxels, fractional; `None`
    /// for a singular map, which no configuration allows.
    #[must_use]
    pub fn position(&self, scan: [f64; 3]) -> Option<[f64; 3]> {
        let rows = std::array::from_fn(|i| {
            let [a, b, c] = self.matrix[i].map(|v| v as f64 / ONE);
            [a, b, c, self.offset[i] as f64 / ONE - 0.5]
        });
        Affine { rows }.to_voxel(scan)
    }
}

fn fixed(value: f64) -> i64 {
    (value * ONE).round() as i64
}

/// Rotation about x, then y, then z, in radians.
pub(crate) fn rotation(angles: [f64; 3]) -> [[f64; 3]; 3] {
    let [(sx, cx), (sy, cy), (sz, cz)] = angles.map(f64::sin_cos);
    [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(rotation_degrees: f64, scaling: f64, flip: f64) -> PoseConfig {
        PoseConfig {
            share: 1.0,
            rotation_degrees,
            scaling,
            flip,
        }
    }

    fn pose(config: &PoseConfig, number: u32, g: &Geometry) -> Pose {
        Poses::new(config, 5).get(number, g).unwrap()
    }

    #[test]
    fn number_zero_and_a_zero_rotation_change_nothing() {
        let g = Geometry::straight([20, 31, 40], [1.0, 0.5, 2.0]);
        assert!(Poses::new(&config(10.0, 0.1, 0.5), 1).get(0, &g).is_none());
        let still = pose(&config(0.0, 0.0, 0.0), 7, &g);
        for p in [[0, 0, 0], [19, 30, 39], [-3, 50, 7]] {
            assert_eq!(still.voxel(p), p.map(i64::from));
        }
    }

    #[test]
    fn a_mirrored_scan_reverses_x() {
        let g = Geometry::straight([20, 30, 40], [1.0; 3]);
        let mirror = pose(&config(0.0, 0.0, 1.0), 1, &g);
        assert_eq!(mirror.voxel([0, 3, 5]), [19, 3, 5]);
        let found = mirror.position([19.0, 3.0, 5.0]).unwrap();
        assert!((found[0]).abs() < 1e-3 && (found[1] - 3.0).abs() < 1e-3);
    }

    #[test]
    fn equal_numbers_are_equal_poses_and_the_seed_matters() {
        let g = Geometry::straight([40, 40, 40], [1.0; 3]);
        let c = config(15.0, 0.1, 0.0);
        assert_eq!(pose(&c, 3, &g), pose(&c, 3, &g));
        assert_ne!(pose(&c, 3, &g), pose(&c, 4, &g));
        assert_ne!(Poses::new(&c, 6).get(3, &g).unwrap(), pose(&c, 3, &g));
    }

    #[test]
    fn the_configured_share_of_episodes_is_posed() {
        let c = PoseConfig {
            share: 0.75,
            ..config(5.0, 0.0, 0.0)
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let poses = Poses::new(&c, 1);
        let posed = (0..4000).filter(|_| poses.choose(&mut rng) != 0).count();
        assert!((2850..3150).contains(&posed), "{posed}");
        let never = Poses::new(&PoseConfig { share: 0.0, ..c }, 1);
        assert!((0..100).all(|_| never.choose(&mut rng) == 0));
    }

    proptest! {
        #[test]
        fn positions_and_voxels_are_inverse_and_lengths_scale(
            number in 1_u32..,
            p in prop::array::uniform3(0_i32..120),
            spacing in prop::array::uniform3(0.2_f64..3.0),
        ) {
            let g = Geometry::straight([120, 100, 140], spacing);
            let pose = pose(&config(20.0, 0.1, 0.0), number, &g);
            // Voxel → scan (in 1/65536, less the half voxel) → voxel.
            let scan = pose.fixed(p).map(|v| v as f64 / ONE - 0.5);
            let back = pose.position(scan).unwrap();
            for i in 0..3 {
                prop_assert!((back[i] - f64::from(p[i])).abs() < 1e-6, "{back:?} {p:?}");
            }
            // A rotation and one scaling: every distance from the centre
            // changes by the same factor, in mm.
            let centre = [59.5, 49.5, 69.5];
            let (posed, there) = (g.distance_mm(back, centre), g.distance_mm(scan, centre));
            prop_assume!(posed > 5.0);
            let factor = there / posed;
            prop_assert!((1.0 / 1.101..=1.101).contains(&factor), "{factor}");
        }
    }
}
