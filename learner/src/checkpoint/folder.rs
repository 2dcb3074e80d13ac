//! The folder of a run's checkpoints: written all or nothing, the newest few
//! kept, a broken one passed over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::run::durable::{DurableError, write_atomic};

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Name of the newest checkpoint, besides its own.
pub const LAST: &str = "last.safetensors";

/// Name of the weights that a training ends with.
pub const FINAL: &str = "final.safetensors";

/// Failures in a row from which on each is an alarm.
const ALARM: u32 = 3;

/// A checkpoint that was found whole, and those that were not.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Newer files that cannot be used, newest first.
    pub refused: Vec<PathBuf>,
}

/// Writes checkpoints; a full disk does not stop training.
#[derive(Debug)]
pub struct CheckpointFolder {
    dir: PathBuf,
    keep: usize,
    in_a_row: u32,
    failures: u64,
}

impl CheckpointFolder {
    /// A folder that keeps the newest `keep` checkpoints (at least one).
    #[must_use]
    pub fn new(dir: &Path, keep: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            keep: keep.max(1),
            in_a_row: 0,
            failures: 0,
        }
    }

    /// Writes that failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Writes a checkpoint, moves [`LAST`] and removes old ones. A failure is
    /// logged and counted; `None` then.
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
                if self.in_a_row >= ALARM {
                    let failures = self.in_a_row;
                    tracing::error!(%error, failures, "no checkpoint could be written {failures} times in a row: a crash now loses all training since; free the disk");
                } else {
                    tracing::warn!(%error, "checkpoint not written; training goes on");
                }
                None
            }
        }
    }

    fn write(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        let bytes = checkpoint.to_bytes()?;
        let failed = |e: DurableError| CheckpointError::Other(e.to_string());
        let path = self.dir.join(file_name(checkpoint.record.updates));
        let unusable = |e: io::Error| {
            CheckpointError::Other(format!("cannot create {}: {e}", self.dir.display()))
        };
        fs::create_dir_all(&self.dir).map_err(unusable)?;
        write_atomic(&path, &bytes).map_err(failed)?;
        // The checkpoint is safe; what follows is for people and for the disk.
        if let Err(error) = point(&path, &self.dir.join(LAST), &bytes) {
            tracing::warn!(%error, "{LAST} still names an older checkpoint");
        }
        self.remove_old(&path);
        Ok(path)
    }

    fn remove_old(&self, written: &Path) {
        let mut files = list(&self.dir);
        let newer = files.iter().position(|path| path == written).unwrap_or(0);
        // This run has not been there: they are broken, or another run's, and
        // would be taken for the newest.
        set_aside(&files[..newer]);
        for path in files.split_off(newer).into_iter().skip(self.keep) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "old checkpoint stays");
            }
        }
    }
}

/// Writes the weights that a training ends with; where.
///
/// # Errors
/// When the disk does not take them.
pub fn write_final(dir: &Path, weights: &[u8]) -> Result<PathBuf, DurableError> {
    let path = dir.join(FINAL);
    write_atomic(&path, weights)?;
    Ok(path)
}

/// Reads one file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => Checkpoint::from_bytes(&bytes, &name),
        Err(source) => Err(CheckpointError::Read { path: name, source }),
    }
}

/// The newest checkpoint that can be used; `None` where there is none at all.
/// Each that is passed over is logged with its reason.
///
/// # Errors
/// [`CheckpointError::NoneUsable`] when there are files and all are broken.
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
                tracing::warn!(%error, "checkpoint passed over");
                newest.get_or_insert(error.to_string());
                refused.push(path);
            }
        }
    }
    match newest {
        None => Ok(None),
        Some(newest) => {
            let folder = dir.display().to_string();
            Err(CheckpointError::NoneUsable {
                folder,
                count,
                newest,
            })
        }
    }
}

/// Takes files out of the numbering (`….aside`) without removing them.
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

/// Gives `path` a second name, replacing what had it.
fn point(path: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = name.with_extension("link");
    let _ = fs::remove_file(&temporary);
    if fs::hard_link(path, &temporary)
        .and_then(|()| fs::rename(&temporary, name))
        .is_ok()
    {
        // Renaming onto another name of the same file leaves both.
        let _ = fs::remove_file(&temporary);
        return Ok(());
    }
    write_atomic(name, bytes).map_err(io::Error::other)
}

fn file_name(updates: u64) -> String {
    format!("update-{updates:08}.safetensors")
}

/// The updates in the name of a numbered checkpoint.
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
