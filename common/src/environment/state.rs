//! An environment as data, so that a run stopped in the middle of it can resume.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AgentState, Environment, Mode};
use crate::environment::position_history::PositionHistory;
use crate::environment::rules::Rules;
use crate::imaging::scan::Scan;

/// The state of an environment without its rules and its scan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentState {
    agents: Vec<AgentState>,
    steps: u16,
    finished: bool,
}

impl EnvironmentState {
    /// Ids of the agents, in the order of the environment.
    #[must_use]
    pub fn ids(&self) -> Vec<u16> {
        self.agents.iter().map(|agent| agent.id).collect()
    }
}

impl Environment {
    /// The current state of the environment.
    #[must_use]
    pub fn state(&self) -> EnvironmentState {
        EnvironmentState {
            agents: self.agents.clone(),
            steps: self.steps,
            finished: self.finished,
        }
    }

    /// Restores an environment; `None` for a state that these rules and this scan cannot
    /// reach.
    #[must_use]
    pub fn from_state(
        rules: Arc<Rules>,
        scan: Arc<Scan>,
        mode: Mode,
        state: EnvironmentState,
    ) -> Option<Self> {
        let possible = state.agents.iter().all(|agent| agent.fits(&rules, &scan));
        possible.then_some(Self {
            rules,
            scan,
            mode,
            agents: state.agents,
            steps: state.steps,
            finished: state.finished,
        })
    }
}

impl AgentState {
    fn fits(&self, rules: &Rules, scan: &Scan) -> bool {
        let mut axes = self.position.iter().zip(scan.geometry.dims);
        let inside = axes.all(|(&p, dim)| usize::try_from(p).is_ok_and(|p| p < dim));
        let target = scan.landmarks.get(usize::from(self.id)).copied().flatten();
        inside
            && usize::from(self.scale) < rules.scales.len()
            && self.frames.len() == rules.history
            && self.history.same_test(&PositionHistory::new(rules))
            && self.target == target
    }
}
