//! A run folder that only this process may write to.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::{Result, RunFolder, RunLock};

/// A locked run folder whose run may not have started yet. A folder that was created for a run
/// that never started is removed when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct ClaimedFolder {
    folder: RunFolder,
    lock: Option<RunLock>,
    remove: bool,
}

impl ClaimedFolder {
    /// Creates the folder of a new run; an empty name becomes the date and time, UTC.
    /// Fails when it holds a run, another process uses it, or it cannot be written to.
    pub fn create(dir: &Path, name: &str, now: SystemTime) -> Result<Self> {
        let existed = !name.is_empty() && dir.join(name).exists();
        let folder = RunFolder::create(dir, name, now)?;
        let lock = Some(folder.lock()?);
        Ok(Self {
            folder,
            lock,
            remove: !existed,
        })
    }

    /// Locks the folder of an earlier run.
    /// Fails when another process uses it.
    pub fn open(folder: RunFolder) -> Result<Self> {
        let lock = Some(folder.lock()?);
        Ok(Self {
            folder,
            lock,
            remove: false,
        })
    }

    /// Locks the folder `<dir>/<name>` of an earlier run if there is one, else creates it.
    /// Fails when another process uses it, or it cannot be written to.
    pub fn open_or_create(dir: &Path, name: &str, now: SystemTime) -> Result<Self> {
        let path = dir.join(name);
        if path.join("run.json").is_file() {
            Self::open(RunFolder::open(&path)?)
        } else {
            Self::create(dir, name, now)
        }
    }

    #[must_use]
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The run starts: the folder stays. The lock must be held as long as the run writes to it.
    pub fn keep(mut self) -> (RunFolder, Option<RunLock>) {
        self.remove = false;
        (self.folder.clone(), self.lock.take())
    }
}

impl Drop for ClaimedFolder {
    fn drop(&mut self) {
        if self.remove {
            fs::remove_dir_all(self.folder.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run_folder::RunFolderError;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_folder_that_was_created_for_a_run_that_never_started_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        drop(ClaimedFolder::create(dir.path(), "one", NOW).unwrap());
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        drop(ClaimedFolder::create(dir.path(), "one", NOW).unwrap());
        assert!(path.exists(), "it was there before");
        fs::remove_dir_all(&path).unwrap();
        let (folder, lock) = ClaimedFolder::create(dir.path(), "one", NOW)
            .unwrap()
            .keep();
        drop(lock);
        assert!(folder.checkpoints().is_dir());
    }

    #[test]
    fn a_folder_belongs_to_one_process_and_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let claim = || ClaimedFolder::open_or_create(dir.path(), "one", NOW);
        let (folder, lock) = claim().unwrap().keep();
        assert!(matches!(claim(), Err(RunFolderError::Busy { .. })));
        drop(lock);
        fs::write(folder.info_file(), "{}").unwrap();
        let again = ClaimedFolder::create(dir.path(), "one", NOW);
        assert!(matches!(again, Err(RunFolderError::Exists { .. })));
        assert!(folder.path().is_dir(), "another run's folder stays");
    }
}
