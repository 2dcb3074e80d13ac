//! Replicas: threads that each compute the gradients of a part of one batch.
//!
//! On CPUs one libtorch thread per part beats several threads per operation:
//! parts meet once per update instead of at every operation, and nothing spins
//! while actors use the same cores. Parts are summed in a fixed order, so an
//! update depends on the number of replicas but not on their timing.

use std::ops::Range;

use common::transition::n_step::combine_priorities;
use model::kernels::gradients::Differentiable;
use model::{HeadPlan, ModelError, Network, NetworkKind};
use tch::{Device, Tensor};

use crate::batch::Batch;
use crate::batch::device_windows::{DeviceWindows, Windows};
use crate::training::loss;
use crate::training::targets::RewardTargets;

/// Networks that share their weights with the trainer's, if on the same device.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) online: Network,
    pub(crate) target: Network,
    /// Renders batches without windows.
    pub(crate) windows: Option<DeviceWindows>,
}

/// Results of one part's rows.
#[derive(Debug)]
pub(crate) struct Part {
    /// The part's share of the batch's loss.
    pub(crate) loss: f64,
    /// Gradients of that share, in parameter order.
    pub(crate) gradients: Vec<Tensor>,
    /// New priority of each row.
    pub(crate) td_errors: Vec<f32>,
    /// Sum over all entries of the Q-values of the actions taken.
    pub(crate) q_sum: f64,
}

/// `count` nearly equal ranges of `rows`, none empty.
pub(crate) fn split(rows: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.clamp(1, rows.max(1));
    (0..count)
        .map(|i| i * rows / count..(i + 1) * rows / count)
        .collect()
}

impl Replica {
    /// Loss and gradients of the rows `rows`, where the whole batch has
    /// `active_total` active entries.
    pub(crate) fn compute(
        &self,
        batch: &Batch,
        rows: &Range<usize>,
        active_total: f64,
        double: bool,
    ) -> Result<Part, ModelError> {
        let input = Input::new(batch, rows, self)?;
        let target = tch::no_grad(|| self.targets(&input, double))?;
        let forward = input.differentiable(&self.online)?;
        let q = input.own(forward.q())?;
        let out = loss::huber(&q, &input.action, &target, &input.active, &input.weight)?;
        // The loss is a mean over this part's active entries; the batch's mean
        // is the mean of the parts weighted by their counts. Counted on the CPU,
        // because reading a number from a GPU waits for it.
        let entries = rows.start * batch.agents..rows.end * batch.agents;
        let active: f64 = batch.active[entries].iter().map(|a| f64::from(*a)).sum();
        let loss = match &input.reward_targets {
            Some((reward, weight)) => {
                loss::known(forward.q(), reward, weight)?.f_div_scalar(active_total.max(1.0))?
            }
            None => out.loss.f_mul_scalar(active / active_total.max(1.0))?,
        };
        let gradients = forward.gradients(&loss)?;
        let chosen = q
            .detach()
            .f_gather(-1, &input.action.f_unsqueeze(-1)?, false)?;
        Ok(Part {
            loss: loss.detach().f_double_value(&[])?,
            gradients,
            td_errors: row_errors(&out.td, batch, rows)?,
            q_sum: chosen.f_sum(chosen.kind())?.f_double_value(&[])?,
        })
    }

    /// Windows of some rows on the device: copied from the batch, or rendered on
    /// the device.
    fn windows(
        &self,
        batch: &Batch,
        rows: &Range<usize>,
        bootstraps: bool,
    ) -> Result<Windows, ModelError> {
        let device = self.online.device();
        if let Some(own) = self.windows.as_ref().filter(|_| batch.state.is_empty()) {
            let kind = self.online.window_kind();
            return own.render(&batch.frames, rows, batch.agents, kind, bootstraps);
        }
        let spec = self.online.spec();
        let each = batch.agents * spec.history * spec.window.pow(3);
        let part = rows.start * each..rows.end * each;
        let windows = |v: &[f32]| Tensor::f_from_slice(&v[part.clone()])?.f_to_device(device);
        Ok(Windows {
            state: windows(&batch.state)?,
            next: bootstraps.then(|| windows(&batch.next)).transpose()?,
        })
    }

    fn targets(&self, input: &Input, double: bool) -> Result<Tensor, ModelError> {
        let Some((next, scale)) = &input.next else {
            return Ok(input.reward.shallow_clone());
        };
        let target = input.forward(&self.target, next, scale)?;
        let online = double.then(|| input.forward(&self.online, next, scale));
        let online = online.transpose()?;
        loss::targets(&input.reward, &input.discount, &target, online.as_ref())
    }
}

/// Computes the parts of one batch in parallel; results in order.
pub(crate) fn compute_all(
    replicas: &mut [Replica],
    batch: &Batch,
    double: bool,
) -> Result<Vec<Part>, ModelError> {
    let active_total: f64 = batch.active.iter().map(|a| f64::from(*a)).sum();
    let parts = split(batch.rows, replicas.len());
    let work =
        |replica: &Replica, rows: &Range<usize>| replica.compute(batch, rows, active_total, double);
    let (Some((first, others)), Some((first_rows, other_rows))) =
        (replicas.split_first_mut(), parts.split_first())
    else {
        return Ok(Vec::new());
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = others
            .iter_mut()
            .zip(other_rows)
            .map(|(replica, rows)| {
                scope.spawn(move || {
                    model::device::set_threads(1);
                    work(replica, rows)
                })
            })
            .collect();
        let mut all = vec![work(first, first_rows)?];
        for handle in handles {
            match handle.join() {
                Ok(part) => all.push(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// A batch on the device.
struct Input {
    state: Tensor,
    scale: Tensor,
    /// Bootstrap windows and their scales; `None` if every discount is zero.
    next: Option<(Tensor, Tensor)>,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    active: Tensor,
    weight: Tensor,
    /// `None` if all agents of a group pass through the network together.
    plan: Option<HeadPlan>,
    /// Rewards and weights in the plan's places, `[A, largest group, actions]`; `None` for
    /// plain Q-learning of own goals.
    reward_targets: Option<(Tensor, Tensor)>,
}

impl Input {
    fn new<'a>(
        batch: &'a Batch,
        rows: &Range<usize>,
        replica: &Replica,
    ) -> Result<Self, ModelError> {
        let spec = replica.online.spec();
        let device = replica.online.device();
        let groups = spec.kind == NetworkKind::Commnet;
        let entries = rows.start * batch.agents..rows.end * batch.agents;
        let lead = if groups {
            vec![count(rows.len()), count(batch.agents)]
        } else {
            vec![count(entries.len())]
        };
        let n = count(spec.window);
        let mut shape = lead.clone();
        shape.extend([count(spec.history), n, n, n]);
        // f32, except in tests of f64 networks.
        let kind = replica.online.parameters().kind();
        let floats = |v: &[f32]| {
            let part = Tensor::f_from_slice(&v[entries.clone()])?;
            part.f_to_device(device)?.f_to_kind(kind)
        };
        let counts = |v: &[i64]| Tensor::f_from_slice(&v[entries.clone()])?.f_to_device(device);
        let rewards_known = !batch.reward_targets.reward.is_empty();
        let discounts = &batch.discount[entries.clone()];
        let bootstraps = !rewards_known && discounts.iter().any(|d| *d != 0.0);
        let windows = replica.windows(batch, rows, bootstraps)?;
        let next = |windows: Tensor| -> Result<_, ModelError> {
            let scale = counts(&batch.next_scale)?.f_view(&lead[..])?;
            Ok((windows.f_view(&shape[..])?, scale))
        };
        let each = spec.agents * spec.actions;
        let of_all = |v: &'a [f32]| &v[entries.start * each..entries.end * each];
        let own = &batch.agent[entries.clone()];
        let (plan, reward_targets) = if groups {
            (None, None)
        } else if rewards_known {
            let RewardTargets { reward, weight } = &batch.reward_targets;
            let weight = of_all(weight);
            // Heads without a target have no gradient: most rows have targets for few agents.
            let wanted = |sample: usize, agent: usize| {
                let at = sample * each + agent * spec.actions;
                weight[at..at + spec.actions].iter().any(|w| *w != 0.0)
            };
            let plan = HeadPlan::several(own, spec.agents, device, wanted)?;
            let arrange = |v: &[f32]| -> Result<Tensor, ModelError> {
                Ok(plan.arrange(v)?.f_to_device(device)?.f_to_kind(kind)?)
            };
            let targets = (arrange(of_all(reward))?, arrange(weight)?);
            (Some(plan), Some(targets))
        } else {
            (Some(HeadPlan::new(own, spec.agents, device)?), None)
        };
        Ok(Self {
            state: windows.state.f_view(&shape[..])?,
            scale: counts(&batch.scale)?.f_view(&lead[..])?,
            next: windows.next.map(next).transpose()?,
            action: counts(&batch.action)?,
            reward: floats(&batch.reward)?,
            discount: floats(&batch.discount)?,
            active: floats(&batch.active)?,
            weight: floats(&batch.weight)?,
            plan,
            reward_targets,
        })
    }

    /// Q-values `[N, actions]` of each entry's own agent.
    fn own(&self, q: &Tensor) -> Result<Tensor, ModelError> {
        match &self.plan {
            Some(plan) if self.reward_targets.is_some() => plan.own(q),
            _ => Ok(q.f_flatten(0, -2)?),
        }
    }

    /// Q-values of the states, for gradients.
    fn differentiable<'a>(&self, network: &'a Network) -> Result<Differentiable<'a>, ModelError> {
        match &self.plan {
            Some(plan) => network.differentiable_rows(&self.state, plan, Some(&self.scale)),
            None => network.differentiable_groups(&self.state, Some(&self.scale)),
        }
    }

    /// Q-values `[N, actions]`.
    fn forward(
        &self,
        network: &Network,
        windows: &Tensor,
        scale: &Tensor,
    ) -> Result<Tensor, ModelError> {
        match &self.plan {
            Some(plan) => network.forward_rows(windows, plan, Some(scale)),
            None => Ok(network
                .forward_groups(windows, Some(scale))?
                .f_flatten(0, 1)?),
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// |td| of the entries of some rows → one number per row.
fn row_errors(td: &Tensor, batch: &Batch, rows: &Range<usize>) -> Result<Vec<f32>, ModelError> {
    let td = Vec::<f32>::try_from(td.f_to_device(Device::Cpu)?)?;
    let group = batch.agents.max(1);
    let active = &batch.active[rows.start * group..rows.end * group];
    let rows = td.chunks_exact(group).zip(active.chunks_exact(group));
    let error = |(td, active): (&[f32], &[f32])| {
        let active = td.iter().zip(active).filter(|(_, a)| **a > 0.0);
        combine_priorities(active.map(|(td, _)| *td))
    };
    Ok(rows.map(error).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::config::{GoalsConfig, NetworkKind};

    use super::*;
    use crate::testing::{batch, config, trainer};
    use crate::training::targets::STEPS;
    use crate::training::trainer::Trainer;

    /// In f64: in f32 the order of a sum decides pooling ties and the signs of activations
    /// near zero, and a single one of them changes a gradient by more than rounding.
    fn replica(trainer: &Trainer) -> Replica {
        Replica {
            online: trainer.online().to_f64().unwrap(),
            target: trainer.target.to_f64().unwrap(),
            windows: None,
        }
    }

    fn assert_near(what: &str, [a, b]: [&[f32]; 2]) {
        assert_eq!(a.len(), b.len(), "{what}");
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-6, "{what}: {a} and {b}");
        }
    }

    fn assert_equal_gradients(what: &str, a: &Tensor, b: &Tensor) {
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference < 1e-12, "{what}: {difference}");
    }

    #[test]
    fn rows_are_split_without_gaps() {
        assert_eq!(split(7, 2), [0..3, 3..7]);
        assert_eq!(split(2, 5), [0..1, 1..2]);
        assert_eq!(split(0, 2).len(), 1);
    }

    #[test]
    fn targets_for_the_own_action_only_equal_the_plain_update() {
        let mut changed = (*config(NetworkKind::Collab, 2)).clone();
        changed.learner.gamma = 0.0;
        let config = Arc::new(changed);
        let trainer = trainer(&config);
        let mut batch = batch(&config, 1);
        batch.discount.fill(0.0);
        let mut replica = [replica(&trainer)];
        let plain = compute_all(&mut replica, &batch, true).unwrap();
        let mut reward_targets = RewardTargets::default();
        for entry in 0..batch.rows {
            for place in 0..2 * STEPS as i64 {
                let own = batch.agent[entry] * STEPS as i64 + batch.action[entry] == place;
                let weight = batch.weight[entry] * batch.active[entry];
                reward_targets.weight.push(if own { weight } else { 0.0 });
                let reward = if own { batch.reward[entry] } else { 7.0 };
                reward_targets.reward.push(reward);
            }
        }
        batch.reward_targets = reward_targets;
        let known = compute_all(&mut replica, &batch, true).unwrap();
        let (plain, known) = (&plain[0], &known[0]);
        assert!((plain.loss - known.loss).abs() < 1e-12);
        assert!((plain.q_sum - known.q_sum).abs() < 1e-12);
        assert_near("errors", [&plain.td_errors, &known.td_errors]);
        for (a, b) in plain.gradients.iter().zip(&known.gradients) {
            assert_equal_gradients("known", a, b);
        }
    }

    #[test]
    fn two_replicas_give_the_gradients_of_one() {
        for (kind, goals) in [
            (NetworkKind::Collab, GoalsConfig::Own),
            (NetworkKind::Commnet, GoalsConfig::Own),
            (NetworkKind::Collab, GoalsConfig::All),
        ] {
            let mut changed = (*config(kind, 2)).clone();
            changed.learner.goals = goals;
            let config = Arc::new(changed);
            let trainer = trainer(&config);
            let batch = batch(&config, 1);
            let replica = || replica(&trainer);
            let one = compute_all(&mut [replica()], &batch, true).unwrap();
            let two = compute_all(&mut [replica(), replica()], &batch, true).unwrap();
            assert_eq!((one.len(), two.len()), (1, 2));
            let loss = two[0].loss + two[1].loss;
            assert!((one[0].loss - loss).abs() < 1e-12, "{kind:?}");
            let td: Vec<f32> = two.iter().flat_map(|p| p.td_errors.clone()).collect();
            assert_near(&format!("{kind:?}"), [&one[0].td_errors, &td]);
            for (i, whole) in one[0].gradients.iter().enumerate() {
                let sum = &two[0].gradients[i] + &two[1].gradients[i];
                assert_equal_gradients(&format!("{kind:?} {i}"), whole, &sum);
            }
        }
    }
}
