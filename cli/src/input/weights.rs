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
use model::Network;
use model::files::tensor_file::Metadata;
use model::files::weights::Weights;
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
        Advice::new(
            Exit::Data,
            format!("cannot read weights {}: {e}", file.display()),
        )
        .hint("training leaves them in <run>/checkpoints/best.safetensors")
    })?;
    let what = || Advice::new(Exit::Data, format!("load weights {}", file.display()));
    let read = if is_torch(&bytes) {
        model::files::torch_file::weights(&bytes, &Metadata::new()).with_context(what)?
    } else {
        inference_weights(&file)?
    };
    understand(&file, &bytes, read, names).with_context(what)
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
        let places = [
            "checkpoints/best.safetensors",
            "checkpoints/final.safetensors",
        ];
        places
            .map(|p| run.join(p))
            .into_iter()
            .find(|p| p.is_file())
    };
    // A folder of runs means the newest of them.
    let newest = || in_run(RunFolder::latest(path).ok()?.path());
    in_run(path).or_else(newest).ok_or_else(|| {
        let message = format!("{} holds no checkpoints/best.safetensors", path.display());
        Advice::new(Exit::Data, message)
            .hint("name a weights file, or the folder of a run that was trained")
    })
}

/// The landmarks of rl-medical's brain agents, in its usual order.
pub const USUAL: [&str; 5] = ["13", "14", "0", "1", "2"];

/// The assumed landmarks of weights without landmark names (rl-medical's).
fn usual_landmarks(agents: usize) -> Vec<String> {
    let Some(usual) = USUAL.get(..agents) else {
        return Vec::new();
    };
    console::note(&format!(
        "the weights name no landmarks: taken as rl-medical's brain landmarks {}; give --landmarks for others",
        usual.join(", ")
    ));
    usual.iter().map(ToString::to_string).collect()
}

fn understand(
    file: &Path,
    bytes: &[u8],
    read: Weights,
    names: &[String],
) -> anyhow::Result<Loaded> {
    let text = |key: &str| read.metadata.get(key).map(String::as_str);
    let spec = read.network.spec();
    let rules = match text(RULES_KEY) {
        Some(json) => {
            serde_json::from_str(json).with_context(|| format!("metadata {RULES_KEY}"))?
        }
        None => Rules {
            window_size: spec.window,
            history: spec.history,
            ..Rules::reference()
        },
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
        let message = format!(
            "the network has {} agents, but {} landmarks are named",
            spec.agents,
            landmarks.len()
        );
        let hint = "give --landmarks with one name or number per agent, in their order";
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
