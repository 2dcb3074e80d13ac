//! The environment: a group of agents in one scan.
//!
//! Synchronous and deterministic: no clock, no randomness, no pixels. Windows
//! are rendered elsewhere from the [`FrameRef`]s that [`Environment::observation`]
//! names; start positions come from [`crate::environment::starts`].

pub mod pose;
mod posed;
pub mod position_history;
pub mod reward;
pub mod rules;
pub mod starts;
pub(crate) mod strided;
pub mod window;

mod state;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::environment::position_history::PositionHistory;
use crate::environment::reward::{Moved, REWARD_CLIP, TeamReward, rewards};
use crate::environment::rules::{Coupling, Rules, TargetRule, TruncationRule};
use crate::imaging::scan::Scan;
use crate::transition::row::FrameRef;

pub use state::EnvironmentState;
pub use step::step_rewards;

/// The six moves as (x, y, z) directions, numbered as in rl-medical:
/// up z+, forward y+, right x+, left x−, backward y−, down z−.
pub const ACTIONS: [[i32; 3]; 6] = [
    [0, 0, 1],
    [0, 1, 0],
    [1, 0, 0],
    [-1, 0, 0],
    [0, -1, 0],
    [0, 0, -1],
];

/// Reward of a move that the border blocked.
pub const BLOCKED_REWARD: f32 = -1.0;

/// Whether targets may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rewards and the target rule; an agent whose landmark is missing is frozen.
    Train,
    /// Targets are not used: an episode ends by oscillation or at the step cap.
    Evaluate,
}

/// Where an agent starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Voxel position in our volume.
    pub position: [i32; 3],
    /// Index into the rules' scales; 0 for every evaluation.
    pub scale: u8,
}

/// Why an agent stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It oscillated at the last scale.
    Oscillation,
    /// It reached the target (training only).
    Target,
    /// The step cap.
    Cap,
    /// Its landmark is missing in this scan (training only): it never moved.
    Missing,
}

/// What one step did to one agent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepResult {
    /// The agent moved in this step (it was not frozen before it).
    pub active: bool,
    /// The strategy's reward in the rules' unit, not clipped; −1 when
    /// blocked, 0 where no target is known.
    pub reward: f32,
    /// The team's share, computed from clipped rewards.
    pub team: f32,
    /// No bootstrap: discount 0.
    pub terminal: bool,
    /// The border blocked the move.
    pub blocked: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct AgentState {
    id: u16,
    target: Option<[f64; 3]>,
    position: [i32; 3],
    scale: u8,
    frames: VecDeque<FrameRef>,
    history: PositionHistory,
    end: Option<End>,
    prediction: [f64; 3],
    /// Endpoints of all scales but the last.
    scale_endpoints: Vec<[f64; 3]>,
}

/// A group of agents on one scan, from start to end.
#[derive(Debug, Clone)]
pub struct Environment {
    rules: Arc<Rules>,
    scan: Arc<Scan>,
    mode: Mode,
    agents: Vec<AgentState>,
    steps: u16,
    finished: bool,
}

/// What an agent sees: the last H frames, oldest first, and its scale.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observation {
    /// H frames, oldest first; those before the episode's first are invalid.
    pub frames: Vec<FrameRef>,
    /// Index into the rules' scales.
    pub scale: u8,
}

impl Environment {
    /// Places the agents `ids` (indices into the scan's landmarks) at `starts`.
    ///
    /// # Panics
    /// When `ids` and `starts` differ in length or a start has an unknown scale.
    #[must_use]
    pub fn new(
        rules: Arc<Rules>,
        scan: Arc<Scan>,
        mode: Mode,
        ids: &[u16],
        starts: &[Start],
    ) -> Self {
        assert_eq!(ids.len(), starts.len(), "one start per agent");
        let agents = ids
            .iter()
            .zip(starts)
            .map(|(&id, start)| AgentState::new(&rules, &scan, mode, id, *start))
            .collect::<Vec<_>>();
        let finished = agents.iter().all(|agent| agent.end.is_some());
        Self {
            rules,
            scan,
            mode,
            agents,
            steps: 0,
            finished,
        }
    }

    /// The scan that the agents move in.
    #[must_use]
    pub fn scan(&self) -> &Arc<Scan> {
        &self.scan
    }

    #[must_use]
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Id (landmark index, head) of the `i`-th agent.
    #[must_use]
    pub fn id(&self, i: usize) -> u16 {
        self.agents[i].id
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u16 {
        self.steps
    }

    /// True when no agent will move again.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Whether the `i`-th agent still moves.
    #[must_use]
    pub fn active(&self, i: usize) -> bool {
        !self.finished && self.agents[i].end.is_none()
    }

    /// Current voxel position of the `i`-th agent.
    #[must_use]
    pub fn position(&self, i: usize) -> [i32; 3] {
        self.agents[i].position
    }

    /// Target of the `i`-th agent (voxel), where the mode and the scan give one.
    #[must_use]
    pub fn target(&self, i: usize) -> Option<[f64; 3]> {
        self.agents[i].target
    }

    /// What the `i`-th agent sees.
    #[must_use]
    pub fn observation(&self, i: usize) -> Observation {
        let agent = &self.agents[i];
        Observation {
            frames: agent.frames.iter().copied().collect(),
            scale: agent.scale,
        }
    }

    /// Predicted position (voxel) of the `i`-th agent's landmark, and why the agent
    /// stopped; before that, its current position.
    #[must_use]
    pub fn prediction(&self, i: usize) -> ([f64; 3], Option<End>) {
        let agent = &self.agents[i];
        match agent.end {
            Some(_) => (agent.prediction, agent.end),
            None => (agent.position.map(f64::from), None),
        }
    }

    /// Endpoints (voxel) of the `i`-th agent's coarser scales, coarsest first: its
    /// prediction at each of them.
    #[must_use]
    pub fn scale_endpoints(&self, i: usize) -> &[[f64; 3]] {
        &self.agents[i].scale_endpoints
    }

    /// The optimal action: the largest decrease of the distance. `None` without a
    /// target.
    #[must_use]
    pub fn best_action(&self, i: usize) -> Option<u8> {
        let target = self.agents[i].target?;
        let gain = |action: &u8| {
            let (to, blocked) = self.moved(i, *action);
            if blocked {
                f64::NEG_INFINITY
            } else {
                -self.scan.geometry.distance_mm(to.map(f64::from), target)
            }
        };
        (0..6_u8).max_by(|a, b| gain(a).total_cmp(&gain(b)))
    }

    /// Moves every active agent by its action and applies the rules.
    ///
    /// `actions[i]` in 0..6 and `q_max[i]` (largest Q of the observation acted
    /// on, 0 for a random action, as in rl-medical) per agent; entries of
    /// frozen agents are ignored.
    ///
    /// # Panics
    /// When a slice does not hold one entry per agent.
    pub fn step(&mut self, actions: &[u8], q_max: &[f32]) -> Vec<StepResult> {
        assert!(actions.len() == self.agents.len() && q_max.len() == self.agents.len());
        let mut results = vec![StepResult::default(); self.agents.len()];
        if self.finished {
            return results;
        }
        self.steps += 1;
        let before: Vec<[i32; 3]> = self.agents.iter().map(|agent| agent.position).collect();
        for i in 0..self.agents.len() {
            if self.agents[i].end.is_none() {
                results[i] = self.move_one(i, actions[i], q_max[i]);
            }
        }
        self.reward(&before, &mut results);
        match self.rules.coupling {
            Coupling::Independent => self.end_each(&results),
            Coupling::Shared => self.end_together(&results),
        }
        self.cap();
        for (agent, result) in self.agents.iter_mut().zip(&mut results) {
            if result.active {
                agent.push_frame(&self.rules);
                let truncated = matches!(agent.end, Some(End::Oscillation | End::Cap));
                result.terminal |= truncated && self.rules.episode_end == TruncationRule::Terminal;
            }
        }
        self.finished |= self.agents.iter().all(|agent| agent.end.is_some());
        results
    }

    fn moved(&self, i: usize, action: u8) -> ([i32; 3], bool) {
        let (agent, dims) = (&self.agents[i], self.scan.geometry.dims);
        step::moved(&self.rules, dims, agent.position, agent.scale, action)
    }

    fn move_one(&mut self, i: usize, action: u8, q_max: f32) -> StepResult {
        let from = self.agents[i].position;
        let (to, blocked) = self.moved(i, action);
        let mut result = StepResult {
            active: true,
            blocked,
            ..StepResult::default()
        };
        let agent = &mut self.agents[i];
        agent.position = to;
        agent.history.push(to, q_max);
        if let Some(target) = agent.target.filter(|_| self.mode == Mode::Train) {
            let distance = |p: [i32; 3]| self.scan.geometry.distance_mm(p.map(f64::from), target);
            let finest_mm = finest_step_mm(&self.rules, self.scan.geometry.spacing_mm);
            result.terminal = match self.rules.target {
                TargetRule::Continue => false,
                TargetRule::Radius(steps) => distance(to) <= steps * finest_mm,
                TargetRule::LateMillimetres(mm) => distance(from) <= mm,
            };
        }
        result
    }

    /// Computes all rewards after every agent has moved.
    fn reward(&self, before: &[[i32; 3]], results: &mut [StepResult]) {
        let spacing = self.scan.geometry.spacing_mm;
        let mm = |p: [f64; 3]| std::array::from_fn(|i| p[i] * spacing[i]);
        let moved = |(agent, from): (&AgentState, &[i32; 3])| {
            Some(Moved {
                from: mm(from.map(f64::from)),
                to: mm(agent.position.map(f64::from)),
                target: mm(agent.target?),
            })
        };
        let moved: Vec<Option<Moved>> = self.agents.iter().zip(before).map(moved).collect();
        let unit = step::reward_unit_mm(&self.rules, spacing);
        let earned = rewards(self.rules.strategy, &moved);
        for (result, earned) in results.iter_mut().zip(earned).filter(|(r, _)| r.active) {
            result.reward = match result.blocked {
                true => BLOCKED_REWARD,
                false => (earned / unit) as f32,
            };
        }
        if self.rules.team == TeamReward::Mean {
            let clipped = |r: &StepResult| r.reward.clamp(-REWARD_CLIP, REWARD_CLIP);
            let all: Vec<f32> = results.iter().filter(|r| r.active).map(clipped).collect();
            let mean = all.iter().sum::<f32>() / all.len().max(1) as f32;
            for result in results.iter_mut().filter(|r| r.active) {
                result.team = mean;
            }
        }
    }

    /// Ends each agent independently: target, scale switch, oscillation.
    fn end_each(&mut self, results: &[StepResult]) {
        for (i, result) in results.iter().enumerate().filter(|(_, r)| r.active) {
            if result.terminal {
                self.agents[i].finish_here(End::Target);
            } else if self.agents[i].history.oscillates() {
                self.oscillated(i);
            }
        }
    }

    /// Ends all agents together: the episode ends when all are at their targets in
    /// one step; scales switch when all oscillate in one step.
    fn end_together(&mut self, results: &[StepResult]) {
        let moving: Vec<usize> = (0..results.len()).filter(|&i| results[i].active).collect();
        if moving.iter().all(|&i| results[i].terminal) {
            for &i in &moving {
                self.agents[i].finish_here(End::Target);
            }
        } else if moving.iter().all(|&i| self.agents[i].history.oscillates()) {
            for &i in &moving {
                self.oscillated(i);
            }
        }
    }

    fn oscillated(&mut self, i: usize) {
        let agent = &mut self.agents[i];
        let prediction = agent
            .history
            .terminal_position(self.rules.terminal_position);
        let prediction = prediction.unwrap_or_else(|| agent.position.map(f64::from));
        if usize::from(agent.scale) + 1 < self.rules.scales.len() {
            agent.scale += 1;
            agent.scale_endpoints.push(prediction);
            agent.history.clear();
            agent.position = nearest_voxel(prediction, self.scan.geometry.dims);
        } else {
            agent.finish(End::Oscillation, prediction);
        }
    }

    fn cap(&mut self) {
        if self.steps >= self.rules.max_steps {
            for agent in self.agents.iter_mut().filter(|agent| agent.end.is_none()) {
                agent.finish_here(End::Cap);
            }
        }
    }
}

impl AgentState {
    fn new(rules: &Rules, scan: &Scan, mode: Mode, id: u16, start: Start) -> Self {
        assert!(
            usize::from(start.scale) < rules.scales.len(),
            "a start names one of the scales"
        );
        let target = scan.landmarks.get(usize::from(id)).copied().flatten();
        let end = (mode == Mode::Train && target.is_none()).then_some(End::Missing);
        let mut agent = Self {
            id,
            target,
            position: start.position,
            scale: start.scale,
            frames: VecDeque::from(vec![FrameRef::default(); rules.history]),
            history: PositionHistory::new(rules),
            end,
            prediction: start.position.map(f64::from),
            scale_endpoints: Vec::new(),
        };
        agent.push_frame(rules);
        agent
    }

    fn finish(&mut self, end: End, prediction: [f64; 3]) {
        self.end = Some(end);
        self.prediction = prediction;
    }

    fn finish_here(&mut self, end: End) {
        self.finish(end, self.position.map(f64::from));
    }

    fn push_frame(&mut self, rules: &Rules) {
        self.frames.pop_front();
        let stride = rules.scales[usize::from(self.scale)].stride;
        let position = self.position.map(|v| i16::try_from(v).unwrap_or(i16::MAX));
        self.frames.push_back(FrameRef {
            position,
            stride,
            valid: true,
        });
    }
}

/// Length of the finest step in mm: its voxels times the mean spacing.
#[must_use]
pub fn finest_step_mm(rules: &Rules, spacing_mm: [f64; 3]) -> f64 {
    f64::from(rules.finest_step()) * spacing_mm.iter().sum::<f64>() / 3.0
}

/// The voxel nearest to a position, inside the volume.
#[must_use]
pub fn nearest_voxel(position: [f64; 3], dims: [usize; 3]) -> [i32; 3] {
    [0, 1, 2].map(|axis| {
        let last = i32::try_from(dims[axis]).unwrap_or(i32::MAX) - 1;
        position[axis].round().clamp(0.0, f64::from(last.max(0))) as i32
    })
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
