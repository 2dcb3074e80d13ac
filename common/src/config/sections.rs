//! The sections of the configuration; `default.toml` explains each key.
#![expect(
    missing_docs,
    reason = "default.toml documents every key beside its value"
)]

use serde::{Deserialize, Serialize};

use super::Config;
use crate::nifti_io::Limits;
use crate::starts::TrainingStarts;

/// `network.kind` where agents hear each other.
pub const KIND_COMMNET: &str = "commnet";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub dir: String,
    pub name: String,
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    pub train_images: String,
    pub train_landmarks: String,
    pub selection_images: String,
    pub selection_landmarks: String,
    pub fold: i64,
    pub landmarks: Vec<String>,
    pub cache: String,
    pub allow_mixed_spacing: bool,
    pub resample_mm: f64,
    pub max_voxels: u64,
    pub max_expansion: u64,
}

impl DataConfig {
    /// The spacing that scans are brought to, mm; `None` leaves them.
    #[must_use]
    pub fn resample_mm(&self) -> Option<f64> {
        (self.resample_mm != 0.0).then_some(self.resample_mm)
    }

    /// What a scan file may ask for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_voxels: self.max_voxels,
            max_expansion: self.max_expansion,
        }
    }

    /// The fold that is kept out of training, if one is chosen.
    #[must_use]
    pub fn fold(&self) -> Option<u32> {
        u32::try_from(self.fold).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    pub preset: String,
    pub kind: String,
    pub dueling: bool,
    pub attention: bool,
    pub scale_input: bool,
}

/// How rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectorConfig {
    Uniform,
    Prioritised,
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
    pub tolerance: u64,
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
    pub device: String,
    pub precision: String,
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
    pub precision: String,
    pub threads: usize,
    pub updates: u64,
    pub max_minutes: f64,
    pub max_episodes: u64,
    pub batch: usize,
    pub double: bool,
    pub gamma: f64,
    pub n_step: usize,
    pub lr: f64,
    pub lr_steps: Vec<(f64, f64)>,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub grad_norm: f64,
    pub target_every: u64,
    pub average: f64,
    pub publish_every: u64,
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
pub struct PoseConfig {
    pub share: f64,
    pub rotation_degrees: f64,
    pub scaling: f64,
    pub flip: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    pub every: u64,
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
    pub every: u64,
    pub keep: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    pub learner: String,
    pub shards: Vec<String>,
    pub insecure: bool,
    pub lease_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub level: String,
}

/// One condition on a value.
pub(super) struct Check {
    pub(super) key: &'static str,
    pub(super) holds: bool,
    pub(super) why: String,
}

fn within(key: &'static str, value: f64, low: f64, high: f64) -> Check {
    let why = format!("must lie in {low}..={high}, got {value}");
    Check {
        key,
        holds: (low..=high).contains(&value),
        why,
    }
}

fn one_of(key: &'static str, value: &str, allowed: &[&str]) -> Check {
    let why = format!("must be one of {}, got \"{value}\"", allowed.join(", "));
    Check {
        key,
        holds: allowed.contains(&value),
        why,
    }
}

fn device(key: &'static str, name: &str) -> Check {
    let number = name.strip_prefix("cuda:");
    let number = number.is_some_and(|n| n.parse::<u16>().is_ok() && !n.starts_with('+'));
    Check {
        key,
        holds: number || matches!(name, "cpu" | "cuda" | "auto"),
        why: format!("must be cpu, cuda, cuda:N or auto, got \"{name}\""),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts compared with small bounds"
)]
fn count(key: &'static str, value: usize, high: usize) -> Check {
    within(key, value as f64, 1.0, high as f64)
}

const PRECISIONS: &[&str] = &["auto", "f32", "bf16"];

/// All checks, in the order of the file, then those of several keys together.
pub(super) fn checks(c: &Config) -> Vec<Check> {
    let mut all = services(c);
    all.extend(
        c.learner
            .devices
            .iter()
            .map(|name| device("learner.devices", name)),
    );
    all.extend(training(c));
    all.extend(together(c));
    all
}

fn services(c: &Config) -> Vec<Check> {
    let (r, a) = (&c.replay, &c.actor);
    let spacing = c.data.resample_mm().unwrap_or(1.0);
    vec![
        Check {
            key: "data.fold",
            holds: (-1..=i64::from(u32::MAX)).contains(&c.data.fold),
            why: format!("must be a fold from 0, or -1 for none, got {}", c.data.fold),
        },
        within("data.resample_mm", spacing, 0.001, 1000.0),
        one_of(
            "network.preset",
            &c.network.preset,
            &["small", "reference_torch", "reference_tf"],
        ),
        one_of("learner.precision", &c.learner.precision, PRECISIONS),
        one_of("actor.precision", &c.actor.precision, PRECISIONS),
        device("actor.device", &c.actor.device),
        device("learner.device", &c.learner.device),
        one_of("network.kind", &c.network.kind, &["collab", KIND_COMMNET]),
        count("replay.shards", r.shards, 256),
        count("replay.capacity", r.capacity, 1 << 31),
        within("replay.alpha", r.alpha, 0.0, 2.0),
        within("replay.epsilon", r.epsilon, 1e-9, 1.0),
        within("replay.priority_max", r.priority_max, 1e-6, 1e6),
        within("replay.beta", r.beta, 0.0, 1.0),
        within("replay.beta_final", r.beta_final, 0.0, 1.0),
        within("replay.samples_per_insert", r.samples_per_insert, 1e-3, 1e4),
        count("actor.count", a.count, 10_000),
        count("actor.slots", a.slots, 4096),
        count("actor.threads", a.threads, 256),
        within("actor.epsilon_start", a.epsilon_start, 0.0, 1.0),
        within("actor.epsilon_decay", a.epsilon_decay, 0.0, 1.0),
        within("actor.epsilon_low", a.epsilon_low, 0.0, a.epsilon_high),
        within("actor.epsilon_high", a.epsilon_high, 0.0, 1.0),
        within("actor.start_near", a.start_near, 0.0, 1.0),
        within("actor.start_margin", a.start_margin, 0.0, 0.45),
        count("actor.batch_rows", a.batch_rows, 4096),
        count("actor.backlog", a.backlog, 100_000),
        within("cluster.lease_s", c.cluster.lease_s, 1.0, 600.0),
    ]
}

fn training(c: &Config) -> Vec<Check> {
    let l = &c.learner;
    vec![
        within("learner.max_minutes", l.max_minutes, 0.0, 1e7),
        count("learner.batch", l.batch, 65_536),
        within("learner.gamma", l.gamma, 0.0, 0.9999),
        count("learner.n_step", l.n_step, 100),
        within("learner.lr", l.lr, 1e-9, 1.0),
        within("learner.adam_beta1", l.adam_beta1, 0.0, 0.9999),
        within("learner.adam_beta2", l.adam_beta2, 0.0, 0.999_999),
        within("learner.adam_epsilon", l.adam_epsilon, 1e-16, 1.0),
        within("learner.grad_norm", l.grad_norm, 1e-6, 1e9),
        within("learner.average", l.average, 0.0, 0.999_999),
        count("learner.prefetch", l.prefetch, 64),
        within("augment.gamma", c.augment.gamma, 0.0, 2.0),
        within("augment.contrast", c.augment.contrast, 0.0, 0.9),
        within("augment.offset", c.augment.offset, 0.0, 0.9),
        within("augment.noise", c.augment.noise, 0.0, 0.9),
        within("pose.share", c.pose.share, 0.0, 1.0),
        within("pose.rotation_degrees", c.pose.rotation_degrees, 0.0, 180.0),
        within("pose.scaling", c.pose.scaling, 0.0, 0.5),
        within("pose.flip", c.pose.flip, 0.0, 1.0),
        count("validation.starts", c.validation.starts, 1000),
        count("evaluation.starts", c.evaluation.starts, 1000),
        within("evaluation.margin", c.evaluation.margin, 0.0, 0.45),
        count("checkpoint.keep", c.checkpoint.keep, 10_000),
    ]
}

fn together(c: &Config) -> Vec<Check> {
    let (r, a, l) = (&c.replay, &c.actor, &c.learner);
    let mut all = Vec::new();
    for (key, value) in [
        ("learner.updates", l.updates),
        ("learner.target_every", l.target_every),
        ("learner.publish_every", l.publish_every),
        ("checkpoint.every", c.checkpoint.every),
        ("data.max_voxels", c.data.max_voxels),
        ("data.max_expansion", c.data.max_expansion),
        ("replay.min_rows", r.min_rows),
        ("replay.tolerance", r.tolerance),
    ] {
        all.push(Check {
            key,
            holds: value > 0,
            why: "must be at least 1".into(),
        });
    }
    all.push(Check {
        key: "replay.min_rows",
        holds: r.min_rows <= r.capacity as u64,
        why: format!(
            "{} rows can never be reached with a capacity of {}",
            r.min_rows, r.capacity
        ),
    });
    let widest = l
        .lr_steps
        .iter()
        .all(|(at, factor)| (0.0..=1.0).contains(at) && *factor > 0.0);
    all.push(Check {
        key: "learner.lr_steps",
        holds: widest,
        why: "needs [share of the updates in 0..=1, factor above 0] pairs".into(),
    });
    all.push(Check {
        key: "actor.start_near_radius",
        holds: a.start_near == 0.0 || a.start_near_radius.len() == c.rules.scales.len(),
        why: format!(
            "needs one radius per scale: {} scales, {} radii",
            c.rules.scales.len(),
            a.start_near_radius.len()
        ),
    });
    all
}
