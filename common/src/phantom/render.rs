//! Shades the voxels of a scene.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Scene;
use super::spec::{PhantomSpec, symmetric};
use crate::imaging::geometry::centre;

/// Grey value of the brightest tissue at the largest intensity scale.
const WHITE_LEVEL: f64 = 215.0;
/// Smallest intensity scale.
const DIMMEST: f64 = 0.55;
/// Largest gain or loss of the bias field along one axis.
const BIAS: f64 = 0.12;

/// The scanner's effects on a whole volume.
struct Scanner {
    gain: f64,
    /// Linear and quadratic terms over −1..1 across the volume.
    bias: [[f64; 2]; 3],
}

impl Scanner {
    fn random(rng: &mut impl Rng) -> Self {
        let gain = WHITE_LEVEL * (DIMMEST + (1.0 - DIMMEST) * rng.random::<f64>());
        let bias = std::array::from_fn(|_| std::array::from_fn(|_| symmetric(rng, BIAS)));
        Self { gain, bias }
    }

    fn gain_at(&self, centred: [f64; 3], half: [f64; 3]) -> f64 {
        let mut exponent = 0.0;
        for i in 0..3 {
            let q = centred[i] / half[i];
            exponent += self.bias[i][0] * q + self.bias[i][1] * q * q;
        }
        self.gain * exponent.exp()
    }
}

/// The voxels of a scene, x fastest.
///
/// Every slice has its own stream of random numbers, so the noise is the same
/// for any number of threads. Stream 0 belongs to the scene, 1 to the scanner.
pub(super) fn render(scene: &Scene, spec: &PhantomSpec, seed: u64) -> Vec<u8> {
    let [nx, ny, nz] = scene.dims;
    let scanner = Scanner::random(&mut stream(seed, 1));
    let mut voxels = vec![0_u8; nx * ny * nz];
    let slices = voxels.par_chunks_mut(nx * ny).enumerate();
    slices.for_each(|(z, slice)| {
        let mut rng = stream(seed, z as u64 + 2);
        shade_slice(scene, &scanner, spec.noise, z, slice, &mut rng);
    });
    voxels
}

fn shade_slice(
    scene: &Scene,
    scanner: &Scanner,
    noise: f64,
    z: usize,
    slice: &mut [u8],
    rng: &mut impl Rng,
) {
    let [nx, ny, _] = scene.dims;
    let half = centre(scene.dims);
    let edge = 1.0 / scene.pose.scale;
    for y in 0..ny {
        for x in 0..nx {
            let file_x = scene.orientation.file_x(x, nx);
            let centred = [x as f64 - half[0], y as f64 - half[1], z as f64 - half[2]];
            let point = scene.pose.to_anatomy(centred);
            let brightness = scene.anatomy.brightness(point, edge);
            let signal = brightness * scanner.gain_at(centred, half);
            // A float to integer cast saturates, as a scanner's converter does.
            slice[file_x + nx * y] = rician(signal, noise * scanner.gain, rng).round() as u8;
        }
    }
}

/// The magnitude of a signal with Gaussian noise in both its channels
/// (Gudbjartsson and Patz, Magn Reson Med 34, 1995).
fn rician(signal: f64, sigma: f64, rng: &mut impl Rng) -> f64 {
    // Box and Muller's method gives exactly the pair of normal numbers needed.
    let radius = sigma * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
    (signal + radius * cos).hypot(radius * sin)
}

fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}
