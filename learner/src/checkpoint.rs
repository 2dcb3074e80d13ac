//! A checkpoint: the complete training state in one safetensors file.
//!
//! Tensors `online.*`, `target.*`, `average.*`, `adam.m.*`, `adam.v.*` under their names in
//! memory (heads of all agents stacked), and `extra.*` bytes of the caller.
//! Metadata: the network's spec, the keys of a weights file, the configuration as
//! TOML, the manifest as JSON, a [`Record`], and the SHA-256 of all of it.

pub mod files;
pub mod folder;
pub mod http;
pub mod stream;
pub mod training_scans;

use std::collections::BTreeMap;

use common::environment::rules::Rules;
use common::imaging::manifest::TrainingManifest;
use common::imaging::nifti_io::Limits;
use common::run::durable::DurableError;
use model::files::tensor_file::{self, DIGEST_KEY, Metadata, TensorFile};
use model::files::torch_file;
use model::files::weights::{NETWORK_KEY, Weights};
use model::network::layout::Layout;
use model::network::parameters::WEIGHT_MAX;
use model::{ModelError, Network, NetworkSpec, Parameters};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::checkpoint::training_scans::TrainingScans;
use crate::replay::limiter::LimiterState;
use crate::training::trainer::{LANDMARKS_KEY, RULES_KEY, TrainError, Trainer};

/// Incremented by every incompatible change of the file format.
pub const FORMAT: u32 = 2;

const RECORD_KEY: &str = "landmarl.checkpoint";
const CONFIG_KEY: &str = "landmarl.config";
const MANIFEST_KEY: &str = "landmarl.manifest";
const EXTRA: &str = "extra.";

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot read checkpoint {path}: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    /// The disk refused it; earlier checkpoints are untouched.
    #[error("{0}; free disk space, or check the disk of the run folder")]
    Write(#[from] DurableError),
    /// The contents of a checkpoint do not match its checksum or format.
    #[error("checkpoint {path} is corrupt: {reason}; use the one before it")]
    Corrupt { path: String, reason: String },
    #[error("there is no checkpoint {name:?} in {folder}; there are: {available}")]
    NotFound {
        name: String,
        folder: String,
        available: String,
    },
    /// An earlier version saved the state of a training that had diverged.
    #[error("checkpoint {path} cannot be used: {reason}; use the one before it")]
    Diverged { path: String, reason: String },
    /// The file is readable, but it is something else.
    #[error("{path} is no checkpoint: metadata {key} is missing")]
    NoCheckpoint { path: String, key: &'static str },
    #[error(
        "checkpoint {path} has file format {found}, this build reads {FORMAT}; use the version of landmarl that wrote it"
    )]
    Format { path: String, found: u32 },
    /// The file holds no network that can be used.
    #[error(transparent)]
    Weights(ModelError),
    #[error("cannot encode the checkpoint: {0}")]
    Encode(String),
    /// The file is valid but belongs to another run.
    #[error("this checkpoint does not continue this run: {0}")]
    Other(String),
    #[error("none of the {count} checkpoints in {folder} can be used; the newest: {newest}")]
    NoneUsable {
        folder: String,
        count: usize,
        newest: String,
    },
    /// The tensors could not be written or loaded.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl CheckpointError {
    /// Whether a file could not be written.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

impl From<ModelError> for CheckpointError {
    fn from(error: ModelError) -> Self {
        Self::Train(error.into())
    }
}

/// Position of a ChaCha8 generator in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    seed: [u8; 32],
    stream: u64,
    /// Position in 32-bit words; a decimal string, because JSON numbers cannot hold 68 bits.
    position: String,
}

impl RngState {
    /// The state of `rng`.
    pub fn of(rng: &ChaCha8Rng) -> Self {
        let position = rng.get_word_pos().to_string();
        Self {
            seed: rng.get_seed(),
            stream: rng.get_stream(),
            position,
        }
    }

    /// A generator in this state; `None` if the position is not a number.
    pub fn rng(&self) -> Option<ChaCha8Rng> {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(self.stream);
        rng.set_word_pos(self.position.parse().ok()?);
        Some(rng)
    }
}

/// A checkpoint's counters and random state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] of the file.
    pub format: u32,
    pub run_id: String,
    pub updates: u64,
    /// Optimizer steps.
    pub adam_steps: u64,
    /// Version of the newest broadcast weights.
    pub weights_version: u64,
    /// State of the trainer's random generator.
    pub rng: RngState,
    /// Rows inserted and sampled, in total and per shard; the name in the file is older.
    #[serde(rename = "books")]
    pub limiter: LimiterState,
    /// Finished episodes; absent in files of earlier versions.
    #[serde(default)]
    pub episodes: u64,
}

/// The run's additions to a trainer's checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub run_id: String,
    /// Version of the newest broadcast weights.
    pub weights_version: u64,
    /// The training manifest, JSON.
    pub manifest_json: String,
    /// State of the rate limiter.
    pub limiter: LimiterState,
    /// Finished episodes.
    pub episodes: u64,
    /// Additional data by name; empty entries are not saved.
    pub extra: BTreeMap<String, Vec<u8>>,
}

/// The complete training state; shares no memory with the trainer.
#[derive(Debug)]
pub struct Checkpoint {
    pub spec: NetworkSpec,
    /// Counters, random state, rate limiter.
    pub record: Record,
    /// The resolved configuration, TOML.
    pub config_toml: String,
    /// The training manifest, JSON.
    pub manifest_json: String,
    /// Additional data by name.
    pub extra: BTreeMap<String, Vec<u8>>,
    /// Keys of a weights file.
    metadata: Metadata,
    /// Online, target and averaged weights, first and second moments, in [`GROUPS`]' order.
    groups: [Parameters; 5],
}

const GROUPS: [&str; 5] = ["online.", "target.", "average.", "adam.m.", "adam.v."];

/// What their values reach at most, unless training has diverged: moments are only finite.
const LIMITS: [f64; 5] = [
    WEIGHT_MAX,
    WEIGHT_MAX,
    WEIGHT_MAX,
    f32::MAX as f64,
    f32::MAX as f64,
];

impl Checkpoint {
    /// Copies a trainer's state to the CPU, so that another thread can write it.
    ///
    /// # Errors
    /// When training has diverged, or there is no memory.
    pub fn new(trainer: &Trainer, around: Surroundings) -> Result<Self, CheckpointError> {
        let (m, v) = trainer.adam.moments();
        let copy = |p: &Parameters| p.deep_clone(Device::Cpu);
        let groups = [
            copy(trainer.online().parameters())?,
            copy(trainer.target.parameters())?,
            copy(trainer.average())?,
            copy(m)?,
            copy(v)?,
        ];
        let all: Vec<_> = groups.iter().zip(LIMITS).collect();
        trainer.check_sound(&all)?;
        let config_toml = trainer.config.to_toml();
        Ok(Self {
            spec: trainer.online().spec().clone(),
            record: Record {
                format: FORMAT,
                run_id: around.run_id,
                updates: trainer.updates(),
                adam_steps: trainer.adam.steps(),
                weights_version: around.weights_version,
                rng: RngState::of(&trainer.rng),
                limiter: around.limiter,
                episodes: around.episodes,
            },
            config_toml: config_toml.map_err(|e| CheckpointError::Encode(e.to_string()))?,
            manifest_json: around.manifest_json,
            extra: around.extra,
            metadata: trainer.metadata(around.weights_version),
            groups,
        })
    }

    /// The file's bytes. Equal states give equal bytes.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut tensors = Vec::new();
        for (prefix, group) in GROUPS.iter().zip(&self.groups) {
            let named = group
                .iter()
                .map(|(n, t)| (format!("{prefix}{n}"), t.shallow_clone()));
            tensors.extend(named);
        }
        for (name, bytes) in self.extra.iter().filter(|(_, b)| !b.is_empty()) {
            let tensor = Tensor::f_from_slice(bytes).map_err(ModelError::from)?;
            tensors.push((format!("{EXTRA}{name}"), tensor));
        }
        let mut metadata = self.metadata.clone();
        metadata.insert(NETWORK_KEY.to_owned(), json(&self.spec)?);
        metadata.insert(RECORD_KEY.to_owned(), json(&self.record)?);
        metadata.insert(CONFIG_KEY.to_owned(), self.config_toml.clone());
        metadata.insert(MANIFEST_KEY.to_owned(), self.manifest_json.clone());
        Ok(tensor_file::write_sealed(&tensors, &metadata)?)
    }

    /// Parses a file's bytes; `name` is used in errors.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, CheckpointError> {
        let corrupt = |reason: String| CheckpointError::Corrupt {
            path: name.to_owned(),
            reason,
        };
        let file = TensorFile::open(bytes).map_err(|e| corrupt(e.to_string()))?;
        let metadata = file.metadata();
        let text = |key: &'static str| {
            let path = name.to_owned();
            let text = metadata.get(key);
            text.ok_or(CheckpointError::NoCheckpoint { path, key })
        };
        let (recorded, found) = (text(DIGEST_KEY)?, file.digest());
        if *recorded != found {
            let reason = format!("its SHA-256 is {found}, recorded is {recorded}");
            return Err(corrupt(reason));
        }
        let unreadable = |key: &str, e: serde_json::Error| corrupt(format!("metadata {key}: {e}"));
        let record: Record =
            serde_json::from_str(text(RECORD_KEY)?).map_err(|e| unreadable(RECORD_KEY, e))?;
        if record.format != FORMAT {
            return Err(CheckpointError::Format {
                path: name.to_owned(),
                found: record.format,
            });
        }
        let spec: NetworkSpec =
            serde_json::from_str(text(NETWORK_KEY)?).map_err(|e| unreadable(NETWORK_KEY, e))?;
        let groups = read_groups(&file, &spec).map_err(|e| corrupt(e.to_string()))?;
        let mut all = groups.iter().zip(LIMITS);
        let sound = all.try_for_each(|(group, limit)| group.check_within(limit));
        sound.map_err(|error| CheckpointError::Diverged {
            path: name.to_owned(),
            reason: error.to_string(),
        })?;
        let keys = [
            RECORD_KEY,
            CONFIG_KEY,
            MANIFEST_KEY,
            DIGEST_KEY,
            NETWORK_KEY,
        ];
        let kept = metadata.iter().filter(|(k, _)| !keys.contains(&k.as_str()));
        Ok(Self {
            spec,
            record,
            config_toml: text(CONFIG_KEY)?.clone(),
            manifest_json: text(MANIFEST_KEY)?.clone(),
            extra: read_extra(bytes).map_err(|e| corrupt(e.to_string()))?,
            metadata: kept.map(|(k, v)| (k.clone(), v.clone())).collect(),
            groups,
        })
    }

    /// Restores a trainer to this state.
    ///
    /// # Errors
    /// [`CheckpointError::Other`] names the difference: network, landmarks,
    /// rules or data. The trainer is then unchanged.
    pub fn restore(
        &self,
        trainer: &mut Trainer,
        manifest_json: &str,
    ) -> Result<(), CheckpointError> {
        let other = |what: String| Err(CheckpointError::Other(what));
        let differences = trainer.online().spec().differences(&self.spec);
        if !differences.is_empty() {
            return other(format!(
                "another network (here: this run, there: the checkpoint): {}",
                differences.join(", ")
            ));
        }
        let own = trainer.metadata(0);
        for (key, what) in [(LANDMARKS_KEY, "landmarks"), (RULES_KEY, "rules")] {
            if let (Some(here), there) = (own.get(key), self.metadata.get(key))
                && Some(here) != there
                && !same_rules(here, there)
            {
                let there = there.map_or("missing", String::as_str);
                return other(format!(
                    "{what} are {here} in this run and {there} in the checkpoint"
                ));
            }
        }
        same_data(manifest_json, &self.manifest_json).or_else(other)?;
        let Some(rng) = self.record.rng.rng() else {
            return other("the state of its random numbers is unreadable".to_owned());
        };
        let steps = (self.record.updates, self.record.adam_steps);
        Ok(trainer.restore(&self.groups, steps, rng)?)
    }

    /// The trained network alone (its averaged weights), with the metadata of a weights file.
    ///
    /// # Errors
    /// When the tensors do not form a network.
    pub fn into_weights(self) -> Result<Weights, CheckpointError> {
        let [_, _, average, ..] = self.groups;
        let mut metadata = self.metadata;
        // Of another version, it cannot be read; the network can.
        if let Ok(manifest) = serde_json::from_str(&self.manifest_json)
            && let Some(scans) = TrainingScans::of(&manifest)
        {
            metadata.extend(scans.metadata());
        }
        Ok(Weights {
            network: Network::from_parameters(&self.spec, average)?,
            metadata,
        })
    }
}

/// Whether these are the bytes of a checkpoint, intact or not, and not of a weights file.
pub fn is_checkpoint(bytes: &[u8]) -> bool {
    TensorFile::open(bytes).is_ok_and(|file| file.metadata().contains_key(RECORD_KEY))
}

/// Reads the network from the bytes of a checkpoint, a weights file, or a file of PyTorch;
/// `name` is that of the file, for errors; `limits` bounds what PyTorch's files may expand to.
///
/// # Errors
/// Describes the problem.
pub fn inference_weights(
    bytes: &[u8],
    name: &str,
    limits: &Limits,
) -> Result<Weights, CheckpointError> {
    if is_checkpoint(bytes) {
        return Checkpoint::from_bytes(bytes, name)?.into_weights();
    }
    let read = if torch_file::is_torch(bytes) {
        torch_file::weights(bytes, &Metadata::new(), limits)
    } else {
        model::files::weights::from_bytes(bytes)
    };
    read.map_err(CheckpointError::Weights)
}

fn same_data(here: &str, there: &str) -> Result<(), String> {
    let read = |text: &str| serde_json::from_str::<TrainingManifest>(text);
    match (read(here), read(there)) {
        (Ok(a), Ok(b)) if a.digest() == b.digest() => Ok(()),
        (Ok(a), Ok(b)) => Err(format!(
            "other training data (here: this run, there: the checkpoint): {}",
            a.diff(&b)
        )),
        _ if here == there => Ok(()),
        _ => Err("its training manifest is another one and cannot be read".to_owned()),
    }
}

/// Whether both are the same rules, even if a key was renamed in between.
fn same_rules(here: &str, there: Option<&String>) -> bool {
    let read = |text: &str| serde_json::from_str::<Rules>(text).ok();
    there.is_some_and(|there| read(here).is_some() && read(here) == read(there))
}

fn read_groups(file: &TensorFile<'_>, spec: &NetworkSpec) -> Result<[Parameters; 5], ModelError> {
    let layout = Layout::new(spec)?;
    let group = |prefix: &str| {
        let named = layout.slots.iter().map(|slot| {
            let name = slot.name();
            let tensor = file.float(&format!("{prefix}{name}"), &slot.shape)?;
            Ok((name, tensor))
        });
        named
            .collect::<Result<Vec<_>, ModelError>>()
            .map(Parameters::new)
    };
    let [a, b, c, d, e] = GROUPS;
    Ok([group(a)?, group(b)?, group(c)?, group(d)?, group(e)?])
}

fn read_extra(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ModelError> {
    let file = safetensors::SafeTensors::deserialize(bytes);
    let file = file.map_err(|e| ModelError::NotSafetensors {
        size: bytes.len(),
        reason: e.to_string(),
    })?;
    let named = file.iter().filter_map(|(name, view)| {
        Some((name.strip_prefix(EXTRA)?.to_owned(), view.data().to_vec()))
    });
    Ok(named.collect())
}

fn json(what: &impl Serialize) -> Result<String, CheckpointError> {
    serde_json::to_string(what).map_err(|e| CheckpointError::Encode(e.to_string()))
}

#[cfg(test)]
mod tests;
