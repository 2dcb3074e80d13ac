//! Policies: Q-values for the agents' observations.

use std::sync::Arc;

use common::environment::Observation;
use common::imaging::scan::Scan;
use common::imaging::volume::VolumeChanged;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Q-values of the six actions, numbered as [`common::environment::ACTIONS`].
pub type QValues = [f32; 6];

/// The current observations of one group of agents.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The scan that they observe.
    pub scan: &'a Arc<Scan>,
    /// Their ids (landmark index, head).
    pub agents: &'a [u16],
    /// One observation per agent.
    pub observations: &'a [Observation],
}

/// Why Q-values cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The network or libtorch failed.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// No weights have been received yet.
    #[error("the policy has no weights yet")]
    NoWeights,
    /// The evaluation was stopped.
    #[error("stopped before the last episode ended")]
    Stopped,
    /// The network was built for other rules.
    #[error(
        "the weights are for another set-up: {field} is {found} in the network and {expected} in the configuration"
    )]
    Unfit {
        field: &'static str,
        /// In the configuration.
        expected: String,
        /// In the network.
        found: String,
    },
    /// A `commnet` received fewer agents than it has.
    #[error("a commnet needs all {expected} agents of a group in order, got agents {found:?}")]
    Group { expected: usize, found: Vec<u16> },
    /// The windows show other voxels than the scan's.
    #[error(transparent)]
    Volume(#[from] VolumeChanged),
    /// Training diverged.
    #[error(
        "weights version {version} give Q-values that are not finite: training has diverged; lower learner.lr and resume from an earlier checkpoint"
    )]
    NotFinite { version: u64 },
}

/// Computes Q-values. One call serves all groups that move.
pub trait Policy {
    /// Q-values for every agent of every view: the agents of the first view in
    /// order, then those of the second, and so on.
    ///
    /// # Errors
    /// When there are no weights, or they do not fit the views.
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError>;

    /// Version of the current weights; 0 without weights.
    fn weights_version(&self) -> u64 {
        0
    }
}

/// All Q-values are 0: the baseline that a learned policy must beat, and a way
/// to measure the cost of an environment step without a network.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroPolicy;

impl Policy for ZeroPolicy {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        Ok(vec![[0.0; 6]; count(views)])
    }
}

/// Q-values drawn uniformly from 0..1.
#[derive(Debug, Clone)]
pub struct RandomPolicy(ChaCha8Rng);

impl RandomPolicy {
    /// Equal seeds give equal Q-values.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Policy for RandomPolicy {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        Ok((0..count(views))
            .map(|_| [(); 6].map(|()| self.0.random()))
            .collect())
    }
}

fn count(views: &[View<'_>]) -> usize {
    views.iter().map(|v| v.agents.len()).sum()
}

/// The action of the largest Q-value, the first of equals, and that value.
#[must_use]
pub fn greedy(q: &QValues) -> (u8, f32) {
    let mut best = (0_u8, q[0]);
    for (action, &value) in (0..).zip(q).skip(1) {
        if value > best.1 {
            best = (action, value);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_actions_is_chosen() {
        assert_eq!(greedy(&[0.0; 6]), (0, 0.0));
        assert_eq!(greedy(&[-1.0, 2.0, 0.0, 2.0, 1.0, -3.0]), (1, 2.0));
        assert_eq!(greedy(&[-6.0, -5.0, -4.0, -3.0, -2.0, -1.0]), (5, -1.0));
    }
}
