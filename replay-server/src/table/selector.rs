//! How rows are sampled: maps |TD error| to the weights in the tree.

use common::config::{ReplayConfig, SelectorConfig};
use rand::{Rng, RngExt as _};

/// How rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selector {
    /// Every row with equal probability, each draw independent.
    Uniform,
    /// In proportion to (min(|TD|, max) + epsilon)^alpha, stratified: draw `i`
    /// of `n` comes from the `i`-th of `n` equal parts of the priority sum (Schaul et
    /// al. 2016, arXiv 1511.05952, section 3.3 and appendix B.2.1).
    Prioritised {
        /// 0: uniform; 1: fully proportional.
        alpha: f64,
        /// Added to every |TD|, so that every row can be drawn.
        epsilon: f64,
        /// |TD| is clipped here, so that an outlier cannot dominate the table.
        max: f64,
    },
}

/// Invalid selector settings.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SelectorError {
    /// A setting is not a finite number within its range.
    #[error("{name} = {value} is not within {range}")]
    Setting {
        /// alpha, epsilon or `priority_max`.
        name: &'static str,
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Some priorities would be lost to rounding.
    #[error(
        "epsilon = {epsilon} is too small for alpha = {alpha} and priority_max = {max}: \
         rows without error would never be drawn; raise epsilon"
    )]
    Vanishing { alpha: f64, epsilon: f64, max: f64 },
}

impl From<&ReplayConfig> for Selector {
    fn from(replay: &ReplayConfig) -> Self {
        match replay.selector {
            SelectorConfig::Uniform => Self::Uniform,
            SelectorConfig::Prioritised => Self::Prioritised {
                alpha: replay.alpha,
                epsilon: replay.epsilon,
                max: replay.priority_max,
            },
        }
    }
}

impl Selector {
    /// A checked [`Selector::Prioritised`].
    pub fn prioritised(alpha: f64, epsilon: f64, max: f64) -> Result<Self, SelectorError> {
        let selector = Self::Prioritised {
            alpha,
            epsilon,
            max,
        };
        selector.check()?;
        Ok(selector)
    }

    /// Rejects settings under which weights are zero, infinite or NaN.
    pub fn check(self) -> Result<(), SelectorError> {
        let Self::Prioritised {
            alpha,
            epsilon,
            max,
        } = self
        else {
            return Ok(());
        };
        let setting = |name, value, range| Err(SelectorError::Setting { name, value, range });
        if !(0.0..=4.0).contains(&alpha) {
            return setting("alpha", alpha, "0..=4");
        }
        if !(epsilon > 0.0 && epsilon <= 1e6) {
            return setting("epsilon", epsilon, "0 (exclusive)..=1e6");
        }
        if !(max > 0.0 && max <= 1e12) {
            return setting("priority_max", max, "0 (exclusive)..=1e12");
        }
        // f64 has 53 bits: below this a row adds nothing to the sum of the others.
        if epsilon.powf(alpha) / (max + epsilon).powf(alpha) < 1e-15 {
            return Err(SelectorError::Vanishing {
                alpha,
                epsilon,
                max,
            });
        }
        Ok(())
    }

    /// The tree's weight of a row with this |TD error|; the exponent is applied here,
    /// once, and not when sampling.
    #[must_use]
    pub fn weight(self, td_error: f32) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Prioritised {
                alpha,
                epsilon,
                max,
            } => (f64::from(td_error).min(max) + epsilon).powf(alpha),
        }
    }

    /// The positions in 0..total of the draws of one sample.
    pub fn draws<R: Rng>(self, rows: usize, total: f64, rng: &mut R) -> impl Iterator<Item = f64> {
        (0..rows).map(move |i| {
            let random: f64 = rng.random();
            match self {
                Self::Uniform => random * total,
                Self::Prioritised { .. } => (i as f64 + random) / rows as f64 * total,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::sum_tree::SumTree;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn weights_are_clamped_and_raised_once() {
        let selector = Selector::prioritised(0.5, 0.25, 4.0).unwrap();
        assert_eq!(selector.weight(0.0), 0.5);
        assert_eq!(selector.weight(2.0), 1.5);
        assert_eq!(selector.weight(1e30), 4.25_f64.sqrt());
        assert_eq!(Selector::Uniform.weight(7.0), 1.0);
    }

    #[test]
    fn invalid_settings_are_refused_by_name() {
        for (alpha, epsilon, max, name) in [
            (f64::NAN, 0.1, 1.0, "alpha"),
            (-0.1, 0.1, 1.0, "alpha"),
            (0.6, 0.0, 1.0, "epsilon"),
            (0.6, f64::INFINITY, 1.0, "epsilon"),
            (0.6, 0.1, 0.0, "priority_max"),
            (0.6, 0.1, f64::NAN, "priority_max"),
            (4.0, 1e-9, 1e3, "raise epsilon"),
        ] {
            let refused = Selector::prioritised(alpha, epsilon, max);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(Selector::prioritised(0.0, 1e-6, 100.0).is_ok());
        assert!(Selector::prioritised(1.0, 1e-6, 100.0).is_ok());
    }

    /// Draws of `rounds` samples of 10, counted per slot.
    fn counts(selector: Selector, errors: &[f32], rounds: usize) -> (Vec<f64>, Vec<f64>) {
        let mut tree = SumTree::new(errors.len());
        for (slot, &error) in errors.iter().enumerate() {
            tree.set(slot, selector.weight(error)).unwrap();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut counts = vec![0.0; errors.len()];
        for _ in 0..rounds {
            for point in selector.draws(10, tree.total(), &mut rng) {
                counts[tree.find(point).unwrap()] += 1.0;
            }
        }
        let expected =
            (0..errors.len()).map(|slot| (10 * rounds) as f64 * tree.get(slot) / tree.total());
        (counts, expected.collect())
    }

    /// With independent draws the statistic has mean 15 and standard deviation
    /// 5.5 (chi-square, 15 degrees of freedom); 37.7 is its 99.9 % point.
    /// Stratified draws vary less. The seed is fixed: this passes always or
    /// never.
    #[test]
    fn frequencies_follow_the_weights() {
        let errors: Vec<f32> = (0..16_u8).map(|i| f32::from(i * i) / 8.0).collect();
        for selector in [
            Selector::Uniform,
            Selector::prioritised(0.6, 0.01, 20.0).unwrap(),
        ] {
            let (counts, expected) = counts(selector, &errors, 20_000);
            let pairs = counts.iter().zip(&expected);
            let statistic: f64 = pairs.map(|(c, e)| (c - e).powi(2) / e).sum();
            assert!(
                statistic < 37.7,
                "{selector:?}: chi-square {statistic}, {counts:?} for {expected:?}"
            );
        }
    }

    #[test]
    fn stratified_draws_take_one_from_each_part() {
        let selector = Selector::prioritised(1.0, 0.5, 1.0).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (i, point) in selector.draws(8, 80.0, &mut rng).enumerate() {
            assert_eq!((point / 10.0).floor(), i as f64);
        }
    }
}
