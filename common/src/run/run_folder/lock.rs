//! One training at a time in a run folder.

use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Result, RunFolder, RunFolderError};
use crate::run::durable::{remove_abandoned, remove_leftovers};
use crate::run::lock::{LockError, LockFile};

/// Excludes other training processes from a run folder until it is dropped; the system
/// releases the lock when the process ends.
#[derive(Debug)]
#[must_use]
pub struct RunLock(#[expect(dead_code, reason = "held for its drop")] LockFile);

impl RunFolder {
    /// Locks the folder for this process and removes what killed ones left unfinished in it.
    /// On a file system without locks it goes on with a warning.
    /// Fails when another process uses it, or the lock file cannot be created.
    pub fn lock(&self) -> Result<RunLock> {
        let path = self.path.join("lock");
        let lock = LockFile::new(&path).map_err(|error| match error {
            LockError::Held(holder) => RunFolderError::Busy {
                path: self.path.clone(),
                holder,
            },
            LockError::Open(source) => RunFolderError::Write { path, source },
        })?;
        if lock.is_exclusive {
            for folder in [&self.path, &self.checkpoints()] {
                remove_leftovers(folder);
            }
        }
        // Other commands may be writing there.
        remove_abandoned(&self.evaluations());
        Ok(RunLock(lock))
    }

    /// Whether a process holds the lock of the folder.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let file = fs::File::open(self.path.join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
        assert!(!folder.is_in_use(), "there is no lock file");
        let lock = folder.lock().unwrap();
        assert!(folder.is_in_use());
        let error = make().lock().unwrap_err().to_string();
        let own = format!("is in use by another process ({} on", std::process::id());
        assert!(error.contains(&own), "{error}");
        drop(lock);
        assert!(!folder.is_in_use());
        let _lock = folder.lock().unwrap();
    }

    #[test]
    fn the_next_start_removes_what_killed_processes_left_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path(), "one", SystemTime::UNIX_EPOCH).unwrap();
        let unfinished = [
            folder.path().join(".run.json.77-0.tmp"),
            folder
                .checkpoints()
                .join(".update-00000010.safetensors.77-3.tmp"),
        ];
        let kept = [
            folder.evaluations().join(".report.html.77-1.tmp"),
            folder.checkpoints().join("mine.tmp"),
            folder.checkpoints().join(".mine.tmp"),
            folder.checkpoints().join("update-00000005.safetensors"),
        ];
        for file in unfinished.iter().chain(&kept) {
            fs::write(file, "x").unwrap();
        }
        let lock = folder.lock().unwrap();
        assert!(unfinished.iter().all(|file| !file.exists()));
        assert!(kept.iter().all(|file| file.exists()));
        // The files of a process that runs stay.
        fs::write(&unfinished[1], "x").unwrap();
        folder.lock().unwrap_err();
        assert!(unfinished[1].exists());
        drop(lock);
    }
}
