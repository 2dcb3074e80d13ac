//! Trained weights: the network, its environment rules and its landmarks.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::environment::rules::Rules;
use common::imaging::manifest::hex;
use common::run::run_folder::RunFolder;
use learner::checkpoint::inference_weights;
use learner::checkpoint::training_scans::TrainingScans;
use learner::training::trainer::{
    LANDMARKS_KEY, RESAMPLE_KEY, RULES_KEY, UPDATES_KEY, WEIGHTS_VERSION_KEY,
};
use model::files::weights::Weights;
use model::{Network, NetworkSpec};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::input::run::{self, run_folder};
use crate::input::settings::ConfigArgs;
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
    /// Spacing and hashes of the training scans, if the file records them.
    pub training: Option<TrainingScans>,
    /// One name per agent.
    pub landmarks: Vec<String>,
    pub origin: Origin,
}

/// Where the weights came from, for the report.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    pub file: PathBuf,
    /// Name of the run whose folder contains the file.
    pub run: Option<String>,
    pub sha256: String,
    pub weights_version: Option<u64>,
    pub updates: Option<u64>,
}

/// Reads a weights file or checkpoint, the best (else the final) weights of a run, named by
/// its folder or its name, or those of the newest run in a folder of runs.
///
/// `names` are used if the file (rl-medical's) has no landmark names; `config` names the
/// folder of runs.
pub fn load(path: &Path, names: &[String], config: &ConfigArgs) -> anyhow::Result<Loaded> {
    let file = weights_file(&located(path, config)?)?;
    let bytes = read(&file)?;
    let shown = file.display().to_string();
    let what = || Advice::new(Exit::Data, format!("cannot load weights {shown}"));
    // Settings that are valid on top of a run's may not be valid alone.
    let limits = config.load(Vec::new()).map(|config| config.data.limits());
    let limits = limits.unwrap_or_default();
    let read = inference_weights(&bytes, &shown, &limits).with_context(what)?;
    interpret(&file, &bytes, read, names).with_context(what)
}

/// The bytes of a weights file.
fn read(file: &Path) -> Result<Vec<u8>, Advice> {
    std::fs::read(file).map_err(|e| {
        let message = format!("cannot read weights {}: {e}", file.display());
        let hint = "training writes them to <run>/checkpoints/best.safetensors";
        Advice::new(Exit::Data, message).hint(hint)
    })
}

/// A file, a run's folder, or a folder of runs.
fn located(path: &Path, config: &ConfigArgs) -> anyhow::Result<PathBuf> {
    if path.is_file() || path.join("run.json").is_file() {
        return Ok(path.to_owned());
    }
    let found = run::runs(config).and_then(|runs| run_folder(path, &runs));
    match found {
        // Settings that are valid on top of a run's may not be valid alone.
        Err(_) if path.exists() => Ok(path.to_owned()),
        found => found.with_context(|| {
            Advice::new(
                Exit::Data,
                format!("cannot read weights {}", path.display()),
            )
        }),
    }
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
    let newest = RunFolder::newest(path).ok();
    let in_newest = || in_run(newest.as_ref()?.path());
    in_run(path).or_else(in_newest).ok_or_else(|| {
        let message = match &newest {
            Some(run) => format!(
                "{}, the newest run in {}, has no weights yet: no checkpoints/best.safetensors",
                run.path().display(),
                path.display()
            ),
            None => format!("no checkpoints/best.safetensors in {}", path.display()),
        };
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

/// Refuses weights that are NaN or infinite: every action would be chosen for no reason.
pub fn check_finite(network: &Network) -> anyhow::Result<()> {
    for (name, tensor) in network.parameters().iter() {
        if tensor.isfinite().all().int64_value(&[]) == 0 {
            anyhow::bail!("{name} has values that are NaN or infinite");
        }
    }
    Ok(())
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
    let count = |key: &str| text(key).and_then(|t| t.parse().ok());
    let origin = Origin {
        file: file.to_owned(),
        run: RunFolder::around(file).map(|run| run.name()),
        sha256: hex(&Sha256::digest(bytes)),
        weights_version: count(WEIGHTS_VERSION_KEY),
        updates: count(UPDATES_KEY),
    };
    check_finite(&read.network)?;
    Ok(Loaded {
        resample_mm: text(RESAMPLE_KEY).and_then(|t| t.parse().ok()),
        training: TrainingScans::read(&read.metadata)?,
        network: read.network,
        rules,
        landmarks,
        origin,
    })
}
