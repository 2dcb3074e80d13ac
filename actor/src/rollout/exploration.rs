//! The schedule of the probability of a random action.

use common::config::Config;

/// Progress of the exploration schedule after this many of the learner's
/// updates: 0 at first, 1 from `actor.epsilon_decay · learner.updates` on.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "update counts are far below 2^52"
)]
pub fn progress(config: &Config, updates: u64) -> f64 {
    let decay = config.actor.epsilon_decay * config.learner.updates as f64;
    if decay > 0.0 {
        (updates as f64 / decay).min(1.0)
    } else {
        1.0
    }
}

/// Linear from `first` to `last` as `progress` goes from 0 to 1.
#[must_use]
pub fn epsilon(first: f64, last: f64, progress: f64) -> f64 {
    first + (last - first) * progress.clamp(0.0, 1.0)
}

/// Mean over slots with these last values.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "slot counts are far below 2^52")]
pub fn mean(first: f64, last: &[f32], progress: f64) -> f64 {
    let sum: f64 = last.iter().copied().map(f64::from).sum();
    epsilon(first, sum / last.len().max(1) as f64, progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_linear_and_then_flat() {
        let mut config = Config::defaults().unwrap();
        config.learner.updates = 1000;
        config.actor.epsilon_decay = 0.25;
        let table = [(0, 1.0), (125, 0.55), (250, 0.1), (900, 0.1)];
        for (updates, expected) in table {
            let e = epsilon(1.0, 0.1, progress(&config, updates));
            assert!((e - expected).abs() < 1e-12, "{updates}: {e}");
        }
        let mean = mean(1.0, &[0.0, 0.5], 0.5);
        assert!((mean - 0.625).abs() < 1e-12, "{mean}");
        config.actor.epsilon_decay = 0.0;
        assert_eq!(progress(&config, 0), 1.0);
    }
}
