//! Removes evicted segments on a thread of its own: on some file systems removing
//! a few megabytes takes ten times as long as syncing a group, and acknowledgements
//! would wait for it.

use super::disk::Disk;
use std::path::PathBuf;

/// Removes files; failed removals are retried at the next call.
#[derive(Debug)]
pub struct Sweeper<D> {
    disk: D,
    left: Vec<PathBuf>,
}

impl<D: Disk> Sweeper<D> {
    pub fn new(disk: D) -> Self {
        let left = Vec::new();
        Self { disk, left }
    }

    /// Removes files, oldest first, so that a crash leaves no hole among them.
    pub fn sweep(&mut self, stale: Vec<PathBuf>) {
        self.left.retain(|path| self.disk.remove(path).is_err());
        for path in stale {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(file = %path.display(), %error, "cannot remove an evicted segment yet");
                self.left.push(path);
            }
        }
    }
}
