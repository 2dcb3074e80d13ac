//! The sections of the configuration; `default.toml` explains each key.

use serde::{Deserialize, Serialize};

use crate::environment::starts::TrainingStarts;
use crate::imaging::nifti_io::Limits;

/// Whether the agents of a group exchange messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Shared convolutions, one independent head per agent (rl-medical's Network3d).
    Collab,
    /// The same with the agents' mean features appended before every layer of
    /// the heads (rl-medical's CommNet).
    Commnet,
}

/// The named networks; `model::network::presets` defines them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPreset {
    Small,
    ReferenceTorch,
    ReferenceTf,
}

impl NetworkPreset {
    /// The name in a configuration file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::ReferenceTorch => "reference_torch",
            Self::ReferenceTf => "reference_tf",
        }
    }
}

/// Number format of convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 on a GPU, f32 on a CPU.
    Auto,
    F32,
    Bf16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub dir: String,
    pub name: String,
    pub seed: u64,
    pub lockstep: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    pub train_images: String,
    pub train_landmarks: String,
    pub validation_images: String,
    pub validation_landmarks: String,
    pub fold: i64,
    pub landmarks: Vec<String>,
    pub cache: String,
    pub allow_mixed_spacing: bool,
    pub resample_mm: f64,
    pub max_voxels: u64,
    pub max_expansion: u64,
}

impl DataConfig {
    /// The spacing to resample scans to, mm; `None` keeps their own.
    #[must_use]
    pub fn resample_mm(&self) -> Option<f64> {
        (self.resample_mm != 0.0).then_some(self.resample_mm)
    }

    /// The limits on the size of a scan file.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_voxels: self.max_voxels,
            max_expansion: self.max_expansion,
        }
    }

    /// The fold held out from training, if one is chosen.
    #[must_use]
    pub fn fold(&self) -> Option<u32> {
        u32::try_from(self.fold).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    pub preset: NetworkPreset,
    pub kind: NetworkKind,
    pub dueling: bool,
    pub attention: bool,
    pub scale_input: bool,
    pub shared: usize,
    pub hidden: Vec<usize>,
}

/// How rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectorConfig {
    Uniform,
    Prioritised,
}

/// Which agents learn from a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalsConfig {
    Own,
    All,
}

/// What the Q-values are regressed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveConfig {
    /// The action that was taken, with its n-step return.
    QLearning,
    /// All six actions of the state, each with its immediate reward.
    StepReward,
}

/// What actors do while the shards take no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverloadConfig {
    Block,
    DropOldest,
}

/// When a shard acknowledges rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckConfig {
    Memory,
    Durable,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    pub shards: usize,
    pub capacity: usize,
    pub selector: SelectorConfig,
    pub alpha: f64,
    pub epsilon: f64,
    pub priority_max: f64,
    pub beta: f64,
    pub beta_final: f64,
    pub samples_per_insert: f64,
    pub error_buffer: u64,
    pub min_rows: u64,
    pub journal: bool,
    pub ack: AckConfig,
    pub overload: OverloadConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorConfig {
    pub count: usize,
    pub slots: usize,
    pub threads: usize,
    pub nice: u8,
    pub device: String,
    pub precision: Precision,
    pub epsilon_start: f64,
    pub epsilon_decay: f64,
    pub epsilon_low: f64,
    pub epsilon_high: f64,
    pub start_near: f64,
    pub start_near_radius: Vec<f64>,
    pub start_margin: f64,
    pub batch_rows: usize,
    pub batch_wait_ms: u64,
    pub backlog: usize,
    pub max_staleness: f64,
}

impl ActorConfig {
    /// How training episodes begin.
    #[must_use]
    pub fn training_starts(&self) -> TrainingStarts {
        TrainingStarts {
            margin: self.start_margin,
            near: self.start_near,
            near_radius: self.start_near_radius.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerConfig {
    pub device: String,
    pub devices: Vec<String>,
    pub precision: Precision,
    pub threads: usize,
    pub updates: u64,
    pub max_minutes: f64,
    pub max_episodes: u64,
    pub batch: usize,
    pub double: bool,
    pub gamma: f64,
    pub n_step: usize,
    pub goals: GoalsConfig,
    pub objective: ObjectiveConfig,
    pub lr: f64,
    pub lr_steps: Vec<(f64, f64)>,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub max_grad_norm: f64,
    pub target_update_period: u64,
    pub ema_decay: f64,
    pub publish_period: u64,
    pub prefetch: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    pub enabled: bool,
    pub gamma: f64,
    pub contrast: f64,
    pub offset: f64,
    pub noise: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    pub period: u64,
    pub starts: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    pub starts: usize,
    pub margin: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    pub period: u64,
    pub keep: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    pub learner: String,
    pub listen: String,
    pub shards: Vec<String>,
    pub ca: String,
    pub cert: String,
    pub key: String,
    pub token_file: String,
    pub actors: usize,
    pub insecure: bool,
    pub lease_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub level: String,
    pub folder: String,
    pub instance: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: String,
    pub hosts: Vec<String>,
}
