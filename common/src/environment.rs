//! The environment: a group of agents walking through one scan.
//!
//! Synchronous and deterministic: no clock, no randomness, no pixels. Windows
//! are rendered elsewhere from the [`FrameRef`]s that [`Walk::observation`]
//! names; start positions come from [`crate::environment::starts`].

pub mod pose;
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

use crate::environment::position_history::Trail;
use crate::environment::reward::REWARD_CLIP;
use crate::environment::reward::{Moved, TeamReward, rewards};
use crate::environment::rules::{Coupling, CutRule, Rules, TargetRule};
use crate::imaging::scan::Scan;
use crate::transition::row::FrameRef;

pub use state::WalkState;
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
    /// Targets are not used: a walk ends by oscillation or at the cap.
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
pub struct Outcome {
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
struct Walker {
    id: u16,
    target: Option<[f64; 3]>,
    position: [i32; 3],
    scale: u8,
    frames: VecDeque<FrameRef>,
    trail: Trail,
    end: Option<End>,
    answer: [f64; 3],
    /// Endpoints of all scales but the last.
    stops: Vec<[f64; 3]>,
}

/// A group of agents on one scan, from start to end.
#[derive(Debug, Clone)]
pub struct Walk {
    rules: Arc<Rules>,
    scan: Arc<Scan>,
    mode: Mode,
    walkers: Vec<Walker>,
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

impl Walk {
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
        let walkers = ids
            .iter()
            .zip(starts)
            .map(|(&id, start)| Walker::new(&rules, &scan, mode, id, *start))
            .collect::<Vec<_>>();
        let finished = walkers.iter().all(|w| w.end.is_some());
        Self {
            rules,
            scan,
            mode,
            walkers,
            steps: 0,
            finished,
        }
    }

    /// The scan walked through.
    #[must_use]
    pub fn scan(&self) -> &Arc<Scan> {
        &self.scan
    }

    #[must_use]
    pub fn agents(&self) -> usize {
        self.walkers.len()
    }

    /// Id (landmark index, head) of the `i`-th agent.
    #[must_use]
    pub fn id(&self, i: usize) -> u16 {
        self.walkers[i].id
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
        !self.finished && self.walkers[i].end.is_none()
    }

    /// Current voxel position of the `i`-th agent.
    #[must_use]
    pub fn position(&self, i: usize) -> [i32; 3] {
        self.walkers[i].position
    }

    /// Target of the `i`-th agent (voxel), where the mode and the scan give one.
    #[must_use]
    pub fn target(&self, i: usize) -> Option<[f64; 3]> {
        self.walkers[i].target
    }

    /// What the `i`-th agent sees.
    #[must_use]
    pub fn observation(&self, i: usize) -> Observation {
        let w = &self.walkers[i];
        Observation {
            frames: w.frames.iter().copied().collect(),
            scale: w.scale,
        }
    }

    /// Predicted position (voxel) of the `i`-th agent's landmark, and why the agent
    /// stopped; before that, its current position.
    #[must_use]
    pub fn answer(&self, i: usize) -> ([f64; 3], Option<End>) {
        let w = &self.walkers[i];
        if w.end.is_some() {
            (w.answer, w.end)
        } else {
            (w.position.map(f64::from), None)
        }
    }

    /// Endpoints (voxel) of the `i`-th agent's coarser scales, coarsest first: its
    /// prediction at each of them.
    #[must_use]
    pub fn stops(&self, i: usize) -> &[[f64; 3]] {
        &self.walkers[i].stops
    }

    /// The optimal action: the largest decrease of the distance. `None` without a
    /// target.
    #[must_use]
    pub fn best_action(&self, i: usize) -> Option<u8> {
        let target = self.walkers[i].target?;
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
    pub fn step(&mut self, actions: &[u8], q_max: &[f32]) -> Vec<Outcome> {
        assert!(actions.len() == self.walkers.len() && q_max.len() == self.walkers.len());
        let mut outcomes = vec![Outcome::default(); self.walkers.len()];
        if self.finished {
            return outcomes;
        }
        self.steps += 1;
        let before: Vec<[i32; 3]> = self.walkers.iter().map(|w| w.position).collect();
        for i in 0..self.walkers.len() {
            if self.walkers[i].end.is_none() {
                outcomes[i] = self.move_one(i, actions[i], q_max[i]);
            }
        }
        self.reward(&before, &mut outcomes);
        match self.rules.coupling {
            Coupling::Independent => self.end_each(&outcomes),
            Coupling::Shared => self.end_together(&outcomes),
        }
        self.cap();
        for (w, outcome) in self.walkers.iter_mut().zip(&mut outcomes) {
            if outcome.active {
                w.push_frame(&self.rules);
                let cut = matches!(w.end, Some(End::Oscillation | End::Cap));
                outcome.terminal |= cut && self.rules.episode_end == CutRule::Terminal;
            }
        }
        self.finished |= self.walkers.iter().all(|w| w.end.is_some());
        outcomes
    }

    fn moved(&self, i: usize, action: u8) -> ([i32; 3], bool) {
        let (w, dims) = (&self.walkers[i], self.scan.geometry.dims);
        step::moved(&self.rules, dims, w.position, w.scale, action)
    }

    fn move_one(&mut self, i: usize, action: u8, q_max: f32) -> Outcome {
        let from = self.walkers[i].position;
        let (to, blocked) = self.moved(i, action);
        let mut outcome = Outcome {
            active: true,
            blocked,
            ..Outcome::default()
        };
        let w = &mut self.walkers[i];
        w.position = to;
        w.trail.push(to, q_max);
        if let Some(target) = w.target.filter(|_| self.mode == Mode::Train) {
            let distance = |p: [i32; 3]| self.scan.geometry.distance_mm(p.map(f64::from), target);
            let finest_mm = finest_step_mm(&self.rules, self.scan.geometry.spacing_mm);
            outcome.terminal = match self.rules.target {
                TargetRule::Continue => false,
                TargetRule::Radius(steps) => distance(to) <= steps * finest_mm,
                TargetRule::LateMillimetres(mm) => distance(from) <= mm,
            };
        }
        outcome
    }

    /// Computes all rewards after every agent has moved.
    fn reward(&self, before: &[[i32; 3]], outcomes: &mut [Outcome]) {
        let spacing = self.scan.geometry.spacing_mm;
        let mm = |p: [f64; 3]| std::array::from_fn(|i| p[i] * spacing[i]);
        let moved = |(w, from): (&Walker, &[i32; 3])| {
            Some(Moved {
                from: mm(from.map(f64::from)),
                to: mm(w.position.map(f64::from)),
                target: mm(w.target?),
            })
        };
        let moved: Vec<Option<Moved>> = self.walkers.iter().zip(before).map(moved).collect();
        let unit = step::reward_unit_mm(&self.rules, spacing);
        let earned = rewards(self.rules.strategy, &moved);
        for (outcome, earned) in outcomes.iter_mut().zip(earned).filter(|(o, _)| o.active) {
            #[expect(clippy::cast_possible_truncation, reason = "a reward of a few units")]
            let earned = (earned / unit) as f32;
            outcome.reward = if outcome.blocked {
                BLOCKED_REWARD
            } else {
                earned
            };
        }
        if self.rules.team == TeamReward::Mean {
            let clipped = |o: &Outcome| o.reward.clamp(-REWARD_CLIP, REWARD_CLIP);
            let all: Vec<f32> = outcomes.iter().filter(|o| o.active).map(clipped).collect();
            #[expect(clippy::cast_precision_loss, reason = "a handful of agents")]
            let mean = all.iter().sum::<f32>() / all.len().max(1) as f32;
            outcomes
                .iter_mut()
                .filter(|o| o.active)
                .for_each(|o| o.team = mean);
        }
    }

    /// Ends each agent independently: target, scale switch, oscillation.
    fn end_each(&mut self, outcomes: &[Outcome]) {
        for (i, outcome) in outcomes.iter().enumerate().filter(|(_, o)| o.active) {
            if outcome.terminal {
                let w = &mut self.walkers[i];
                w.finish(End::Target, w.position.map(f64::from));
            } else if self.walkers[i].trail.oscillates() {
                self.oscillated(i);
            }
        }
    }

    /// Ends all agents together: the episode ends when all are at their targets in
    /// one step; scales switch when all oscillate in one step.
    fn end_together(&mut self, outcomes: &[Outcome]) {
        let moving: Vec<usize> = (0..outcomes.len())
            .filter(|&i| outcomes[i].active)
            .collect();
        if moving.iter().all(|&i| outcomes[i].terminal) {
            for &i in &moving {
                let w = &mut self.walkers[i];
                w.finish(End::Target, w.position.map(f64::from));
            }
        } else if moving.iter().all(|&i| self.walkers[i].trail.oscillates()) {
            for &i in &moving {
                self.oscillated(i);
            }
        }
    }

    fn oscillated(&mut self, i: usize) {
        let rules = Arc::clone(&self.rules);
        let dims = self.scan.geometry.dims;
        let w = &mut self.walkers[i];
        let answer = w
            .trail
            .answer(rules.terminal_position)
            .unwrap_or_else(|| w.position.map(f64::from));
        if usize::from(w.scale) + 1 < rules.scales.len() {
            w.scale += 1;
            w.stops.push(answer);
            w.trail.clear();
            w.position = nearest_voxel(answer, dims);
        } else {
            w.finish(End::Oscillation, answer);
        }
    }

    fn cap(&mut self) {
        if self.steps >= self.rules.max_steps {
            for w in self.walkers.iter_mut().filter(|w| w.end.is_none()) {
                w.finish(End::Cap, w.position.map(f64::from));
            }
        }
    }
}

impl Walker {
    fn new(rules: &Rules, scan: &Scan, mode: Mode, id: u16, start: Start) -> Self {
        assert!(
            usize::from(start.scale) < rules.scales.len(),
            "a start names one of the scales"
        );
        let target = scan.landmarks.get(usize::from(id)).copied().flatten();
        let end = (mode == Mode::Train && target.is_none()).then_some(End::Missing);
        let mut walker = Self {
            id,
            target,
            position: start.position,
            scale: start.scale,
            frames: VecDeque::from(vec![FrameRef::default(); rules.history]),
            trail: Trail::new(rules),
            end,
            answer: start.position.map(f64::from),
            stops: Vec::new(),
        };
        walker.push_frame(rules);
        walker
    }

    fn finish(&mut self, end: End, answer: [f64; 3]) {
        self.end = Some(end);
        self.answer = answer;
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
    let mut voxel = [0; 3];
    for axis in 0..3 {
        let last = i32::try_from(dims[axis]).unwrap_or(i32::MAX) - 1;
        #[expect(clippy::cast_possible_truncation, reason = "clamped to the volume")]
        let nearest = position[axis].round().clamp(0.0, f64::from(last.max(0))) as i32;
        voxel[axis] = nearest;
    }
    voxel
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
