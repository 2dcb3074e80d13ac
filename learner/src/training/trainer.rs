//! Training updates, without clocks, sockets or threads of its own.
//!
//! Equal seeds and equal batches give bit-identical results (on one libtorch thread).

use std::sync::Arc;

use common::config::{Config, NetworkPreset};
use common::imaging::scan::Scan;
use model::files::tensor_file::Metadata;
use model::files::weights;
use model::network::parameters::WEIGHT_MAX;
use model::{Compute, ModelError, Network, NetworkSpec, Parameters};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::{Device, Kind};

use crate::batch::Batch;
use crate::batch::augment::Augmenter;
use crate::training::adam::{Adam, AdamError};
use crate::training::ema::Ema;
use crate::training::replicas::{Replicas, ReplicasError};
use crate::training::schedule;

/// Metadata key of the rules in a weights file, JSON.
pub const RULES_KEY: &str = "landmarl.rules";
/// Metadata key of the spacing in mm that scans are resampled to, `0` without resampling.
pub const RESAMPLE_KEY: &str = "landmarl.resample_mm";
/// Metadata key of the landmark names, a JSON list in agent order.
pub const LANDMARKS_KEY: &str = "landmarl.landmarks";
/// Metadata key of the landmarl version that wrote the file.
pub const VERSION_KEY: &str = "landmarl.version";
/// Metadata key of the number of updates done.
pub const UPDATES_KEY: &str = "landmarl.updates";
/// Metadata key of the broadcast version of the weights.
pub const WEIGHTS_VERSION_KEY: &str = "landmarl.weights_version";

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The gradients or the optimizer's state are invalid.
    #[error("update {update}: {source}")]
    Adam { update: u64, source: AdamError },
    /// Weights or moments that no training that works has.
    #[error(
        "update {update}: {why}; this state is neither published nor saved: lower learner.lr, look \
         for refused rows in the log, and go on with --resume, which takes the newest checkpoint \
         before it"
    )]
    Diverged { update: u64, why: ModelError },
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The devices cannot share a batch.
    #[error(transparent)]
    Replicas(#[from] ReplicasError),
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}

/// Results of one update.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepReport {
    /// The loss before the update.
    pub loss: f64,
    /// New priority of each row of the batch.
    pub td_errors: Vec<f32>,
    /// Mean Q-value of the actions taken, over all entries.
    pub q_mean: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    pub lr: f64,
}

impl StepReport {
    /// Mean of the rows' priorities.
    pub fn td_mean(&self) -> f64 {
        let sum: f64 = self.td_errors.iter().map(|&td| f64::from(td)).sum();
        sum / self.td_errors.len().max(1) as f64
    }
}

/// The network of a configuration for this many agents.
///
/// # Errors
/// When `rules.window_size` is too small for the preset's convolutions, or the
/// options are incompatible.
pub fn network_spec(config: &Config, agents: usize) -> Result<NetworkSpec, ModelError> {
    let (network, rules) = (&config.network, &config.rules);
    let kind = network.kind;
    let preset = match network.preset {
        NetworkPreset::ReferenceTorch => NetworkSpec::reference_torch(kind, agents),
        NetworkPreset::ReferenceTf => NetworkSpec::reference_tf(agents),
        NetworkPreset::Small => NetworkSpec::small(agents, rules.history, None),
    };
    let mut spec = NetworkSpec {
        kind,
        history: rules.history,
        window: rules.window_size,
        scales: network.scale_input.then_some(rules.scales.len()),
        dueling: network.dueling,
        attention: network.attention,
        ..preset
    };
    if !network.hidden.is_empty() {
        spec.hidden.clone_from(&network.hidden);
    }
    let explain = |e: ModelError| {
        let preset = network.preset.name();
        ModelError::Spec(format!(
            "network.preset = \"{preset}\" with rules.window_size = {}: {e}",
            rules.window_size
        ))
    };
    if network.shared > 0 {
        spec.share(network.shared).map_err(explain)?;
    }
    spec.validate().map_err(explain)?;
    Ok(spec)
}

#[derive(Debug)]
pub struct Trainer {
    pub(crate) config: Arc<Config>,
    landmarks: Vec<String>,
    device: Device,
    online: Network,
    /// Evaluates bootstrap states.
    pub(crate) target: Network,
    ema: Ema,
    replicas: Replicas,
    pub(crate) adam: Adam,
    updates: u64,
    pub(crate) rng: ChaCha8Rng,
}

impl Trainer {
    /// A trainer whose first weights come from `run.seed`; one agent per landmark.
    ///
    /// # Errors
    /// When the configuration gives no valid network, or the device is out of memory.
    pub fn new(
        config: Arc<Config>,
        landmarks: Vec<String>,
        device: Device,
    ) -> Result<Self, TrainError> {
        Self::on(config, landmarks, &[device])
    }

    /// A trainer on several devices that share each batch; weights and moments
    /// stay on the first.
    ///
    /// # Errors
    /// As [`Trainer::new`], and when the devices cannot share a batch.
    pub fn on(
        config: Arc<Config>,
        landmarks: Vec<String>,
        devices: &[Device],
    ) -> Result<Self, TrainError> {
        let device = devices.first().copied().unwrap_or(Device::Cpu);
        let spec = network_spec(&config, landmarks.len())?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed);
        let mut online = Network::new(&spec, &mut rng, device)?;
        online.set_compute(Compute {
            bf16: model::device::wants_bf16(config.learner.precision, device),
            channels_last: true,
            windows: None,
            blocked: device.is_cuda(),
            fused: false,
        });
        let target = online.deep_clone(device)?;
        let replicas = Replicas::new(&online, &target, devices, config.learner.threads)?;
        let ema = Ema::new(online.parameters(), config.learner.ema_decay)?;
        let adam = Adam::new(online.parameters(), &config.learner)
            .map_err(|e| ModelError::Spec(format!("optimizer: {e}")))?;
        Ok(Self {
            config,
            landmarks,
            device,
            online,
            target,
            ema,
            replicas,
            adam,
            updates: 0,
            rng,
        })
    }

    /// Copies the scans of the manifest to the devices, so that batches may omit
    /// windows.
    ///
    /// # Errors
    /// When a device is out of memory.
    pub fn hold_scans(
        &mut self,
        scans: &[Arc<Scan>],
        augmenter: &Augmenter,
    ) -> Result<(), TrainError> {
        let rules = &self.config.rules;
        Ok(self.replicas.hold_scans(scans, rules, augmenter)?)
    }

    /// The network in training.
    pub fn online(&self) -> &Network {
        &self.online
    }

    /// The weights for actors, evaluations and weights files: the moving average of
    /// the online network's (`learner.ema_decay`).
    pub fn average(&self) -> &Parameters {
        self.ema.parameters()
    }

    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Restores a checkpoint's contents; see `Checkpoint::restore`.
    pub(crate) fn restore(
        &mut self,
        [online, target, average, m, v]: &[Parameters; 5],
        (update, adam_steps): (u64, u64),
        rng: ChaCha8Rng,
    ) -> Result<(), TrainError> {
        let own = |p: &Parameters| -> Result<Network, ModelError> {
            Network::from_parameters(self.online.spec(), p.deep_clone(self.device)?)
        };
        let (online, target) = (own(online)?, own(target)?);
        let restored = self.adam.restore(adam_steps, m, v);
        restored.map_err(|source| TrainError::Adam { update, source })?;
        self.online.copy_from(&online)?;
        self.target.copy_from(&target)?;
        self.ema.restore(average)?;
        self.replicas.follow_online(&self.online)?;
        self.replicas.follow_target(&self.target)?;
        (self.updates, self.rng) = (update, rng);
        Ok(())
    }

    /// Performs one update.
    ///
    /// # Errors
    /// When the gradients are not finite (nothing is changed then), or shapes
    /// do not match.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        let lr = schedule::learning_rate(&self.config.learner, self.updates);
        let double = self.config.learner.double;
        let sum = self.replicas.compute(batch, double)?;
        let parameters = self.online.trainable();
        let stepped = self.adam.step(&parameters, &sum.gradients, lr);
        let update = self.updates + 1;
        let grad_norm = stepped.map_err(|source| TrainError::Adam { update, source })?;
        self.updates = update;
        self.ema.follow(self.online.parameters(), update)?;
        if update.is_multiple_of(self.config.learner.target_update_period) {
            self.target.copy_from(&self.online)?;
            self.replicas.follow_target(&self.target)?;
        }
        self.replicas.follow_online(&self.online)?;
        let entries = (batch.rows * batch.agents).max(1) as f64;
        Ok(StepReport {
            loss: sum.loss,
            td_errors: sum.td_errors,
            q_mean: sum.q_sum / entries,
            grad_norm,
            lr,
        })
    }

    /// The averaged weights as a file; the key constants name the metadata besides
    /// the network's spec.
    ///
    /// # Errors
    /// [`TrainError::Diverged`]; when a tensor cannot be copied from its device.
    pub fn weights_bytes(&self, weights_version: u64) -> Result<Vec<u8>, TrainError> {
        let parameters = self.average().deep_clone(Device::Cpu)?;
        self.check_sound(&[(&parameters, WEIGHT_MAX)])?;
        let metadata = self.metadata(weights_version);
        let spec = self.online.spec();
        Ok(weights::parameters_to_bytes(
            spec,
            &parameters,
            Kind::Float,
            &metadata,
        )?)
    }

    /// Refuses the parts of a state that hold values beyond these limits, or NaN.
    pub(crate) fn check_sound(&self, parts: &[(&Parameters, f64)]) -> Result<(), TrainError> {
        let mut parts = parts.iter();
        let checked = parts.try_for_each(|(part, limit)| part.check_within(*limit));
        checked.map_err(|error| match error {
            why @ ModelError::Unsound { .. } => TrainError::Diverged {
                update: self.updates,
                why,
            },
            other => other.into(),
        })
    }

    pub(crate) fn metadata(&self, weights_version: u64) -> Metadata {
        let json = |value: serde_json::Value| value.to_string();
        [
            (RULES_KEY, json(serde_json::json!(self.config.rules))),
            (LANDMARKS_KEY, json(serde_json::json!(self.landmarks))),
            (RESAMPLE_KEY, self.config.data.resample_mm.to_string()),
            (VERSION_KEY, env!("CARGO_PKG_VERSION").to_owned()),
            (UPDATES_KEY, self.updates.to_string()),
            (WEIGHTS_VERSION_KEY, weights_version.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
