//! The replicas of a trainer: threads of one CPU, or one per GPU.
//!
//! The first device owns weights and moments. Gradients are summed there: in a
//! fixed order on CPUs, by NCCL over GPUs; the other GPUs receive the new weights
//! afterwards. Each part's loss is weighted by the batch's count of active agents, so
//! the sum is the whole batch's gradient; it is clipped after the sum.

use std::num::NonZero;
use std::sync::Arc;

use common::environment::rules::Rules;
use common::imaging::scan::Scan;
use model::{ModelError, Network};
use tch::{Device, Tensor};

use crate::batch::Batch;
use crate::batch::augment::Augmenter;
use crate::batch::device_windows::DeviceWindows;
use crate::training::nccl::{Nccl, NcclError};
use crate::training::replica::{Part, Replica, compute_all};

/// Why the devices cannot share a batch.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
    #[error("learner.devices: CPUs and GPUs cannot share a batch")]
    Mixed,
    /// A GPU that is named twice would share its memory with itself.
    #[error("learner.devices: cuda:{0} is named twice")]
    Twice(usize),
    /// Several GPUs need NCCL.
    #[error("learner.devices: {0}")]
    Nccl(#[from] NcclError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<tch::TchError> for ReplicasError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}

/// The replicas and their communicator.
#[derive(Debug)]
pub(crate) struct Replicas {
    all: Vec<Replica>,
    /// `None` without several GPUs.
    nccl: Option<Nccl>,
}

impl Replicas {
    /// Replicas of these networks, which are on the first device. `threads`: how
    /// many share a single CPU, 0 for one per core.
    pub(crate) fn new(
        online: &Network,
        target: &Network,
        devices: &[Device],
        threads: usize,
    ) -> Result<Self, ReplicasError> {
        let gpus = gpus(devices)?;
        let count = match devices {
            [Device::Cpu] | [] if threads == 0 => {
                std::thread::available_parallelism().map_or(1, NonZero::get)
            }
            [Device::Cpu] | [] => threads,
            _ => devices.len(),
        };
        let replica = |i: usize| -> Result<Replica, ReplicasError> {
            let device = devices.get(i).copied().unwrap_or(Device::Cpu);
            // A replica on the trainer's device shares its weights.
            let own = |network: &Network| {
                if device == network.device() {
                    network.share()
                } else {
                    network.deep_clone(device)
                }
            };
            Ok(Replica {
                online: own(online)?,
                target: own(target)?,
                windows: None,
            })
        };
        Ok(Self {
            all: (0..count).map(replica).collect::<Result<_, _>>()?,
            nccl: match gpus.len() {
                0 | 1 => None,
                _ => Some(Nccl::new(&gpus)?),
            },
        })
    }

    /// Copies the scans to every replica.
    pub(crate) fn hold_scans(
        &mut self,
        scans: &[Arc<Scan>],
        rules: &Rules,
        augmenter: &Augmenter,
    ) -> Result<(), ReplicasError> {
        for replica in &mut self.all {
            let device = replica.online.device();
            let windows = DeviceWindows::new(scans, rules, augmenter.clone(), device)?;
            replica.windows = Some(windows);
        }
        Ok(())
    }

    /// Loss, priorities and gradients of a whole batch.
    pub(crate) fn compute(&mut self, batch: &Batch, double: bool) -> Result<Part, ReplicasError> {
        let mut parts = compute_all(&mut self.all, batch, double)?;
        // A batch with fewer rows than GPUs leaves some GPUs without a part.
        let nccl = self.nccl.as_ref().filter(|_| parts.len() == self.all.len());
        if let Some(nccl) = nccl {
            reduce(nccl, &mut parts)?;
        }
        let summed = nccl.is_some();
        let mut parts = parts.into_iter();
        let mut sum = parts
            .next()
            .ok_or_else(|| ModelError::Spec("a trainer without replicas".into()))?;
        for part in parts {
            sum.loss += part.loss;
            sum.q_sum += part.q_sum;
            sum.td_errors.extend(part.td_errors);
            if summed {
                continue;
            }
            for (total, more) in sum.gradients.iter_mut().zip(&part.gradients) {
                let _ = total.f_add_(&more.f_to_device(total.device())?)?;
            }
        }
        Ok(sum)
    }

    /// Copies new weights to the other devices.
    pub(crate) fn follow_online(&mut self, online: &Network) -> Result<(), ReplicasError> {
        for replica in &mut self.all {
            if replica.online.device() != online.device() {
                replica.online.copy_from(online)?;
            }
        }
        Ok(())
    }

    /// Copies the target network to the other devices.
    pub(crate) fn follow_target(&mut self, target: &Network) -> Result<(), ReplicasError> {
        for replica in &mut self.all {
            if replica.target.device() != target.device() {
                replica.target.copy_from(target)?;
            }
        }
        Ok(())
    }
}

/// The GPUs' indices; devices must be all GPUs or all CPUs.
fn gpus(devices: &[Device]) -> Result<Vec<usize>, ReplicasError> {
    let mut gpus = Vec::new();
    for device in devices {
        if let Device::Cuda(n) = device {
            if gpus.contains(n) {
                return Err(ReplicasError::Twice(*n));
            }
            gpus.push(*n);
        }
    }
    if gpus.is_empty() || gpus.len() == devices.len() {
        Ok(gpus)
    } else {
        Err(ReplicasError::Mixed)
    }
}

/// Sums the parts' gradients into the first part's, each as one buffer.
fn reduce(nccl: &Nccl, parts: &mut [Part]) -> Result<(), ReplicasError> {
    let flat = |part: &Part| -> Result<Tensor, tch::TchError> {
        let pieces: Result<Vec<Tensor>, _> =
            part.gradients.iter().map(|g| g.f_reshape([-1])).collect();
        Tensor::f_cat(&pieces?, 0)
    };
    let buffers: Vec<Tensor> = parts.iter().map(flat).collect::<Result<_, _>>()?;
    nccl.sum_to_first(&buffers)?;
    let (Some(first), Some(sum)) = (parts.first_mut(), buffers.first()) else {
        return Ok(());
    };
    let mut begin = 0;
    for gradient in &mut first.gradients {
        let count = i64::try_from(gradient.numel()).unwrap_or(i64::MAX);
        *gradient = sum.f_narrow(0, begin, count)?.f_reshape(gradient.size())?;
        begin += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_cannot_share_a_batch_are_refused() {
        let cuda = Device::Cuda;
        assert!(gpus(&[Device::Cpu; 3]).unwrap().is_empty());
        assert_eq!(gpus(&[cuda(2), cuda(0)]).unwrap(), [2, 0]);
        let text = |devices: &[Device]| gpus(devices).unwrap_err().to_string();
        assert!(text(&[cuda(1), Device::Cpu]).contains("cannot share"));
        assert!(text(&[cuda(1), cuda(1)]).contains("cuda:1 is named twice"));
    }
}
