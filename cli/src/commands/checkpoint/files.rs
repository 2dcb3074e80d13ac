//! Checkpoints and weights files of a folder; each file is read in full.

use std::fs;
use std::path::{Path, PathBuf};

use common::imaging::manifest::hex;
use common::run::run_folder::RunFolder;
use learner::checkpoint::{Checkpoint, is_checkpoint};
use learner::training::trainer::{UPDATES_KEY, WEIGHTS_VERSION_KEY};
use model::files::tensor_file::DIGEST_KEY;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::input::weights::check_finite;
use crate::output::failure::{Advice, Exit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The complete training state.
    Checkpoint,
    /// A network with its environment rules.
    Weights,
    /// Neither, or too damaged to identify.
    Unknown,
}

/// One file and its metadata.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    pub path: PathBuf,
    pub kind: Kind,
    pub updates: Option<u64>,
    pub weights_version: Option<u64>,
    pub bytes: u64,
    /// Digest of the whole file, hexadecimal.
    pub sha256: String,
    /// The file contains its own digest, and the digest matches.
    pub checked: bool,
    /// Why it cannot be used.
    pub damage: Option<String>,
}

/// The files of a run (or of the newest run in a folder of runs, or of a plain
/// folder), sorted by updates in descending order, then by name.
pub fn of_folder(path: &Path) -> anyhow::Result<Vec<File>> {
    let folder = folder_of(path);
    let entries = fs::read_dir(&folder).map_err(|e| {
        let message = format!("cannot list the checkpoints of {}: {e}", folder.display());
        Advice::new(Exit::Failed, message)
            .hint("give a run folder; `landmarl runs list` shows them")
    })?;
    let mut found: Vec<File> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| read(&path))
        .collect();
    if found.is_empty() {
        let message = format!("{} contains no .safetensors file", folder.display());
        let hint = "training writes one every `checkpoint.period` updates, and when it stops";
        return Err(Advice::new(Exit::Failed, message).hint(hint).into());
    }
    found.sort_by(|a, b| (b.updates, &a.path).cmp(&(a.updates, &b.path)));
    Ok(found)
}

fn folder_of(path: &Path) -> PathBuf {
    let inside = path.join("checkpoints");
    if inside.is_dir() {
        return inside;
    }
    RunFolder::newest(path).map_or_else(|_| path.to_owned(), |run| run.checkpoints())
}

/// Reads one file and reports any defect in `damage`.
pub fn read(path: &Path) -> File {
    let mut file = File {
        path: path.to_owned(),
        kind: Kind::Unknown,
        updates: None,
        weights_version: None,
        bytes: 0,
        sha256: String::new(),
        checked: false,
        damage: None,
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            file.damage = Some(format!("cannot be read: {error}"));
            return file;
        }
    };
    file.bytes = bytes.len() as u64;
    file.sha256 = hex(&Sha256::digest(&bytes));
    if is_checkpoint(&bytes) {
        match Checkpoint::from_bytes(&bytes, &path.display().to_string()) {
            Ok(checkpoint) => {
                (file.kind, file.checked) = (Kind::Checkpoint, true);
                file.updates = Some(checkpoint.record.updates);
                file.weights_version = Some(checkpoint.record.weights_version);
            }
            Err(error) => file.damage = Some(error.to_string()),
        }
        return file;
    }
    match model::files::weights::from_bytes(&bytes) {
        Ok(weights) => {
            let number = |key: &str| weights.metadata.get(key).and_then(|v| v.parse().ok());
            file.kind = Kind::Weights;
            // Its digest, if it has one, was compared.
            file.checked = weights.metadata.contains_key(DIGEST_KEY);
            file.updates = number(UPDATES_KEY);
            file.weights_version = number(WEIGHTS_VERSION_KEY);
            let finite = check_finite(&weights.network);
            file.damage = finite.err().map(|error| error.to_string());
        }
        Err(error) => file.damage = Some(error.to_string()),
    }
    file
}
