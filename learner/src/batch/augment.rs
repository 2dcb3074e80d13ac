//! Random intensity changes, drawn per row that is rendered for training.
//!
//! With v = byte / 255 and U uniform:
//! v^exp(U(±gamma)) · (1 + U(±contrast)) + U(±offset) + normal(0, noise),
//! clipped to 0..=1. All but the noise is one table of 256 numbers per row, the
//! same for its state and its bootstrap state: brightness must not change
//! during a transition. The noise is new for each frame.

use common::config::AugmentConfig;
use rand::Rng;

/// Length of the noise buffer that frames take a stretch of.
const NOISE_STARTS: usize = 1 << 16;

/// Draws looks and applies them to frames.
#[derive(Debug, Clone)]
pub struct Augmenter {
    config: AugmentConfig,
    /// Normals times σ; empty without noise.
    noise: Vec<f32>,
}

/// The intensity change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    table: [f32; 256],
    noise_seed: u64,
}

impl Augmenter {
    /// An augmenter for frames of `samples` samples. Draws the buffer of normals for
    /// its noise.
    pub fn new(config: &AugmentConfig, samples: usize, rng: &mut impl Rng) -> Self {
        let wanted = config.enabled && config.noise > 0.0;
        let count = if wanted { NOISE_STARTS + samples } else { 0 };
        let noise = (0..count)
            .map(|_| narrow(config.noise * normal(rng)))
            .collect();
        Self {
            config: config.clone(),
            noise,
        }
    }

    /// A look for one row; exactly byte / 255 if augmentation is off.
    pub fn draw(&self, rng: &mut impl Rng) -> Look {
        let c = &self.config;
        if !c.enabled {
            return Look {
                table: std::array::from_fn(plain),
                noise_seed: 0,
            };
        }
        let exponent = uniform(rng, c.gamma).exp();
        let factor = 1.0 + uniform(rng, c.contrast);
        let offset = uniform(rng, c.offset);
        let table = std::array::from_fn(|byte| {
            let v = f64::from(plain(byte));
            narrow((v.powf(exponent) * factor + offset).clamp(0.0, 1.0))
        });
        Look {
            table,
            noise_seed: rng.next_u64(),
        }
    }

    /// Applies the look to the bytes of the row's frame number `frame`; `out` has the
    /// same length.
    pub fn paint(&self, look: &Look, frame: u64, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(bytes.len(), out.len());
        let table = &look.table;
        if self.noise.len() <= bytes.len() {
            for (to, &byte) in out.iter_mut().zip(bytes) {
                *to = table[usize::from(byte)];
            }
            return;
        }
        let start = self.noise_start(look, frame, bytes.len());
        let noise = &self.noise[start..start + bytes.len()];
        for ((to, &byte), n) in out.iter_mut().zip(bytes).zip(noise) {
            *to = (table[usize::from(byte)] + n).clamp(0.0, 1.0);
        }
    }

    /// The buffer of normals times σ; empty without noise.
    pub fn noise(&self) -> &[f32] {
        &self.noise
    }

    /// Offset of a frame's noise in [`Augmenter::noise`].
    pub fn noise_start(&self, look: &Look, frame: u64, samples: usize) -> usize {
        let starts = self.noise.len().saturating_sub(samples).max(1) as u64;
        usize::try_from(scramble(look.noise_seed ^ frame) % starts).unwrap_or(0)
    }
}

impl Look {
    /// The value of each byte, before the noise.
    pub fn table(&self) -> &[f32; 256] {
        &self.table
    }
}

fn plain(byte: usize) -> f32 {
    byte as f32 / 255.0
}

fn narrow(v: f64) -> f32 {
    v as f32
}

/// Uniform within ±`width`.
fn uniform(rng: &mut impl Rng, width: f64) -> f64 {
    width * (2.0 * unit(rng) - 1.0)
}

/// Uniform in [0, 1).
fn unit(rng: &mut impl Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// Standard normal, Box and Muller 1958.
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(rng)).cos()
}

/// SplitMix64's output function (Steele et al. 2014).
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    fn config(gamma: f64, contrast: f64, offset: f64, noise: f64) -> AugmentConfig {
        AugmentConfig {
            enabled: true,
            gamma,
            contrast,
            offset,
            noise,
        }
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn all_bytes() -> Vec<u8> {
        (0..=255).collect()
    }

    fn painted(config: &AugmentConfig, seed: u64, frame: u64) -> Vec<f32> {
        let mut rng = rng(seed);
        let augmenter = Augmenter::new(config, 256, &mut rng);
        let look = augmenter.draw(&mut rng);
        let mut out = vec![9.0; 256];
        augmenter.paint(&look, frame, &all_bytes(), &mut out);
        out
    }

    #[test]
    fn without_augmentation_values_are_bytes_over_255() {
        let off = AugmentConfig {
            enabled: false,
            ..config(0.3, 0.2, 0.1, 0.03)
        };
        let expected: Vec<f32> = all_bytes().iter().map(|&b| f32::from(b) / 255.0).collect();
        assert_eq!(painted(&off, 1, 0), expected);
        // So does a look with all ranges zero, up to rounding.
        let none = painted(&config(0.0, 0.0, 0.0, 0.0), 1, 0);
        assert!(
            none.iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
    }

    #[test]
    fn each_change_stays_within_its_range() {
        for seed in 0..50 {
            let plain = |byte: usize| byte as f32 / 255.0;
            let gamma = painted(&config(0.3, 0.0, 0.0, 0.0), seed, 0);
            assert_eq!((gamma[0], gamma[255]), (0.0, 1.0));
            let exponent = f64::from(gamma[128]).ln() / f64::from(plain(128)).ln();
            assert!((0.74..=1.35).contains(&exponent), "{exponent}");
            let contrast = painted(&config(0.0, 0.2, 0.0, 0.0), seed, 0);
            assert!((0.8..=1.2).contains(&(contrast[100] / plain(100))));
            let offset = painted(&config(0.0, 0.0, 0.1, 0.0), seed, 0);
            assert!((offset[128] - plain(128)).abs() <= 0.1001);
            let all = painted(&config(0.3, 0.2, 0.1, 0.5), seed, 0);
            assert!(all.iter().all(|v| (0.0..=1.0).contains(v)));
        }
        let different = |c: &AugmentConfig| painted(c, 1, 0)[77] != painted(c, 2, 0)[77];
        assert!(different(&config(0.3, 0.0, 0.0, 0.0)) && different(&config(0.0, 0.2, 0.0, 0.0)));
    }

    #[test]
    fn noise_has_its_standard_deviation_and_is_new_for_each_frame() {
        let c = config(0.0, 0.0, 0.0, 0.03);
        let mut rng = rng(3);
        let augmenter = Augmenter::new(&c, 4096, &mut rng);
        let look = augmenter.draw(&mut rng);
        let grey = vec![128_u8; 4096];
        let frame = |number| {
            let mut out = vec![0.0; 4096];
            augmenter.paint(&look, number, &grey, &mut out);
            out
        };
        let (a, b) = (frame(0), frame(1));
        assert_ne!(a, b);
        assert_eq!(a, frame(0));
        for f in [a, b] {
            let mean = f.iter().sum::<f32>() / 4096.0;
            let var = f.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4096.0;
            assert!((mean - 128.0 / 255.0).abs() < 0.003, "{mean}");
            assert!((var.sqrt() - 0.03).abs() < 0.002, "{}", var.sqrt());
        }
    }

    #[test]
    fn equal_seeds_give_equal_frames() {
        let c = config(0.3, 0.2, 0.1, 0.03);
        assert_eq!(painted(&c, 5, 2), painted(&c, 5, 2));
        assert_ne!(painted(&c, 5, 2), painted(&c, 6, 2));
    }
}
