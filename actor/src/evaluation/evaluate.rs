//! Greedy episodes in many scans at once: the rollout's stepping without
//! exploration or target.

use std::sync::Arc;

use common::environment::rules::Rules;
use common::environment::starts::EvaluationStarts;
use common::environment::{End, Mode, Start};
use common::imaging::geometry::distance_mm;
use common::imaging::scan::Scan;
use common::transition::n_step::AgentMove;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::evaluation::q_cache::QCache;
use crate::rollout::group::{Group, landmark};
use crate::rollout::policy::{Policy, PolicyError, QValues, View};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct Evaluation<'a> {
    pub scans: &'a [Arc<Scan>],
    /// Agents (landmark indices) to evaluate on each of them.
    pub agents: &'a [u16],
    /// Where episodes start.
    pub starts: &'a EvaluationStarts,
    /// The environment.
    pub rules: &'a Arc<Rules>,
    /// All agents of a scan move together from the same start, instead of
    /// each on its own: see [`crate::rollout::group::one_group`].
    pub together: bool,
    /// Seed of random starts. A scan's starts depend on it and the scan's
    /// content, not on which other scans are evaluated.
    pub seed: u64,
    /// Most observations per forward pass.
    pub batch: usize,
    /// Whether to keep every step.
    pub trajectories: bool,
}

/// One step of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrajectoryStep {
    /// Its position before the step (voxel).
    pub position: [i32; 3],
    /// Voxels between the samples of its window.
    pub stride: u8,
    /// Its action: an index into [`common::environment::ACTIONS`].
    pub action: u8,
    /// The Q-values of all actions.
    pub q: QValues,
    /// Its reward: the decrease of the distance in the rules' unit, −1 where
    /// the border blocked it, 0 where its landmark is not known.
    pub reward: f32,
}

/// One trajectory of one agent, from start to prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartResult {
    /// Index into the evaluated scans.
    pub scan: usize,
    /// The agent (landmark index).
    pub agent: u16,
    /// Which of the scan's starts.
    pub start_index: usize,
    /// Where it began (voxel).
    pub start: [i32; 3],
    /// The predicted landmark position (voxel).
    pub prediction: [f64; 3],
    /// Where its coarser scales ended (voxel), coarsest first.
    pub scale_endpoints: Vec<[f64; 3]>,
    /// Why it stopped.
    pub end: End,
    /// Steps until then.
    pub steps: u16,
    /// Distance (mm) to the landmark, where it is known.
    pub error_mm: Option<f64>,
    /// The same in voxels of our grid (Euclidean).
    pub error_voxels: Option<f64>,
    /// Every step from the start on, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trajectory: Option<Vec<TrajectoryStep>>,
}

/// Progress of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Agents' episodes that ended.
    pub done: usize,
    pub total: usize,
}

/// Distance in voxels of a grid.
pub(crate) fn distance_voxels(a: [f64; 3], b: [f64; 3]) -> f64 {
    distance_mm(a, b, [1.0; 3])
}

struct Task {
    scan: usize,
    start_index: usize,
    start: [i32; 3],
    agents: Vec<u16>,
}

struct Running {
    task: Task,
    group: Group,
    /// Per agent: the step of its end.
    ended: Vec<Option<u16>>,
    trajectories: Option<Vec<Vec<TrajectoryStep>>>,
}

/// Agents that move at the same time: many, so that agents that meet share cached
/// Q-values.
const AT_ONCE: usize = 1024;

/// Runs all requested episodes, up to `batch` observations per forward pass.
/// Q-values are cached, so a policy must be a function of scan, agents and
/// observations. Results are ordered by scan, start and agent.
///
/// # Errors
/// When the policy fails.
pub fn evaluate(
    policy: &mut impl Policy,
    evaluation: &Evaluation<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<StartResult>, PolicyError> {
    let tasks = tasks(evaluation);
    let total = tasks.iter().map(|t| t.agents.len()).sum();
    let at_once = (AT_ONCE / tasks.first().map_or(1, |t| t.agents.len().max(1))).max(1);
    let mut cache = QCache::default();
    let mut tasks = tasks.into_iter();
    let mut running: Vec<Running> = Vec::new();
    let mut results = Vec::with_capacity(total);
    loop {
        let new = tasks.by_ref().take(at_once - running.len());
        running.extend(new.map(|task| Running::new(evaluation, task)));
        if running.is_empty() {
            break;
        }
        cache.forget_before(running.iter().map(|r| r.task.scan).min().unwrap_or(0));
        let views: Vec<(usize, View<'_>)> = running
            .iter()
            .map(|r| (r.task.scan, r.group.view()))
            .collect();
        let q_values = cache.q_values(policy, &views, evaluation.batch)?;
        for (one, q) in running.iter_mut().zip(&q_values) {
            let moves = one.group.step(q, None);
            one.note(&moves, q);
        }
        let before = results.len();
        running.retain(|one| {
            let over = one.group.environment().finished();
            if over {
                results.extend(one.results(evaluation.scans));
            }
            !over
        });
        let done = results.len();
        if done > before {
            progress(Progress { done, total });
        }
    }
    results.sort_by_key(|r| (r.scan, r.start_index, r.agent));
    Ok(results)
}

fn trajectory_step(step: &AgentMove, q: QValues) -> Option<TrajectoryStep> {
    let seen = step.before.frames.last()?;
    Some(TrajectoryStep {
        position: seen.position.map(i32::from),
        stride: seen.stride,
        action: step.action,
        q,
        reward: step.outcome.reward,
    })
}

fn tasks(evaluation: &Evaluation<'_>) -> Vec<Task> {
    let all = evaluation.agents.len();
    let group = if evaluation.together { all.max(1) } else { 1 };
    let mut tasks = Vec::new();
    for (scan, held) in evaluation.scans.iter().enumerate() {
        let mut rng = starts_rng(evaluation.seed, held);
        let positions = evaluation.starts.positions(held.geometry.dims, &mut rng);
        for (start_index, start) in positions.into_iter().enumerate() {
            let task = |agents: &[u16]| Task {
                scan,
                start_index,
                start,
                agents: agents.to_vec(),
            };
            tasks.extend(evaluation.agents.chunks(group).map(task));
        }
    }
    tasks
}

fn starts_rng(seed: u64, scan: &Scan) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..24].copy_from_slice(&scan.hash[..16]);
    key[24..].copy_from_slice(b"evaluate");
    ChaCha8Rng::from_seed(key)
}

impl Running {
    fn new(evaluation: &Evaluation<'_>, task: Task) -> Self {
        let (position, scale, count) = (task.start, 0, task.agents.len());
        let starts = vec![Start { position, scale }; count];
        let (rules, scan) = (evaluation.rules, &evaluation.scans[task.scan]);
        Self {
            group: Group::new(rules, scan, Mode::Evaluate, task.agents.clone(), &starts),
            ended: vec![None; count],
            trajectories: evaluation.trajectories.then(|| vec![Vec::new(); count]),
            task,
        }
    }

    /// Records a step, and which agents ended with it.
    fn note(&mut self, moves: &[AgentMove], q: &[QValues]) {
        let environment = self.group.environment();
        for i in 0..environment.agents() {
            if self.ended[i].is_some() {
                continue;
            }
            if let Some(trajectories) = &mut self.trajectories {
                trajectories[i].extend(trajectory_step(&moves[i], q[i]));
            }
            if !environment.active(i) {
                self.ended[i] = Some(environment.steps());
            }
        }
    }

    fn results<'a>(&'a self, scans: &'a [Arc<Scan>]) -> impl Iterator<Item = StartResult> + 'a {
        let scan = &scans[self.task.scan];
        self.task.agents.iter().enumerate().map(move |(i, &agent)| {
            let environment = self.group.environment();
            let (prediction, end) = environment.prediction(i);
            let target = landmark(scan, agent);
            StartResult {
                scan: self.task.scan,
                agent,
                start_index: self.task.start_index,
                start: self.task.start,
                prediction,
                scale_endpoints: environment.scale_endpoints(i).to_vec(),
                end: end.unwrap_or(End::Cap),
                steps: self.ended[i].unwrap_or_else(|| environment.steps()),
                error_mm: target.map(|t| scan.geometry.distance_mm(prediction, t)),
                error_voxels: target.map(|t| distance_voxels(prediction, t)),
                trajectory: self.trajectories.as_ref().map(|all| all[i].clone()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
