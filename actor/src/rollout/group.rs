//! A group of agents on one scan and its next move: what training and
//! evaluation share.

use std::sync::Arc;

use common::environment::rules::Rules;
use common::environment::{Environment, EnvironmentState, Mode, Observation, Start, StepResult};
use common::imaging::scan::Scan;
use common::transition::n_step::AgentMove;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::rollout::policy::{QValues, View, greedy};

/// Whether all agents of a scan move as one group: if they share a scale and an
/// end, a reward, or a network that exchanges information between them.
#[must_use]
pub fn one_group(rules: &Rules, commnet: bool) -> bool {
    commnet || rules.together()
}

/// Where the scan shows an agent's landmark (voxel).
pub(crate) fn landmark(scan: &Scan, agent: u16) -> Option<[f64; 3]> {
    scan.landmarks.get(usize::from(agent)).copied().flatten()
}

/// Epsilon-greedy exploration.
#[derive(Debug)]
pub(crate) struct Explore<'a> {
    /// Probability of a random action, one coin per agent and step.
    pub(crate) epsilon: f64,
    pub(crate) rng: &'a mut ChaCha8Rng,
}

impl Explore<'_> {
    fn draw(&mut self) -> Option<u8> {
        (self.rng.random::<f64>() < self.epsilon).then(|| self.rng.random_range(0..6))
    }
}

/// An episode with its agents' current observations.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    environment: Environment,
    agents: Vec<u16>,
    observations: Vec<Observation>,
}

impl Group {
    pub(crate) fn new(
        rules: &Arc<Rules>,
        scan: &Arc<Scan>,
        mode: Mode,
        agents: Vec<u16>,
        starts: &[Start],
    ) -> Self {
        let (rules, scan) = (Arc::clone(rules), Arc::clone(scan));
        Self::of(Environment::new(rules, scan, mode, &agents, starts), agents)
    }

    /// Restores a group in training; `None` if the state does not fit the rules and the scan.
    pub(crate) fn from_state(
        rules: &Arc<Rules>,
        scan: Arc<Scan>,
        state: EnvironmentState,
    ) -> Option<Self> {
        let agents = state.ids();
        let environment = Environment::from_state(Arc::clone(rules), scan, Mode::Train, state)?;
        Some(Self::of(environment, agents))
    }

    fn of(environment: Environment, agents: Vec<u16>) -> Self {
        let observations = (0..agents.len()).map(|i| environment.observation(i));
        Self {
            observations: observations.collect(),
            environment,
            agents,
        }
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn agents(&self) -> &[u16] {
        &self.agents
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            scan: self.environment.scan(),
            agents: &self.agents,
            observations: &self.observations,
        }
    }

    /// Moves every active agent: by the largest of its Q-values, or at random.
    /// One [`AgentMove`] per agent, frozen ones with an inactive result.
    pub(crate) fn step(
        &mut self,
        q: &[QValues],
        mut explore: Option<Explore<'_>>,
    ) -> Vec<AgentMove> {
        let mut actions = Vec::with_capacity(self.agents.len());
        let mut q_max = Vec::with_capacity(self.agents.len());
        for (i, q) in q.iter().enumerate() {
            let explore = explore.as_mut().filter(|_| self.environment.active(i));
            let random = explore.and_then(Explore::draw);
            // A random action records a largest Q of 0, as in rl-medical.
            let (action, largest) = random.map_or_else(|| greedy(q), |action| (action, 0.0));
            actions.push(action);
            q_max.push(largest);
        }
        let results = self.environment.step(&actions, &q_max);
        let record = |(i, result): (usize, _)| self.record(i, actions[i], result, &q[i]);
        results.into_iter().enumerate().map(record).collect()
    }

    fn record(&mut self, i: usize, action: u8, result: StepResult, q: &QValues) -> AgentMove {
        let before = if result.active {
            std::mem::replace(&mut self.observations[i], self.environment.observation(i))
        } else {
            self.observations[i].clone()
        };
        AgentMove {
            agent: self.agents[i],
            before,
            action,
            outcome: result,
            after: self.observations[i].clone(),
            q_chosen: q[usize::from(action)],
        }
    }
}
