//! The pose of a head in its volume: anatomy units → voxels from the volume's centre.

use rand::Rng;

use super::spec::{PhantomSpec, symmetric};
use crate::environment::pose::rotation;
use crate::imaging::geometry::centre;

/// A rotation, a uniform scaling, then a shift.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pose {
    rotation: [[f64; 3]; 3],
    /// Voxels per anatomy unit.
    pub(super) scale: f64,
    shift: [f64; 3],
}

impl Pose {
    /// A pose within the limits of the specification.
    pub(super) fn random(spec: &PhantomSpec, rng: &mut impl Rng) -> Self {
        let angles: [f64; 3] =
            std::array::from_fn(|_| symmetric(rng, spec.rotation_deg).to_radians());
        let scale = spec.voxels_per_unit() * (1.0 + symmetric(rng, spec.scaling));
        let shift = std::array::from_fn(|_| symmetric(rng, spec.shift_voxels));
        Self {
            rotation: rotation(angles),
            scale,
            shift,
        }
    }

    /// Shortens the shift until all points (anatomy units) are at least `margin`
    /// voxels from the faces of the volume.
    pub(super) fn keep_inside(&mut self, points: &[[f64; 3]], dims: [usize; 3], margin: f64) {
        for (axis, half) in centre(dims).into_iter().enumerate() {
            let reach = half - margin;
            let along = points.iter().map(|&p| self.to_centred(p)[axis]);
            let (low, high) = along.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
            if low < -reach {
                self.shift[axis] += -reach - low;
            } else if high > reach {
                self.shift[axis] -= high - reach;
            }
        }
    }

    /// Anatomy units → voxels from the centre of the volume, along RAS axes.
    pub(super) fn to_centred(&self, p: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| {
            let r = self.rotation[i];
            self.shift[i] + self.scale * (r[0] * p[0] + r[1] * p[1] + r[2] * p[2])
        })
    }

    /// The inverse of [`Self::to_centred`].
    pub(super) fn to_anatomy(&self, v: [f64; 3]) -> [f64; 3] {
        let d: [f64; 3] = std::array::from_fn(|i| (v[i] - self.shift[i]) / self.scale);
        let r = &self.rotation;
        std::array::from_fn(|i| r[0][i] * d[0] + r[1][i] * d[1] + r[2][i] * d[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn to_anatomy_inverts_to_centred() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..50 {
            let pose = Pose::random(&PhantomSpec::default(), &mut rng);
            let p = [12.0, -7.5, 20.25];
            let back = pose.to_anatomy(pose.to_centred(p));
            for i in 0..3 {
                assert!((back[i] - p[i]).abs() < 1e-9, "{back:?}");
            }
        }
    }

    #[test]
    fn the_shift_is_limited_by_the_margin() {
        let spec = PhantomSpec {
            shift_voxels: 200.0,
            ..PhantomSpec::default()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let points = [[10.0, 0.0, -5.0], [-10.0, 15.0, -20.0]];
        for _ in 0..50 {
            let mut pose = Pose::random(&spec, &mut rng);
            pose.keep_inside(&points, spec.dims, 8.0);
            for p in points {
                let v = pose.to_centred(p);
                for (value, half) in v.into_iter().zip(centre(spec.dims)) {
                    assert!(value.abs() <= half - 8.0 + 1e-9, "{v:?}");
                }
            }
        }
    }
}
