//! One training at a time in a run folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Result, RunFolder, RunFolderError};

/// Excludes other training processes from a run folder until it is dropped; the system
/// releases the lock when the process ends.
#[derive(Debug)]
#[must_use]
pub struct RunLock {
    _file: File,
}

impl RunFolder {
    /// Locks the folder for this process.
    /// Fails when another process uses it, or the lock file cannot be created.
    pub fn lock(&self) -> Result<RunLock> {
        let path = self.path.join("lock");
        let write = |source| RunFolderError::Write {
            path: path.clone(),
            source,
        };
        let file = File::create(&path).map_err(write)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = self.path.clone();
                return Err(RunFolderError::Busy { path });
            }
            // A file system without locks: users must choose distinct names.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, path = %path.display(), "cannot lock the run folder");
            }
        }
        Ok(RunLock { _file: file })
    }
}

/// Creates a new folder `name`, with a number appended if it exists already: two
/// trainings may start in the same second.
pub(super) fn make_alone(dir: &Path, name: &str) -> Result<PathBuf> {
    let failed = |path: &Path, source| RunFolderError::Write {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    let mut path = dir.join(name);
    for number in 2_u32.. {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                path = dir.join(format!("{name}-{number}"));
            }
            Err(e) => return Err(failed(&path, e)),
        }
    }
    Err(failed(&path, io::ErrorKind::AlreadyExists.into()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn runs_that_start_in_the_same_second_get_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let make = || RunFolder::create(&runs, "", SystemTime::UNIX_EPOCH).unwrap();
        let names = [make(), make(), make()].map(|f| f.name());
        let expected = ["", "-2", "-3"].map(|end| format!("1970-01-01-000000{end}"));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_in_use_cannot_be_locked_again() {
        let dir = tempfile::tempdir().unwrap();
        let make = || RunFolder::create(dir.path(), "one", SystemTime::UNIX_EPOCH).unwrap();
        let folder = make();
        let lock = folder.lock().unwrap();
        let error = make().lock().unwrap_err().to_string();
        assert!(error.contains("is in use by another process"), "{error}");
        drop(lock);
        let _lock = folder.lock().unwrap();
    }
}
