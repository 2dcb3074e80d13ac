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
    /// Each sample with its agent.
    Each(Places),
    /// All samples with every agent.
    All,
}

#[derive(Debug)]
struct Places {
    /// `[A · largest]`: the sample in each place; padding repeats sample 0.
    gather: Tensor,
    /// `[B]`: the place of each sample.
    inverse: Tensor,
}

impl HeadPlan {
    /// A plan for samples of given agents, for a network on `device`.
    ///
    /// # Errors
    /// [`ModelError::Agent`] for an agent outside `0..agents`.
    pub fn new(agent: &[i64], agents: usize, device: Device) -> Result<Self> {
        let mut members = vec![Vec::new(); agents];
        for (sample, &agent) in agent.iter().enumerate() {
            let own = usize::try_from(agent).ok().and_then(|a| members.get_mut(a));
            let unknown = ModelError::Agent {
                sample,
                agent,
                agents,
            };
            own.ok_or(unknown)?.push(sample);
        }
        let groups = if agents == 1 {
            Groups::One
        } else {
            Groups::Each(Places::new(&members, agent.len(), device)?)
        };
        Ok(Self {
            agents,
            samples: agent.len(),
            groups,
        })
    }

    /// A plan that sends every sample through the heads of all agents: the outputs are
    /// then `[B, A, outputs]`.
    #[must_use]
    pub fn all(samples: usize, agents: usize) -> Self {
        Self {
            agents,
            samples,
            groups: Groups::All,
        }
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
        let agents = i64::try_from(self.agents).unwrap_or(i64::MAX);
        let alone = features.f_unsqueeze(0)?;
        match &self.groups {
            Groups::One => Ok(alone),
            Groups::All => Ok(alone.f_expand([agents, -1, -1], false)?),
            Groups::Each(places) => Ok(features
                .f_index_select(0, &places.gather)?
                .f_unflatten(0, [agents, -1])?),
        }
    }

    /// Outputs `[A, largest group, outputs]` → `[B, outputs]` in the batch's
    /// order, or `[B, A, outputs]` for [`HeadPlan::all`].
    pub(crate) fn collect(&self, outputs: &Tensor) -> Result<Tensor> {
        match &self.groups {
            Groups::One => Ok(outputs.f_squeeze_dim(0)?),
            Groups::All => Ok(outputs.f_transpose(0, 1)?),
            Groups::Each(places) => {
                let rows = outputs.f_flatten(0, 1)?;
                Ok(rows.f_index_select(0, &places.inverse)?)
            }
        }
    }
}

impl Places {
    fn new(members: &[Vec<usize>], samples: usize, device: Device) -> Result<Self> {
        let largest = members.iter().map(Vec::len).max().unwrap_or(0);
        let mut gather = vec![0_i64; members.len() * largest];
        let mut inverse = vec![0_i64; samples];
        for (a, group) in members.iter().enumerate() {
            for (i, &sample) in group.iter().enumerate() {
                let place = a * largest + i;
                gather[place] = i64::try_from(sample).unwrap_or(i64::MAX);
                inverse[sample] = i64::try_from(place).unwrap_or(i64::MAX);
            }
        }
        Ok(Self {
            gather: Tensor::f_from_slice(&gather)?.f_to_device(device)?,
            inverse: Tensor::f_from_slice(&inverse)?.f_to_device(device)?,
        })
    }
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
    fn every_sample_meets_every_agent() {
        let plan = HeadPlan::all(2, 3);
        assert_eq!((plan.samples(), plan.agents()), (2, 3));
        let features = Tensor::from_slice(&[1_i64, 2]).reshape([2, 1]);
        let spread = plan.spread(&features).unwrap();
        assert_eq!(spread.size(), [3, 2, 1]);
        let outputs = spread + Tensor::from_slice(&[10_i64, 20, 30]).reshape([3, 1, 1]);
        let rows: Vec<i64> = Vec::try_from(plan.collect(&outputs).unwrap().flatten(0, -1)).unwrap();
        assert_eq!(rows, [11, 21, 31, 12, 22, 32]);
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
