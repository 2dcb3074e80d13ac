//! An exponential moving average of the weights, used for acting, evaluation and weights files.
//!
//! Weights of Q-learning jump with each batch; their exponential average
//! (Polyak and Juditsky 1992) is more stable and finds the landmarks of unseen scans
//! better. At update t it keeps min(decay, (1 + t) / (10 + t)) of itself, so that
//! the untrained first weights fade quickly.

use model::{ModelError, Parameters};

/// Averaged weights and their decay.
#[derive(Debug)]
pub(crate) struct Ema {
    parameters: Parameters,
    decay: f64,
}

impl Ema {
    /// Starts at these weights. `decay` in 0..1; with 0 the average always equals the newest.
    pub(crate) fn new(start: &Parameters, decay: f64) -> Result<Self, ModelError> {
        let parameters = start.deep_clone(start.device())?;
        Ok(Self { parameters, decay })
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Adds the weights after `update` (from 1).
    pub(crate) fn follow(&mut self, online: &Parameters, update: u64) -> Result<(), ModelError> {
        let kept = kept(self.decay, update);
        if kept == 0.0 {
            // Copies exactly, without the rounding of an interpolation.
            return self.parameters.copy_from(online);
        }
        self.parameters.move_towards(online, 1.0 - kept)
    }

    pub(crate) fn restore(&mut self, saved: &Parameters) -> Result<(), ModelError> {
        self.parameters.copy_from(saved)
    }
}

/// The part of itself that the average keeps at an update.
fn kept(decay: f64, update: u64) -> f64 {
    let t = update as f64;
    decay.min((1.0 + t) / (10.0 + t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn parameters(value: f32) -> Parameters {
        Parameters::new(vec![("w".into(), Tensor::from_slice(&[value, -value]))])
    }

    fn first(ema: &Ema) -> f64 {
        ema.parameters().at(0).double_value(&[0])
    }

    #[test]
    fn it_follows_the_formula() {
        let mut ema = Ema::new(&parameters(1.0), 0.25).unwrap();
        let mut expected = 1.0;
        for (update, value) in [(1, 3.0_f32), (2, -2.0), (3, 5.0), (4, 0.5)] {
            ema.follow(&parameters(value), update).unwrap();
            let t = update as f64;
            let kept = f64::min(0.25, (1.0 + t) / (10.0 + t));
            expected = kept * expected + (1.0 - kept) * f64::from(value);
            assert!((first(&ema) - expected).abs() < 1e-6, "{update}");
        }
        // 2/11 and 3/12 at first, then the decay itself.
        assert!((kept(0.25, 1) - 2.0 / 11.0).abs() < 1e-12);
        assert!((kept(0.25, 1000) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn without_decay_it_equals_the_newest_weights_bit_for_bit() {
        let mut ema = Ema::new(&parameters(1.0), 0.0).unwrap();
        let newest = parameters(0.1);
        ema.follow(&newest, 1).unwrap();
        assert!(ema.parameters().at(0).equal(newest.at(0)));
        // A copy: later changes to `newest` do not affect it.
        let mut later = newest;
        later.move_towards(&parameters(9.0), 0.5).unwrap();
        assert!(!ema.parameters().at(0).equal(later.at(0)));
    }
}
