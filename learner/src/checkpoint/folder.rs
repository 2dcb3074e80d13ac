//! The folder of a run's checkpoints: atomic writes, retention of the newest few,
//! fallback from corrupt files to older ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::imaging::manifest::TrainingManifest;
use common::run::durable::{DurableError, write_atomic};
use proto::messages::checkpoints::is_file_name;

use crate::checkpoint::{Checkpoint, CheckpointError, training_scans};

/// Alias of the newest checkpoint.
pub const LAST: &str = "last.safetensors";

/// Name of the final weights file of a training run.
pub const FINAL: &str = "final.safetensors";

/// Consecutive failures after which each one is logged as an error.
const ALARM: u32 = 3;

/// The newest valid checkpoint, and the invalid ones that are newer.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    pub checkpoint: Checkpoint,
    /// Newer files that cannot be used, newest first.
    pub refused: Vec<PathBuf>,
}

/// Where a run goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Resume {
    /// It is a new run.
    #[default]
    No,
    /// The newest checkpoint that can be used, if there is one.
    Newest,
    /// The checkpoint of this name, with or without its extension.
    Named(String),
}

impl Resume {
    /// The checkpoint to go on from; none for a new run.
    ///
    /// # Errors
    /// As [`load_newest`]; when the named file is missing or cannot be used.
    pub fn find(&self, dir: &Path) -> Result<Option<Found>, CheckpointError> {
        let name = match self {
            Self::No => return Ok(None),
            Self::Newest => return load_newest(dir),
            Self::Named(name) => name,
        };
        let whole = [name.clone(), format!("{name}.safetensors")];
        // Never a path: only names of files in the folder.
        let whole = whole.into_iter().filter(|name| is_file_name(name));
        let path = whole.map(|name| dir.join(name)).find(|path| path.is_file());
        let path = path.ok_or_else(|| CheckpointError::NotFound {
            name: name.clone(),
            folder: dir.display().to_string(),
            available: names(&list(dir)),
        })?;
        Ok(Some(Found {
            checkpoint: load(&path)?,
            path,
            refused: Vec::new(),
        }))
    }
}

/// Writes checkpoints; a full disk does not stop training.
#[derive(Debug)]
pub struct CheckpointFolder {
    dir: PathBuf,
    keep: usize,
    in_a_row: u32,
    failures: u64,
    /// Why the last write failed.
    why: String,
}

impl CheckpointFolder {
    /// A folder that keeps the newest `keep` checkpoints (at least one).
    pub fn new(dir: &Path, keep: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            keep: keep.max(1),
            in_a_row: 0,
            failures: 0,
            why: String::new(),
        }
    }

    /// Renames the checkpoints with more updates, so that the next start does not take them
    /// for the newest: the run went on from an older one by choice.
    pub fn go_on_from(&self, updates: u64) {
        let files = list(&self.dir).into_iter();
        let newer = files.filter(|path| number(path).is_some_and(|n| n > updates));
        set_aside(&newer.collect::<Vec<_>>());
    }

    /// Failed writes so far.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Why the last write failed; empty before the first failure.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Writes a checkpoint, updates [`LAST`] and removes old ones. On failure logs
    /// and counts it and returns `None`.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Option<PathBuf> {
        match self.write(checkpoint) {
            Ok(path) => {
                self.in_a_row = 0;
                tracing::info!(file = %path.display(), updates = checkpoint.record.updates, "checkpoint written");
                Some(path)
            }
            Err(error) => {
                self.in_a_row += 1;
                self.failures += 1;
                self.why = error.to_string();
                if self.in_a_row >= ALARM {
                    let failures = self.in_a_row;
                    tracing::error!(%error, failures, "{failures} checkpoints in a row could not be written: a crash now loses all training since");
                } else {
                    tracing::warn!(%error, "checkpoint not written; training goes on, and the next one is tried");
                }
                None
            }
        }
    }

    fn write(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        let bytes = checkpoint.to_bytes()?;
        let path = self.dir.join(file_name(checkpoint.record.updates));
        fs::create_dir_all(&self.dir).map_err(|error| DurableError {
            action: "create",
            path: self.dir.clone(),
            error,
        })?;
        write_atomic(&path, &bytes)?;
        // The checkpoint is safe on disk; the alias and the cleanup may fail.
        if let Err(error) = point(&path, &self.dir.join(LAST), &bytes) {
            tracing::warn!(%error, "{LAST} still names an older checkpoint");
        }
        self.remove_old(&path);
        Ok(path)
    }

    fn remove_old(&self, written: &Path) {
        let mut files = list(&self.dir);
        let newer = files.iter().position(|path| path == written).unwrap_or(0);
        // This run has not reached these updates yet: the files are corrupt or another
        // run's, and would be mistaken for the newest.
        set_aside(&files[..newer]);
        for path in files.split_off(newer).into_iter().skip(self.keep) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "old checkpoint stays");
            }
        }
    }
}

/// Writes the final weights of a training run with its training scans; returns the path.
///
/// # Errors
/// When the file cannot be written.
pub fn write_final(
    dir: &Path,
    weights: &[u8],
    training: &TrainingManifest,
) -> Result<PathBuf, CheckpointError> {
    let path = dir.join(FINAL);
    write_atomic(&path, &training_scans::record(weights, training)?)?;
    Ok(path)
}

fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|source| CheckpointError::Read {
        path: name.clone(),
        source,
    })?;
    Checkpoint::from_bytes(&bytes, &name)
}

/// The newest valid checkpoint; `None` if there are no checkpoints. Logs each file
/// that it skips, with the reason. Fails if there are files and all are invalid.
pub fn load_newest(dir: &Path) -> Result<Option<Found>, CheckpointError> {
    let mut files = list(dir);
    let last = dir.join(LAST);
    if last.is_file() {
        files.push(last);
    }
    let count = files.len();
    let (mut refused, mut newest) = (Vec::new(), None);
    for path in files {
        match load(&path) {
            Ok(checkpoint) => {
                return Ok(Some(Found {
                    path,
                    checkpoint,
                    refused,
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "checkpoint skipped");
                newest.get_or_insert(error.to_string());
                refused.push(path);
            }
        }
    }
    let Some(newest) = newest else {
        return Ok(None);
    };
    Err(CheckpointError::NoneUsable {
        folder: dir.display().to_string(),
        count,
        newest,
    })
}

/// Renames files (`….aside`) so that they no longer count as checkpoints.
fn set_aside(files: &[PathBuf]) {
    for path in files {
        let mut name = path.clone().into_os_string();
        name.push(".aside");
        match fs::rename(path, &name) {
            Ok(()) => {
                tracing::warn!(file = %path.display(), "checkpoint ahead of this run is set aside");
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "checkpoint ahead of this run stays in place");
            }
        }
    }
}

/// Makes `name` an alias of `path`, replacing an existing one.
fn point(path: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = name.with_extension("link");
    let _ = fs::remove_file(&temporary);
    if fs::hard_link(path, &temporary)
        .and_then(|()| fs::rename(&temporary, name))
        .is_ok()
    {
        // Renaming one hard link onto another of the same file keeps both.
        let _ = fs::remove_file(&temporary);
        return Ok(());
    }
    write_atomic(name, bytes).map_err(io::Error::other)
}

/// The file names, or that there are none.
fn names(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|path| path.file_name()?.to_str());
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn file_name(updates: u64) -> String {
    format!("update-{updates:08}.safetensors")
}

/// The number of updates in a checkpoint's file name.
pub(crate) fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("update-")?
        .strip_suffix(".safetensors")?
        .parse()
        .ok()
}

/// Numbered checkpoints, newest first.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|e| Some((number(&e.path())?, e.path())))
        .collect();
    found.sort_by_key(|(updates, _)| std::cmp::Reverse(*updates));
    found.into_iter().map(|(_, path)| path).collect()
}
