//! Trained weights: the network, its environment rules and its landmarks.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::environment::rules::Rules;
use common::imaging::manifest::hex;
use common::run::run_folder::RunFolder;
use learner::checkpoint::inference_weights;
use learner::training::trainer::{
    LANDMARKS_KEY, RESAMPLE_KEY, RULES_KEY, UPDATES_KEY, WEIGHTS_VERSION_KEY,
};
use model::files::tensor_file::Metadata;
use model::files::weights::Weights;
use model::{Network, NetworkSpec};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// A parsed weights file.
#[derive(Debug)]
pub struct Loaded {
    pub network: Network,
    pub rules: Rules,
    /// Spacing in mm to which the scans were resampled, 0 for their own; `None` if
    /// the file does not record it.
    pub resample_mm: Option<f64>,
    /// One name per agent.
    pub landmarks: Vec<String>,
    pub origin: Origin,
}

/// Where the weights came from, for the report.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    pub file: PathBuf,
    pub sha256: String,
    pub weights_version: Option<u64>,
    pub updates: Option<u64>,
}

/// Reads a weights file or checkpoint, the best (else the final) weights of a run
/// folder, or those of the newest run in a folder of runs.
///
/// `names` are used if the file (rl-medical's) has no landmark names.
pub fn load(path: &Path, names: &[String]) -> anyhow::Result<Loaded> {
    let file = weights_file(path)?;
    let bytes = std::fs::read(&file).map_err(|e| {
        let message = format!("cannot read weights {}: {e}", file.display());
        let hint = "training writes them to <run>/checkpoints/best.safetensors";
        Advice::new(Exit::Data, message).hint(hint)
    })?;
    let what = || Advice::new(Exit::Data, format!("load weights {}", file.display()));
    let read = if is_torch(&bytes) {
        model::files::torch_file::weights(&bytes, &Metadata::new()).with_context(what)?
    } else {
        inference_weights(&file)?
    };
    interpret(&file, &bytes, read, names).with_context(what)
}

/// Whether PyTorch wrote this: a zip file or a pickle.
fn is_torch(bytes: &[u8]) -> bool {
    // The first eight bytes of a safetensors file are a length and can have any value.
    let safetensors = bytes.get(8) == Some(&b'{');
    !safetensors && (bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 2]))
}

fn weights_file(path: &Path) -> Result<PathBuf, Advice> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let in_run = |run: &Path| {
        let files =
            ["best", "final"].map(|name| run.join(format!("checkpoints/{name}.safetensors")));
        files.into_iter().find(|file| file.is_file())
    };
    // A folder of runs means the newest of them.
    let newest = || in_run(RunFolder::latest(path).ok()?.path());
    in_run(path).or_else(newest).ok_or_else(|| {
        let message = format!("no checkpoints/best.safetensors in {}", path.display());
        Advice::new(Exit::Data, message).hint("give a weights file, or the folder of a trained run")
    })
}

/// The landmarks of rl-medical's brain agents, in its usual order.
pub const USUAL: [&str; 5] = ["13", "14", "0", "1", "2"];

/// The assumed landmarks of weights without landmark names (rl-medical's).
fn usual_landmarks(agents: usize) -> Vec<String> {
    let Some(usual) = USUAL.get(..agents) else {
        return Vec::new();
    };
    let names = usual.join(", ");
    console::note(&format!(
        "the weights have no landmark names; using rl-medical's brain landmarks {names}; override with --landmarks"
    ));
    usual.iter().map(ToString::to_string).collect()
}

/// rl-medical's rules for a network.
pub fn reference_rules(spec: &NetworkSpec) -> Rules {
    Rules {
        window_size: spec.window,
        history: spec.history,
        ..Rules::reference()
    }
}

fn interpret(file: &Path, bytes: &[u8], read: Weights, names: &[String]) -> anyhow::Result<Loaded> {
    let text = |key: &str| read.metadata.get(key).map(String::as_str);
    let spec = read.network.spec();
    let rules = match text(RULES_KEY) {
        Some(json) => {
            serde_json::from_str(json).with_context(|| format!("metadata {RULES_KEY}"))?
        }
        None => reference_rules(spec),
    };
    rules.validate()?;
    let landmarks: Vec<String> = match text(LANDMARKS_KEY) {
        Some(json) => {
            serde_json::from_str(json).with_context(|| format!("metadata {LANDMARKS_KEY}"))?
        }
        None if names.is_empty() => usual_landmarks(spec.agents),
        None => names.to_vec(),
    };
    if landmarks.len() != spec.agents {
        let (agents, count) = (spec.agents, landmarks.len());
        let message = format!("the network has {agents} agents, but {count} landmarks were given");
        let hint = "give --landmarks with one name or number per agent, in agent order";
        return Err(Advice::new(Exit::Data, message).hint(hint).into());
    }
    let number = |key: &str| text(key).and_then(|t| t.parse().ok());
    let origin = Origin {
        file: file.to_owned(),
        sha256: hex(&Sha256::digest(bytes)),
        weights_version: number(WEIGHTS_VERSION_KEY),
        updates: number(UPDATES_KEY),
    };
    let resample_mm = text(RESAMPLE_KEY).and_then(|t| t.parse().ok());
    Ok(Loaded {
        resample_mm,
        network: read.network,
        rules,
        landmarks,
        origin,
    })
}
