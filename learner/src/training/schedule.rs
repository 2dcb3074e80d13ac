//! Schedules as pure functions of the number of updates done: a run that is slowed
//! down or resumed gets the same values.

use common::config::{LearnerConfig, ReplayConfig};

/// Learning rate of the next update after `updates` updates.
///
/// `lr_steps` holds (share of all updates, factor); the last one reached
/// multiplies `lr`. Factors do not multiply each other.
pub fn learning_rate(config: &LearnerConfig, updates: u64) -> f64 {
    let share = share(updates, config.updates);
    let mut reached = (f64::NEG_INFINITY, 1.0);
    for &(at, factor) in &config.lr_steps {
        if at <= share && at >= reached.0 {
            reached = (at, factor);
        }
    }
    config.lr * reached.1
}

/// Exponent of the importance weights: linear from `beta` at the first update
/// to `beta_final` at the last of `total` (Schaul et al. 2016).
pub fn beta(config: &ReplayConfig, updates: u64, total: u64) -> f64 {
    let share = share(updates, total.saturating_sub(1));
    config.beta + (config.beta_final - config.beta) * share
}

/// Completed share of the run, 0..=1.
fn share(updates: u64, total: u64) -> f64 {
    (updates as f64 / total.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Config;

    #[test]
    fn the_learning_rate_steps_down_by_share() {
        let mut c = Config::defaults().unwrap().learner;
        (c.updates, c.lr) = (1000, 1e-3);
        c.lr_steps = vec![(0.6, 0.3), (0.85, 0.1)];
        let table = [
            (0, 1e-3),
            (599, 1e-3),
            (600, 3e-4),
            (849, 3e-4),
            (850, 1e-4),
            (5000, 1e-4),
        ];
        for (updates, expected) in table {
            let found = learning_rate(&c, updates);
            assert!((found - expected).abs() < 1e-12, "{updates}: {found}");
        }
        // The order in the file does not matter; no steps, no change.
        c.lr_steps.reverse();
        assert!((learning_rate(&c, 900) - 1e-4).abs() < 1e-12);
        c.lr_steps.clear();
        assert!((learning_rate(&c, 900) - 1e-3).abs() < 1e-12);
    }

    #[test]
    fn beta_is_linear_from_the_first_to_the_last_update() {
        let mut r = Config::defaults().unwrap().replay;
        (r.beta, r.beta_final) = (0.4, 1.0);
        for (updates, expected) in [(0, 0.4), (5, 0.7), (10, 1.0), (99, 1.0)] {
            let found = beta(&r, updates, 11);
            assert!((found - expected).abs() < 1e-12, "{updates}: {found}");
        }
        // A run of at most one update has no slope.
        assert!((beta(&r, 0, 1) - 0.4).abs() < 1e-12);
        assert!((beta(&r, 0, 0) - 0.4).abs() < 1e-12);
    }
}
