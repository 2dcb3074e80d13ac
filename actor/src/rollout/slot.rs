//! One environment slot: runs one episode after another and turns steps into rows.
//!
//! A row's priority needs the largest Q of its bootstrap state, which is known
//! one forward pass later: rows wait for it, and a finished episode stays for one
//! more pass ("closing") so that its last state is evaluated too.

use std::sync::Arc;

use common::environment::pose::Poses;
use common::environment::rules::{Coupling, Rules};
use common::environment::starts::TrainingStarts;
use common::environment::{End, EnvironmentState, Mode, Start, finest_step_mm};
use common::imaging::scan::Scan;
use common::transition::n_step::{AgentMove, NStep, OpenRow};
use common::transition::row::{Row, RowHeader};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::rollout::episodes::Assignment;
use crate::rollout::group::{Explore, Group, landmark};
use crate::rollout::policy::{QValues, View, greedy};

/// How one agent's episode ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpisodeEnd {
    /// Number of the scan in the manifest.
    pub scan: u16,
    pub agent: u16,
    /// Why it stopped.
    pub end: End,
    /// Distance (mm) of its prediction to its landmark.
    pub error_mm: f64,
    /// The same in finest steps.
    pub error_finest_steps: f64,
    /// Steps of the episode.
    pub steps: u16,
}

/// What all slots of an actor have in common.
#[derive(Debug)]
pub(crate) struct SlotRules {
    pub(crate) rules: Arc<Rules>,
    pub(crate) starts: TrainingStarts,
    pub(crate) poses: Poses,
    pub(crate) n_step: usize,
    pub(crate) gamma: f32,
    /// One row for all agents of a step, or one each.
    pub(crate) rows_together: bool,
    pub(crate) priority_max: f32,
}

/// Draws for a start at the group's scale, after which the scale is overridden;
/// only an agent whose landmark is missing ever needs that many.
const SAME_SCALE_DRAWS: usize = 64;

/// Draws for a pose that keeps all targets inside the volume, after which the scan
/// is used without a pose.
const POSE_DRAWS: usize = 8;

/// A row and the places of its agents in the group.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Waiting {
    open: OpenRow,
    first: usize,
}

/// The state of a slot that configuration and scans do not determine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SlotState {
    header: RowHeader,
    rng: ChaCha8Rng,
    environment: EnvironmentState,
    returns: Vec<NStep>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
pub(crate) struct Slot {
    header: RowHeader,
    rng: ChaCha8Rng,
    /// Final value of the exploration schedule.
    pub(crate) epsilon_last: f64,
    group: Group,
    returns: Vec<NStep>,
    waiting: Vec<Waiting>,
}

impl SlotRules {
    /// Rows that one step of so many agents becomes.
    fn rows(&self, agents: usize) -> usize {
        if self.rows_together { 1 } else { agents }
    }
}

impl Slot {
    /// `header` names actor, incarnation and slot.
    pub(crate) fn new(
        common: &SlotRules,
        header: RowHeader,
        epsilon_last: f64,
        mut rng: ChaCha8Rng,
        first: &Assignment,
        scans: &[Arc<Scan>],
    ) -> Self {
        let (group, pose) = begin(common, first, scans, &mut rng);
        let returns = NStep::new(common.n_step, common.gamma);
        Self {
            header: RowHeader {
                scan: first.scan,
                pose,
                ..header
            },
            rng,
            epsilon_last,
            returns: vec![returns; common.rows(group.agents().len())],
            group,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> SlotState {
        SlotState {
            header: self.header,
            rng: self.rng.clone(),
            environment: self.group.environment().state(),
            returns: self.returns.clone(),
            waiting: self.waiting.clone(),
        }
    }

    /// Restores a saved state; `None`, and no change, if it does not fit this
    /// run.
    pub(crate) fn restore(
        &mut self,
        common: &SlotRules,
        state: SlotState,
        scans: &[Arc<Scan>],
    ) -> Option<()> {
        let header = state.header;
        let scan = scans.get(usize::from(header.scan))?;
        let scan = match common.poses.get(header.pose, &scan.geometry) {
            Some(pose) => Arc::new(scan.posed(pose)),
            None => Arc::clone(scan),
        };
        let group = Group::from_state(&common.rules, scan, state.environment)?;
        let agents = group.agents().len();
        let own = |h: &RowHeader| (h.actor, h.incarnation, h.slot);
        let fits = own(&header) == own(&self.header)
            && state.returns.len() == common.rows(agents)
            && state.waiting.iter().all(|w| w.first < agents);
        fits.then(|| {
            self.header = header;
            self.rng = state.rng;
            self.group = group;
            self.returns = state.returns;
            self.waiting = state.waiting;
        })
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.group.view()
    }

    /// Whether the episode has ended and only its last state awaits evaluation.
    pub(crate) fn closing(&self) -> bool {
        self.group.environment().finished()
    }

    /// Starts the next episode, after all rows of the last one were emitted.
    pub(crate) fn restart(&mut self, common: &SlotRules, next: &Assignment, scans: &[Arc<Scan>]) {
        let mut header = self.header;
        header.episode = header.episode.wrapping_add(1);
        let (epsilon_last, rng) = (self.epsilon_last, self.rng.clone());
        *self = Self::new(common, header, epsilon_last, rng, next, scans);
    }

    /// Emits the rows that waited for the Q-values of the current state.
    pub(crate) fn settle(&mut self, common: &SlotRules, q: &[QValues], rows: &mut Vec<(Row, f32)>) {
        let next_max: Vec<f32> = q.iter().map(|q| greedy(q).1).collect();
        for Waiting { open, first } in self.waiting.drain(..) {
            let priority = open.priority(&next_max[first..]).min(common.priority_max);
            rows.push((open.row, priority));
        }
    }

    /// One move of the group; the steps become waiting rows.
    pub(crate) fn advance(
        &mut self,
        common: &SlotRules,
        q: &[QValues],
        epsilon: f64,
        weights_version: u64,
    ) {
        self.header.weights_version = weights_version;
        self.header.step = self.group.environment().steps();
        let rng = &mut self.rng;
        let moves = self.group.step(q, Some(Explore { epsilon, rng }));
        if common.rows_together {
            self.record(0, 0, moves, self.group.environment().finished());
            return;
        }
        for (i, one) in moves.into_iter().enumerate() {
            if one.outcome.active {
                self.record(i, i, vec![one], !self.group.environment().active(i));
            }
        }
    }

    fn record(&mut self, returns: usize, first: usize, moves: Vec<AgentMove>, last: bool) {
        let rows = self.returns[returns].push(self.header, moves, last);
        self.waiting
            .extend(rows.into_iter().map(|open| Waiting { open, first }));
    }

    /// How a finished episode ended, for every agent that had a target.
    pub(crate) fn ends(&self, common: &SlotRules) -> impl Iterator<Item = EpisodeEnd> {
        let environment = self.group.environment();
        let geometry = &environment.scan().geometry;
        let finest_mm = finest_step_mm(&common.rules, geometry.spacing_mm);
        (0..environment.agents()).filter_map(move |i| {
            let (prediction, end) = environment.prediction(i);
            let error_mm = geometry.distance_mm(prediction, environment.target(i)?);
            Some(EpisodeEnd {
                scan: self.header.scan,
                agent: environment.id(i),
                end: end?,
                error_mm,
                error_finest_steps: error_mm / finest_mm,
                steps: environment.steps(),
            })
        })
    }
}

/// Draws a pose that keeps the agents' landmarks inside the volume; returns the
/// posed scan and the number of the pose.
fn in_a_pose(
    poses: &Poses,
    scan: &Arc<Scan>,
    agents: &[u16],
    rng: &mut ChaCha8Rng,
) -> (Arc<Scan>, u32) {
    let known = |scan: &Scan, agent| landmark(scan, agent).is_some();
    for _ in 0..POSE_DRAWS {
        let number = poses.choose(rng);
        let Some(pose) = poses.get(number, &scan.geometry) else {
            break;
        };
        let posed = scan.posed(pose);
        if agents.iter().all(|&a| known(&posed, a) == known(scan, a)) {
            return (Arc::new(posed), number);
        }
    }
    (Arc::clone(scan), 0)
}

fn begin(
    common: &SlotRules,
    to: &Assignment,
    scans: &[Arc<Scan>],
    rng: &mut ChaCha8Rng,
) -> (Group, u32) {
    let scan = &scans[usize::from(to.scan)];
    let (scan, pose) = in_a_pose(&common.poses, scan, &to.agents, rng);
    let mut starts: Vec<Start> = Vec::with_capacity(to.agents.len());
    for &agent in &to.agents {
        let (target, dims) = (landmark(&scan, agent), scan.geometry.dims);
        let mut draw = || common.starts.draw(&common.rules, dims, target, rng);
        let mut start = draw();
        if let (Coupling::Shared, Some(first)) = (common.rules.coupling, starts.first()) {
            // A group that shares its scale begins at the first agent's.
            for _ in 0..SAME_SCALE_DRAWS {
                if start.scale == first.scale {
                    break;
                }
                start = draw();
            }
            start.scale = first.scale;
        }
        starts.push(start);
    }
    let agents = to.agents.clone();
    let group = Group::new(&common.rules, &scan, Mode::Train, agents, &starts);
    (group, pose)
}
