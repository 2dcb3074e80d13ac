//! Segments that no row needs any more go on a thread of their own: removing a
//! few megabytes takes some file systems ten times as long as a group's sync,
//! and acknowledgements would wait for it.

use super::disk::Disk;
use std::path::PathBuf;

/// Removes files; those that stay are tried again with the next.
#[derive(Debug)]
pub struct Sweeper<D> {
    disk: D,
    left: Vec<PathBuf>,
}

impl<D: Disk> Sweeper<D> {
    /// A sweeper with nothing to do.
    pub fn new(disk: D) -> Self {
        let left = Vec::new();
        Self { disk, left }
    }

    /// Removes files, oldest first, so that a crash leaves no hole among them.
    pub fn sweep(&mut self, stale: Vec<PathBuf>) {
        self.left.retain(|path| self.disk.remove(path).is_err());
        for path in stale {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(file = %path.display(), %error, "a segment that is no longer needed stays for now");
                self.left.push(path);
            }
        }
    }
}
