//! A smooth, low-order deformation of all structures.

use std::f64::consts::TAU;

use rand::{Rng, RngExt};

use crate::phantom::spec::symmetric;

/// A sum of plane waves added to the position; units as in the anatomy.
#[derive(Debug, Clone)]
pub(super) struct Deformation {
    waves: [Wave; WAVES],
}

#[derive(Debug, Clone, Copy)]
struct Wave {
    /// Radians per unit.
    number: [f64; 3],
    phase: f64,
    amplitude: [f64; 3],
}

const WAVES: usize = 4;
/// Shortest wavelength, units: about a head's width, so shapes bend but do not fold.
const SHORTEST: f64 = 60.0;
/// Largest amplitude of one wave along one axis, units.
const AMPLITUDE: f64 = 1.1;

impl Deformation {
    pub(super) fn random(rng: &mut impl Rng) -> Self {
        let waves = std::array::from_fn(|_| {
            let number = std::array::from_fn(|_| symmetric(rng, TAU / SHORTEST / 3.0_f64.sqrt()));
            let phase = TAU * rng.random::<f64>();
            Wave {
                number,
                phase,
                amplitude: std::array::from_fn(|_| symmetric(rng, AMPLITUDE)),
            }
        });
        Self { waves }
    }

    /// Maps a point of the posed head to the space of the solids.
    pub(super) fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        let d = self.displacement(p);
        std::array::from_fn(|i| p[i] + d[i])
    }

    /// The inverse of [`Self::apply`].
    ///
    /// Fixed-point iteration of `p = q − displacement(p)`: its slope is at most
    /// waves × amplitude·√3 × wave number < 0.8, so sixty rounds leave less
    /// than 1e-5 of the first error even then, and far less in practice.
    pub(super) fn undo(&self, q: [f64; 3]) -> [f64; 3] {
        let mut p = q;
        for _ in 0..60 {
            let d = self.displacement(p);
            p = std::array::from_fn(|i| q[i] - d[i]);
        }
        p
    }

    fn displacement(&self, p: [f64; 3]) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for w in &self.waves {
            let angle = w.phase + w.number[0] * p[0] + w.number[1] * p[1] + w.number[2] * p[2];
            let height = angle.sin();
            for (total, amplitude) in sum.iter_mut().zip(w.amplitude) {
                *total += amplitude * height;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn undo_is_the_inverse() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for _ in 0..200 {
            let deformation = Deformation::random(&mut rng);
            let q = [-9.0, 15.0, 4.0];
            let p = deformation.undo(q);
            let back = deformation.apply(p);
            for i in 0..3 {
                assert!((back[i] - q[i]).abs() < 1e-6, "{back:?}");
            }
        }
    }
}
