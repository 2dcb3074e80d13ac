//! The files of a run's checkpoint folder for download: names, digests, and open
//! files that stay readable after a rename or removal.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use proto::messages::checkpoints::{CheckpointInfo, is_file_name};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actors::evaluations::BEST;
use crate::checkpoint::folder::{LAST, number};

const EXTENSION: &str = ".safetensors";
/// Read buffer for digests.
const READ_BYTES: usize = 1 << 20;

/// Identity of a file's contents: kept by a rename, changed by a rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
}

/// An open file: readable even if its name is replaced or removed.
#[derive(Debug)]
pub struct Opened {
    pub info: CheckpointInfo,
    /// Positioned at the start.
    pub file: File,
}

/// Downloads at once: each keeps files open, and megabytes in memory.
pub const DOWNLOADS: usize = 16;

/// Why a file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no file of this name.
    #[error(
        "there is no checkpoint {name:?}; {}",
        if available.is_empty() {
            "none has been written yet".to_owned()
        } else {
            format!("there are {}", available.join(", "))
        }
    )]
    NotFound {
        name: String,
        available: Vec<String>,
    },
    #[error("{DOWNLOADS} checkpoints are being downloaded already; try again later")]
    Busy,
    #[error("cannot read checkpoint {name}: {source}")]
    Read { name: String, source: io::Error },
}

/// The checkpoint folder. Digests are computed once per file.
#[derive(Debug)]
pub struct CheckpointFiles {
    folder: PathBuf,
    digests: Mutex<HashMap<Identity, [u8; 32]>>,
    downloads: Arc<Semaphore>,
}

/// A place for one download, over gRPC or HTTP; freed on drop.
pub type Download = OwnedSemaphorePermit;

impl CheckpointFiles {
    /// The files of `folder`, which may not exist yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            digests: Mutex::default(),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }

    /// A place for one download.
    ///
    /// # Errors
    /// When there are [`DOWNLOADS`] already.
    pub fn download(&self) -> Result<Download, FilesError> {
        let place = Arc::clone(&self.downloads).try_acquire_owned();
        place.map_err(|_| FilesError::Busy)
    }

    /// All files, those with the most updates first. Computes the digests of new files.
    pub fn list(&self) -> Vec<CheckpointInfo> {
        let mut found: Vec<CheckpointInfo> = self
            .names()
            .into_iter()
            // Skips files removed since they were listed.
            .filter_map(|name| Some(self.open_file(&name).ok()?.info))
            .collect();
        found.sort_by(|a, b| (b.updates, &a.name).cmp(&(a.updates, &b.name)));
        found
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<String> = names
            .filter(|n| n.ends_with(EXTENSION) && is_file_name(n))
            .collect();
        names.sort();
        names
    }

    /// Opens the file of this name (`last` and `best` are aliases).
    ///
    /// # Errors
    /// When the folder has no such name, or the file cannot be read.
    pub fn open(&self, name: &str) -> Result<Opened, FilesError> {
        let file_name = match name {
            "last" => LAST,
            "best" => BEST,
            other => other,
        };
        let available = self.names();
        // Only listed names are opened: a requested name is never used as a path.
        let listed = available.iter().find(|n| *n == file_name);
        match listed.map(|listed| self.open_file(listed)) {
            Some(Ok(opened)) => Ok(opened),
            Some(Err(source)) if source.kind() != io::ErrorKind::NotFound => {
                let name = file_name.to_owned();
                Err(FilesError::Read { name, source })
            }
            _ => Err(FilesError::NotFound {
                name: name.to_owned(),
                available,
            }),
        }
    }

    /// Opens the file with this digest.
    pub fn open_same(&self, sha256: &[u8; 32]) -> Option<Opened> {
        let opened = self.names().into_iter().map(|n| self.open_file(&n));
        opened.flatten().find(|o| o.info.sha256 == *sha256)
    }

    fn open_file(&self, name: &str) -> io::Result<Opened> {
        let mut file = File::open(self.folder.join(name))?;
        let data = file.metadata()?;
        let identity = Identity {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.len(),
            modified_ns: i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()),
        };
        let modified = data
            .modified()
            .ok()
            .and_then(|m| m.duration_since(UNIX_EPOCH).ok());
        let sha256 = self.digest(&mut file, identity)?;
        let info = CheckpointInfo {
            updates: number(Path::new(name)),
            name: name.to_owned(),
            bytes: data.len(),
            sha256,
            modified_s: modified.map_or(0, |d| d.as_secs()),
        };
        Ok(Opened { info, file })
    }

    /// Rewinds the file afterwards.
    fn digest(&self, file: &mut File, identity: Identity) -> io::Result<[u8; 32]> {
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let known = digests().get(&identity).copied();
        if let Some(sha256) = known {
            return Ok(sha256);
        }
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        io::Seek::rewind(file)?;
        let sha256 = hasher.finalize().into();
        let mut digests = digests();
        // Old entries are dropped: a hundred are more than any folder keeps for long.
        if digests.len() > 100 {
            digests.clear();
        }
        digests.insert(identity, sha256);
        Ok(sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, CheckpointFiles) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside.safetensors"), "secret").unwrap();
        let inside = dir.path().join("checkpoints");
        fs::create_dir(&inside).unwrap();
        for (name, bytes) in [
            ("update-00000020.safetensors", "twenty"),
            ("update-00000100.safetensors", "hundred"),
            ("best.safetensors", "best"),
            (".hidden.safetensors", "hidden"),
            ("last.link", "in transit"),
        ] {
            fs::write(inside.join(name), bytes).unwrap();
        }
        let numbered = inside.join("update-00000100.safetensors");
        fs::hard_link(numbered, inside.join(LAST)).unwrap();
        let files = CheckpointFiles::new(&inside);
        (dir, files)
    }

    #[test]
    fn the_list_has_complete_files_only() {
        let (_dir, files) = folder();
        let list = files.list();
        let names: Vec<_> = list.iter().map(|f| (f.name.as_str(), f.updates)).collect();
        assert_eq!(
            names,
            [
                ("update-00000100.safetensors", Some(100)),
                ("update-00000020.safetensors", Some(20)),
                ("best.safetensors", None),
                (LAST, None),
            ]
        );
        assert_eq!(list[0].sha256, list[3].sha256, "one file, two names");
        let expected: [u8; 32] = Sha256::digest("hundred").into();
        assert_eq!(list[0].sha256, expected);
        let missing = CheckpointFiles::new(Path::new("/nowhere"));
        assert!(missing.list().is_empty());
    }

    #[test]
    fn open_files_stay_readable_and_new_contents_have_a_new_digest() {
        let (dir, files) = folder();
        let mut opened = files.open("last").unwrap();
        let inside = dir.path().join("checkpoints");
        fs::remove_file(inside.join(LAST)).unwrap();
        fs::remove_file(inside.join("update-00000100.safetensors")).unwrap();
        let mut text = String::new();
        opened.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hundred");
        assert!(files.open_same(&opened.info.sha256).is_none());

        let before = files.open("best").unwrap().info;
        let next = dir.path().join("next");
        fs::write(&next, "tseb").unwrap();
        fs::rename(next, inside.join(BEST)).unwrap();
        let after = files.open("best.safetensors").unwrap().info;
        assert_eq!((before.bytes, before.sha256 == after.sha256), (4, false));
        assert!(files.open_same(&after.sha256).is_some());
    }

    #[test]
    fn unlisted_names_are_refused_with_the_listed_ones() {
        let (_dir, files) = folder();
        for name in [
            "../outside.safetensors",
            "/etc/passwd",
            "last.link",
            ".hidden.safetensors",
            "",
        ] {
            let error = files.open(name).unwrap_err().to_string();
            assert!(
                error.contains("there is no checkpoint") && error.contains("best.safetensors"),
                "{name}: {error}"
            );
        }
    }
}
