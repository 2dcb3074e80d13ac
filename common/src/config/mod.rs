//! Configuration: one set of keys for every command and service.
//!
//! Layers, later ones win: the defaults (`default.toml`, the one place that
//! holds them) < files < `LANDMARL__SECTION__KEY` < `--set section.key=value`.
//! Each layer is checked on its own, so that an error names the key and the
//! layer that sets it; the merged result becomes a [`Config`], whose ranges
//! [`Config::validate`] checks.

mod checks;
mod explain;
mod layer;
mod renamed;
mod sections;

pub use explain::{Setting, schema, settings};
pub use layer::ConfigError;
pub use layer::edit_distance;
pub use sections::{
    AckConfig, ActorConfig, AugmentConfig, CheckpointConfig, ClusterConfig, DataConfig,
    EvaluationConfig, GoalsConfig, HttpConfig, LearnerConfig, LogConfig, NetworkConfig,
    NetworkKind, NetworkPreset, ObjectiveConfig, OverloadConfig, Precision, ReplayConfig,
    RunConfig, SelectorConfig, ValidationConfig,
};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::environment::pose::PoseConfig;
use crate::environment::reward::{REWARD_CLIP, TeamReward};
use crate::environment::rules::{Rules, RulesError};
pub use renamed::upgrade;

/// The defaults, with a comment for each key.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Prefix of the environment variables.
pub const ENV_PREFIX: &str = "LANDMARL__";

/// The resolved configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The run folder and the seed.
    pub run: RunConfig,
    pub data: DataConfig,
    pub rules: Rules,
    pub network: NetworkConfig,
    /// The shards and the limiter.
    pub replay: ReplayConfig,
    pub actor: ActorConfig,
    pub learner: LearnerConfig,
    pub augment: AugmentConfig,
    pub pose: PoseConfig,
    /// Evaluation beside training.
    pub validation: ValidationConfig,
    /// Evaluation afterwards.
    pub evaluation: EvaluationConfig,
    pub checkpoint: CheckpointConfig,
    pub cluster: ClusterConfig,
    pub log: LogConfig,
    /// Metrics, health and the log level.
    pub http: HttpConfig,
}

/// Where the layers above the defaults come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Configurations of run folders, below `files`.
    pub saved: Vec<Saved>,
    /// TOML files, later ones win.
    pub files: Vec<PathBuf>,
    /// Environment variables (name, value); only `LANDMARL__…` are read.
    pub env: Vec<(String, String)>,
    /// `section.key=value` settings, later ones win.
    pub set: Vec<String>,
}

/// The `config.toml` of a run folder; keys may have their old names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub file: PathBuf,
    /// The folder from which its relative paths count, if not the current one.
    pub folder: Option<PathBuf>,
}

impl Sources {
    /// Files and settings from a command line, variables from this process.
    #[must_use]
    pub fn from_process(files: Vec<PathBuf>, set: Vec<String>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with(ENV_PREFIX))
            .collect();
        Self {
            saved: Vec::new(),
            files,
            env,
            set,
        }
    }
}

impl Config {
    /// Reads and checks all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config: Self = layer::merge(sources)?;
        config.validate()?;
        Ok(config)
    }

    /// The defaults alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(&Sources::default())
    }

    /// Refuses invalid values, naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let of_rules = |e: RulesError| layer::invalid(format!("rules.{}", e.key), e.why);
        self.rules.validate().map_err(of_rules)?;
        match checks::checks(self).into_iter().find(|check| !check.holds) {
            Some(check) => Err(layer::invalid(check.key, check.why)),
            None => Ok(()),
        }
    }

    /// As TOML, for the run folder.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|e| layer::invalid("config", e.to_string()))
    }

    /// The keys that determine rows and windows, as JSON: rules, landmarks, spacing,
    /// return, grouping and poses (with their seed), but not the learning rate or
    /// the number of actors.
    #[must_use]
    pub fn shared_json(&self) -> String {
        self.shared().to_string()
    }

    fn shared(&self) -> serde_json::Value {
        let posed = self.pose.share > 0.0;
        serde_json::json!({
            "pose": posed.then_some((&self.pose, self.run.seed)),
            "rules": self.rules,
            "landmarks": self.data.landmarks,
            "resample_mm": self.data.resample_mm,
            "kind": self.network.kind,
            "gamma": self.learner.gamma,
            "n_step": self.learner.n_step,
            "scale_input": self.network.scale_input,
        })
    }

    /// The expected number of actors; `None`: all that have joined and not left in order.
    #[must_use]
    pub fn actors_expected(&self) -> Option<usize> {
        Some(self.cluster.actors).filter(|&actors| actors > 0)
    }

    /// SHA-256 of [`Config::shared_json`], compared when services connect and when
    /// a run is resumed. Renamed keys enter under their old names.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut shared = self.shared();
        renamed::digest_names(&mut shared["rules"]);
        Sha256::digest(shared.to_string()).into()
    }

    /// Agents per row: all of them where the network mixes them, else one.
    #[must_use]
    pub fn row_agents(&self) -> u16 {
        match self.network.kind {
            NetworkKind::Commnet => u16::try_from(self.data.landmarks.len()).unwrap_or(u16::MAX),
            NetworkKind::Collab => 1,
        }
    }

    /// Largest absolute reward of one step: clipped, its team's share included.
    fn step_reward_max(&self) -> f64 {
        let clip = f64::from(REWARD_CLIP);
        match self.rules.team {
            TeamReward::None => clip,
            TeamReward::Mean => 2.0 * clip,
        }
    }

    /// Largest absolute reward that a row can hold: that of `learner.n_step` steps.
    #[must_use]
    pub fn row_reward_max(&self) -> f64 {
        let mut share = 1.0;
        let mut sum = 0.0;
        for _ in 0..self.learner.n_step {
            sum += share;
            share *= self.learner.gamma;
        }
        self.step_reward_max() * sum
    }

    /// Largest absolute Q-value that the rules allow.
    #[must_use]
    pub fn q_max(&self) -> f64 {
        self.step_reward_max() / (1.0 - self.learner.gamma)
    }
}

#[cfg(test)]
mod tests;
