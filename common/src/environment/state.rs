//! A walk as data, so that a run stopped in the middle of it can resume.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Mode, Walk, Walker};
use crate::environment::position_history::Trail;
use crate::environment::rules::Rules;
use crate::imaging::scan::Scan;

/// The state of a walk without its rules and its scan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WalkState {
    walkers: Vec<Walker>,
    steps: u16,
    finished: bool,
}

impl WalkState {
    /// Ids of the agents, in the order of the walk.
    #[must_use]
    pub fn ids(&self) -> Vec<u16> {
        self.walkers.iter().map(|w| w.id).collect()
    }
}

impl Walk {
    /// The current state of the walk.
    #[must_use]
    pub fn state(&self) -> WalkState {
        WalkState {
            walkers: self.walkers.clone(),
            steps: self.steps,
            finished: self.finished,
        }
    }

    /// Restores a walk; `None` for a state that these rules and this scan cannot
    /// reach.
    #[must_use]
    pub fn from_state(
        rules: Arc<Rules>,
        scan: Arc<Scan>,
        mode: Mode,
        state: WalkState,
    ) -> Option<Self> {
        let possible = state.walkers.iter().all(|w| w.fits(&rules, &scan));
        possible.then_some(Self {
            rules,
            scan,
            mode,
            walkers: state.walkers,
            steps: state.steps,
            finished: state.finished,
        })
    }
}

impl Walker {
    fn fits(&self, rules: &Rules, scan: &Scan) -> bool {
        let inside = self
            .position
            .iter()
            .zip(scan.geometry.dims)
            .all(|(&p, dim)| usize::try_from(p).is_ok_and(|p| p < dim));
        let target = scan.landmarks.get(usize::from(self.id)).copied().flatten();
        inside
            && usize::from(self.scale) < rules.scales.len()
            && self.frames.len() == rules.history
            && self.trail.same_test(&Trail::new(rules))
            && self.target == target
    }
}
