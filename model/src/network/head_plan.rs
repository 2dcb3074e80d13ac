//! Assigns the samples of a batch to the agents' heads.

use tch::{Device, Tensor};

use crate::error::{ModelError, Result};

/// Groups the samples of a batch by agent, padded to the largest group, so
/// that all heads run as one batched product.
#[derive(Debug)]
pub struct HeadPlan {
    agents: usize,
    samples: usize,
    groups: Groups,
}

/// The placement of samples.
#[derive(Debug)]
enum Groups {
    /// All samples with the only agent.
    One,
    /// Each sample with its own agent.
    Each(Places),
    /// Each sample with its own agent and others.
    Several(Places),
}

#[derive(Debug)]
struct Places {
    /// The sample in each of the `A · largest` places; `None` for padding.
    samples: Vec<Option<usize>>,
    /// `[A · largest]`: the same as indices; padding repeats sample 0.
    gather: Tensor,
    /// `[B]`: the place of each sample with its own agent.
    inverse: Tensor,
}

impl HeadPlan {
    /// A plan for samples of given agents, for a network on `device`.
    ///
    /// # Errors
    /// [`ModelError::Agent`] for an agent outside `0..agents`.
    pub fn new(agent: &[i64], agents: usize, device: Device) -> Result<Self> {
        let groups = if agents == 1 && agent.iter().all(|a| *a == 0) {
            Groups::One
        } else {
            Groups::Each(Places::new(agent, agents, device, |_, _| false)?)
        };
        Ok(Self {
            agents,
            samples: agent.len(),
            groups,
        })
    }

    /// A plan that also sends samples through the heads of other agents: sample `i` through
    /// that of agent `a` where `wanted(i, a)`. Outputs then stay in their places,
    /// `[A, largest group, outputs]`: see [`HeadPlan::arrange`] and [`HeadPlan::own`].
    ///
    /// # Errors
    /// As [`HeadPlan::new`].
    pub fn several(
        agent: &[i64],
        agents: usize,
        device: Device,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Result<Self> {
        Ok(Self {
            agents,
            samples: agent.len(),
            groups: Groups::Several(Places::new(agent, agents, device, wanted)?),
        })
    }

    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of agents of compatible networks.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.agents
    }

    /// Features `[B, F]` → `[A, largest group, F]`.
    pub(crate) fn spread(&self, features: &Tensor) -> Result<Tensor> {
        match &self.groups {
            Groups::One => Ok(features.f_unsqueeze(0)?),
            Groups::Each(places) | Groups::Several(places) => {
                let agents = i64::try_from(self.agents).unwrap_or(i64::MAX);
                let rows = features.f_index_select(0, &places.gather)?;
                Ok(rows.f_unflatten(0, [agents, -1])?)
            }
        }
    }

    /// Outputs `[A, largest group, outputs]` → `[B, outputs]` in the batch's
    /// order; unchanged for [`HeadPlan::several`].
    pub(crate) fn collect(&self, outputs: &Tensor) -> Result<Tensor> {
        match &self.groups {
            Groups::Several(_) => Ok(outputs.shallow_clone()),
            Groups::One | Groups::Each(_) => self.own(outputs),
        }
    }

    /// Outputs `[A, largest group, outputs]` → those of each sample with its own agent,
    /// `[B, outputs]`.
    ///
    /// # Errors
    /// libtorch's, for other shapes.
    pub fn own(&self, outputs: &Tensor) -> Result<Tensor> {
        match &self.groups {
            Groups::One => Ok(outputs.f_squeeze_dim(0)?),
            Groups::Each(places) | Groups::Several(places) => {
                let rows = outputs.f_flatten(0, 1)?;
                Ok(rows.f_index_select(0, &places.inverse)?)
            }
        }
    }

    /// Values of all samples and agents, `[B, A, n]`, in the places of the outputs,
    /// `[A, largest group, n]`; zero for padding.
    ///
    /// # Errors
    /// libtorch's.
    pub fn arrange(&self, values: &[f32]) -> Result<Tensor> {
        let each = values.len() / (self.samples * self.agents).max(1);
        let (Groups::Each(places) | Groups::Several(places)) = &self.groups else {
            let size = [1, self.samples, each].map(as_i64);
            return Ok(Tensor::f_from_slice(values)?.f_view(size)?);
        };
        let largest = places.samples.len() / self.agents.max(1);
        let mut arranged = vec![0.0_f32; places.samples.len() * each];
        for (place, to) in arranged.chunks_exact_mut(each.max(1)).enumerate() {
            if let Some(sample) = places.samples[place] {
                let from = (sample * self.agents + place / largest) * each;
                to.copy_from_slice(&values[from..from + each]);
            }
        }
        let size = [self.agents, largest, each].map(as_i64);
        Ok(Tensor::f_from_slice(&arranged)?.f_view(size)?)
    }
}

impl Places {
    fn new(
        agent: &[i64],
        agents: usize,
        device: Device,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> Result<Self> {
        let mut members = vec![Vec::new(); agents];
        let mut own = Vec::with_capacity(agent.len());
        for (sample, &agent) in agent.iter().enumerate() {
            let known = usize::try_from(agent).ok().filter(|a| *a < agents);
            let known = known.ok_or(ModelError::Agent {
                sample,
                agent,
                agents,
            })?;
            for (other, group) in members.iter_mut().enumerate() {
                if other == known {
                    own.push(group.len());
                }
                if other == known || wanted(sample, other) {
                    group.push(sample);
                }
            }
        }
        let largest = members.iter().map(Vec::len).max().unwrap_or(0);
        let mut samples = vec![None; agents * largest];
        for (group, places) in members.iter().zip(samples.chunks_exact_mut(largest.max(1))) {
            for (place, sample) in places.iter_mut().zip(group) {
                *place = Some(*sample);
            }
        }
        let gather: Vec<i64> = samples.iter().map(|s| as_i64(s.unwrap_or(0))).collect();
        let inverse = agent.iter().zip(own);
        let inverse: Vec<i64> = inverse
            .map(|(a, i)| a * as_i64(largest) + as_i64(i))
            .collect();
        Ok(Self {
            samples,
            gather: Tensor::f_from_slice(&gather)?.f_to_device(device)?,
            inverse: Tensor::f_from_slice(&inverse)?.f_to_device(device)?,
        })
    }
}

fn as_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_in_order() {
        let plan = HeadPlan::new(&[2, 0, 2, 2, 0], 4, Device::Cpu).unwrap();
        let features = Tensor::from_slice(&[10_i64, 11, 12, 13, 14]).reshape([5, 1]);
        let spread = plan.spread(&features).unwrap();
        assert_eq!(spread.size(), [4, 3, 1]);
        let rows: Vec<i64> = Vec::try_from(spread.flatten(0, -1)).unwrap();
        // Agents 0 and 2 have samples; the rest is sample 0 as padding.
        assert_eq!(rows, [11, 14, 10, 10, 10, 10, 10, 12, 13, 10, 10, 10]);
        assert!(plan.collect(&spread).unwrap().equal(&features));
    }

    #[test]
    fn one_agent_needs_no_index() {
        let plan = HeadPlan::new(&[0, 0, 0], 1, Device::Cpu).unwrap();
        assert!(matches!(plan.groups, Groups::One));
        let features = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).reshape([3, 1]);
        let spread = plan.spread(&features).unwrap();
        assert!(plan.collect(&spread).unwrap().equal(&features));
    }

    #[test]
    fn samples_meet_their_own_agent_and_those_that_are_wanted() {
        let wanted = |sample, agent| sample == 1 || (sample == 2 && agent == 0);
        let plan = HeadPlan::several(&[2, 0, 1], 3, Device::Cpu, wanted).unwrap();
        let features = Tensor::from_slice(&[10_i64, 11, 12]).reshape([3, 1]);
        let spread = plan.spread(&features).unwrap();
        assert_eq!(spread.size(), [3, 2, 1]);
        let rows: Vec<i64> = Vec::try_from(spread.flatten(0, -1)).unwrap();
        assert_eq!(rows, [11, 12, 11, 12, 10, 11]);
        assert!(plan.collect(&spread).unwrap().equal(&spread));
        let outputs = spread * 10 + Tensor::from_slice(&[0_i64, 1, 2]).reshape([3, 1, 1]);
        let own: Vec<i64> = Vec::try_from(plan.own(&outputs).unwrap().flatten(0, -1)).unwrap();
        assert_eq!(own, [102, 110, 121]);
    }

    #[test]
    fn values_are_arranged_as_the_outputs_are_and_padding_is_zero() {
        let plan = HeadPlan::several(&[1, 1], 2, Device::Cpu, |s, a| s == 0 && a == 0).unwrap();
        // [sample, agent, 2]
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0_f32];
        let arranged = plan.arrange(&values).unwrap();
        assert_eq!(arranged.size(), [2, 2, 2]);
        let found = Vec::<f32>::try_from(arranged.flatten(0, -1)).unwrap();
        assert_eq!(found, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 7.0, 8.0]);
        let one = HeadPlan::new(&[0, 0], 1, Device::Cpu).unwrap();
        assert_eq!(one.arrange(&values).unwrap().size(), [1, 2, 4]);
    }

    #[test]
    fn agents_outside_are_refused() {
        for bad in [-1, 3, i64::MAX, i64::MIN] {
            let error = HeadPlan::new(&[0, bad], 3, Device::Cpu).unwrap_err();
            let expected = format!("sample 1 requests agent {bad}, the network has agents 0..3");
            assert_eq!(error.to_string(), expected);
        }
    }
}
