//! The anatomy of a head: painted solids in a deformed space.
//!
//! Units are voxels of a 96×112×96 volume, x to the right, y to the front,
//! z up, the origin at the centre of the head.

mod deformation;
mod structures;

use rand::{Rng, RngExt};

use super::shape::Shape;
use super::spec::PhantomSpec;
use super::texture::value_noise;
use deformation::Deformation;
use structures::Structures;

/// One solid and its shading.
#[derive(Debug, Clone)]
pub(super) struct Structure {
    shape: Shape,
    /// Brightness, 0 is air and 1 the brightest tissue.
    brightness: f64,
    /// How far the texture displaces the surface, units.
    ripple: f64,
    bound_centre: [f64; 3],
    /// Square of the radius beyond which the solid has no effect.
    bound_squared: f64,
}

impl Structure {
    /// A solid of constant brightness with a smooth surface.
    fn plain(shape: Shape, brightness: f64) -> Self {
        Self::rippled(shape, brightness, 0.0)
    }

    /// A solid whose surface follows the texture, such as a cortex.
    fn rippled(shape: Shape, brightness: f64, ripple: f64) -> Self {
        // The widest edge (half a voxel of the smallest volume, shrunk most) is below 2 units.
        const EDGE: f64 = 2.0;
        let (bound_centre, radius) = shape.bound();
        let bound_squared = (radius + ripple + EDGE).powi(2);
        Self {
            shape,
            brightness,
            ripple,
            bound_centre,
            bound_squared,
        }
    }
}

/// A head.
#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    /// Painted in this order, later ones over earlier ones.
    structures: Vec<Structure>,
    deformation: Deformation,
    texture_seed: u64,
    landmarks: Vec<[f64; 3]>,
}

/// Wavelength of the coarse texture, units.
const COARSE: f64 = 6.0;
/// Wavelength of the fine texture, units.
const FINE: f64 = 2.7;
/// Amplitude of the texture relative to a tissue's brightness.
const TEXTURE: f64 = 0.10;

impl Anatomy {
    /// A random head.
    pub(super) fn random(spec: &PhantomSpec, rng: &mut impl Rng) -> Self {
        let texture_seed = rng.random();
        let deformation = Deformation::random(rng);
        let Structures { solids, landmarks } = Structures::random(spec.jitter_voxels, rng);
        let landmarks = landmarks.map(|p| deformation.undo(p)).to_vec();
        Self {
            structures: solids,
            deformation,
            texture_seed,
            landmarks,
        }
    }

    /// The landmarks in the order of [`super::LANDMARK_NAMES`], units, before the pose.
    pub(super) fn landmarks(&self) -> &[[f64; 3]] {
        &self.landmarks
    }

    /// Brightness at a point (units, before the pose), 0 to about 1.
    ///
    /// `edge` is the width over which a surface fades, units: one voxel.
    pub(super) fn brightness(&self, point: [f64; 3], edge: f64) -> f64 {
        let p = self.deformation.apply(point);
        let coarse = value_noise(self.texture_seed, p.map(|v| v / COARSE));
        let mut value = 0.0;
        for s in &self.structures {
            let away: f64 = (0..3).map(|i| (p[i] - s.bound_centre[i]).powi(2)).sum();
            if away > s.bound_squared {
                continue;
            }
            let distance = s.shape.distance(p) + s.ripple * coarse;
            let coverage = (0.5 - distance / edge).clamp(0.0, 1.0);
            value += (s.brightness - value) * coverage;
        }
        if value <= 0.0 {
            return 0.0;
        }
        let fine = value_noise(self.texture_seed ^ 1, p.map(|v| v / FINE));
        value * (1.0 + TEXTURE * (coarse + fine))
    }
}
