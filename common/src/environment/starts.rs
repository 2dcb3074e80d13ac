//! Start positions: the published protocols, and the mixture for training.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::environment::rules::Rules;
use crate::environment::{Start, nearest_voxel};

/// How training episodes begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingStarts {
    /// Part excluded at each side for uniform starts: 0.2 leaves the central 60 %.
    pub margin: f64,
    /// Share of episodes that begin near the target, at a scale drawn uniformly.
    pub near: f64,
    /// Half the side (voxels) of the cube around the target, per scale, coarse to fine.
    pub near_radius: Vec<f64>,
}

impl TrainingStarts {
    /// Draws one agent's start; `target` in voxels.
    pub fn draw(
        &self,
        rules: &Rules,
        dims: [usize; 3],
        target: Option<[f64; 3]>,
        rng: &mut impl Rng,
    ) -> Start {
        if let Some(target) = target
            && rng.random::<f64>() < self.near
        {
            let scale = rng.random_range(0..rules.scales.len());
            let radius = self.near_radius.get(scale).copied().unwrap_or(0.0);
            let offset = |t: f64, rng: &mut dyn Rng| t + radius * (2.0 * uniform(rng) - 1.0);
            let position = target.map(|t| offset(t, rng));
            return Start {
                position: nearest_voxel(position, dims),
                scale: u8::try_from(scale).unwrap_or(0),
            };
        }
        Start {
            position: uniform_voxel(dims, self.margin, rng),
            scale: 0,
        }
    }
}

/// Uniform in 0..1 with 53 bits, from any generator.
fn uniform(rng: &mut dyn Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A uniform voxel in the central part of a volume: `[m·dim, dim − m·dim)` per axis.
pub fn uniform_voxel(dims: [usize; 3], margin: f64, rng: &mut impl Rng) -> [i32; 3] {
    dims.map(|dim| {
        let margin = (dim as f64 * margin.clamp(0.0, 0.49)) as usize;
        let at = rng.random_range(margin..(dim - margin).max(margin + 1));
        i32::try_from(at).unwrap_or(i32::MAX)
    })
}

/// Start positions for evaluation: the same for every agent of a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationStarts {
    /// Uniform positions in the central part, from a seed.
    Random {
        /// Starts per scan.
        count: usize,
        /// Part excluded at each side; the published code uses 0.25.
        margin: f64,
    },
    /// Given fractions of the volume: voxel = ⌊fraction · (size − 1)⌋.
    Fractions(Vec<[f64; 3]>),
    /// The 19 points of the 2019 paper: {¼, ½, ¾}³ with at least one ½.
    Nineteen,
    /// All 27 points {¼, ½, ¾}³.
    TwentySeven,
}

impl EvaluationStarts {
    /// Start positions (voxel) for one scan.
    pub fn positions(&self, dims: [usize; 3], rng: &mut impl Rng) -> Vec<[i32; 3]> {
        match self {
            Self::Random { count, margin } => (0..*count)
                .map(|_| uniform_voxel(dims, *margin, rng))
                .collect(),
            _ => {
                let fractions = self.fractions().unwrap_or_default();
                fractions.iter().map(|f| fraction_voxel(*f, dims)).collect()
            }
        }
    }

    /// The starts as fractions of the volume, where they are defined that way.
    #[must_use]
    pub fn fractions(&self) -> Option<Vec<[f64; 3]>> {
        match self {
            Self::Random { .. } => None,
            Self::Fractions(list) => Some(list.clone()),
            Self::Nineteen => Some(grid(true)),
            Self::TwentySeven => Some(grid(false)),
        }
    }
}

/// {½, ¾, ¼}³, optionally only the points with at least one ½.
fn grid(with_half: bool) -> Vec<[f64; 3]> {
    let parts = [0.5, 0.75, 0.25];
    let mut points = Vec::new();
    for x in parts {
        for y in parts {
            for z in parts {
                let has_half = [x, y, z].iter().any(|f| (f - 0.5_f64).abs() < 1e-9);
                if has_half || !with_half {
                    points.push([x, y, z]);
                }
            }
        }
    }
    points
}

/// `int(fraction · (size − 1))` per axis, as rl-medical's fixed spawns.
#[must_use]
pub fn fraction_voxel(fraction: [f64; 3], dims: [usize; 3]) -> [i32; 3] {
    [0, 1, 2].map(|axis| {
        let last = dims[axis] as f64 - 1.0;
        // The published rule truncates.
        (fraction[axis].clamp(0.0, 1.0) * last) as i32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn protocols_have_their_counts_and_places() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let dims = [101, 51, 11];
        let all = EvaluationStarts::TwentySeven.positions(dims, &mut rng);
        let some = EvaluationStarts::Nineteen.positions(dims, &mut rng);
        assert_eq!((all.len(), some.len()), (27, 19));
        assert!(some.iter().all(|p| all.contains(p)));
        assert_eq!(some[0], [50, 25, 5]);
        assert!(!some.contains(&[25, 12, 2]) && all.contains(&[25, 12, 2]));
        let f = EvaluationStarts::Fractions(vec![[0.0, 1.0, 0.99]]);
        assert_eq!(f.positions(dims, &mut rng), [[0, 50, 9]]);
    }

    #[test]
    fn training_starts_stay_near_or_central() {
        let rules = Rules::standard();
        let starts = TrainingStarts {
            margin: 0.2,
            near: 0.5,
            near_radius: vec![40.0, 14.0, 6.0],
        };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (dims, target) = ([100, 100, 100], [50.0, 50.0, 95.0]);
        let mut near = 0;
        for _ in 0..2000 {
            let s = starts.draw(&rules, dims, Some(target), &mut rng);
            assert!(s.position.iter().all(|&v| (0..100).contains(&v)));
            if s.scale > 0 {
                let radius = starts.near_radius[usize::from(s.scale)] + 0.5;
                let off = |i: usize| (f64::from(s.position[i]) - target[i]).abs();
                assert!((0..3).all(|i| off(i) <= radius));
                near += 1;
            }
        }
        // Half are near, two thirds of those at the two finer scales: 667 ± 4 sigma.
        assert!((580..750).contains(&near), "{near}");
        let s = starts.draw(&rules, dims, None, &mut rng);
        assert!(s.scale == 0 && s.position.iter().all(|&v| (20..80).contains(&v)));
    }
}
