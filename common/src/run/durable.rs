//! Atomic file writes that survive a power cut.
//!
//! Bytes are written to a temporary file in the same folder and synced to the disk
//! before it is renamed to the target; the folder is synced last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::records::RecordFile;

/// Far longer than a writer takes from the creation of its file to the lock.
const UNLOCKED_MAX: Duration = Duration::from_secs(60);

/// A file could not be written durably; its earlier content is untouched.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} '{}': {error}", path.display())]
pub struct DurableError {
    pub action: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

/// Replaces the content of `path` by `bytes`, atomically.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.commit()
}

/// Appends a line to a file of lines, which is created if it does not exist. A line that does not
/// fit on the disk is removed again.
/// Fails when the file cannot be opened or written.
pub fn append_line(path: &Path, line: &str) -> Result<(), DurableError> {
    let mut file = RecordFile::open_lines(path).map_err(failed("open", path))?;
    file.append(format!("{line}\n").as_bytes())
        .map_err(failed("write", path))
}

/// A file under construction that is renamed to its target at [`AtomicFile::commit`].
/// If dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    /// `None` only once committed.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Creates a temporary file next to `target`.
    pub fn create(target: &Path) -> Result<Self, DurableError> {
        Self::open(target, OpenOptions::new())
    }

    /// Creates one that only its owner can read (on Unix), whatever the folder's permissions.
    pub fn create_private(target: &Path) -> Result<Self, DurableError> {
        let mut options = OpenOptions::new();
        owner_alone(&mut options);
        Self::open(target, options)
    }

    fn open(target: &Path, mut options: OpenOptions) -> Result<Self, DurableError> {
        options.write(true).create_new(true);
        let opened = open_temporary(target, &options);
        let (temporary, file) = opened.map_err(failed("create", target))?;
        // Says to `remove_abandoned` that its writer lives; where there are no locks, nothing does.
        let _ = file.try_lock();
        Ok(Self {
            file: Some(BufWriter::new(file)),
            temporary,
            target: target.to_owned(),
        })
    }

    /// Syncs the bytes to the disk and renames the file to its target.
    pub fn commit(mut self) -> Result<(), DurableError> {
        let target = self.target.clone();
        if let Some(mut writer) = self.file.take() {
            let written = writer.flush().and_then(|()| writer.get_ref().sync_all());
            drop(writer);
            let renamed = written.and_then(|()| fs::rename(&self.temporary, &target));
            if let Err(error) = renamed {
                self.remove_temporary();
                return Err(failed("write", &target)(error));
            }
        }
        sync_folder(&target).map_err(failed("sync the folder of", &target))
    }

    fn remove_temporary(&self) {
        if let Err(error) = fs::remove_file(&self.temporary) {
            tracing::debug!(file = %self.temporary.display(), %error, "temporary file stays");
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or_else(
            || Err(io::ErrorKind::NotConnected.into()),
            |f| f.write(bytes),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.remove_temporary();
        }
    }
}

/// Removes the temporary files of processes that were killed. The caller must know that no other
/// process writes to the folder.
pub fn remove_leftovers(folder: &Path) {
    remove_temporaries(folder, |_| true);
}

/// As [`remove_leftovers`], in a folder to which other processes may write now: their files are
/// locked, or younger than a minute. Without locks it removes nothing.
pub fn remove_abandoned(folder: &Path) {
    remove_temporaries(folder, is_abandoned);
}

fn is_abandoned(temporary: &Path) -> bool {
    let is_free = File::open(temporary).and_then(|file| {
        // A file that its writer has just created may not be locked yet.
        let age = file.metadata()?.modified()?.elapsed();
        Ok(age.is_ok_and(|age| age > UNLOCKED_MAX) && file.try_lock().is_ok())
    });
    is_free.unwrap_or(false)
}

fn remove_temporaries(folder: &Path, is_left: impl Fn(&Path) -> bool) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let paths = names
        .filter(|name| is_temporary(name))
        .map(|name| folder.join(name));
    for path in paths.filter(|path| is_left(path)) {
        match fs::remove_file(&path) {
            Ok(()) => tracing::info!(file = %path.display(), "unfinished file removed"),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "unfinished file stays");
            }
        }
    }
}

/// Whether [`open_temporary`] made this name: `.<target>.<process>-<count>.tmp`.
fn is_temporary(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|n| n.strip_suffix(".tmp"));
    let numbers = inner.and_then(|n| n.rsplit_once('.')).map(|(_, n)| n);
    let numbers = numbers.and_then(|n| n.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(process, count)| is_number(process) && is_number(count))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
    let path = path.to_owned();
    move |error| DurableError {
        action,
        path,
        error,
    }
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Private from its creation on: a process that opened it earlier could continue to read it.
#[cfg(unix)]
fn owner_alone(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn owner_alone(_options: &mut OpenOptions) {}

/// The name contains process id and counter, so that writers of one target never share it.
fn open_temporary(target: &Path, options: &OpenOptions) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.tmp", std::process::id()));
        let path = folder(target).join(hidden);
        match options.open(&path) {
            Ok(file) => return Ok((path, file)),
            // Left over from a killed process with the same id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
fn sync_folder(target: &Path) -> io::Result<()> {
    match File::open(folder(target))?.sync_all() {
        // Some network file systems do not support this for folders.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(not(unix))]
fn sync_folder(_target: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_whole_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("case.01.bin");
        write_atomic(&path, b"a long first version").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["case.01.bin"]);
    }

    #[test]
    fn a_file_dropped_before_commit_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        write_atomic(&path, b"before").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        drop(file);
        assert_eq!(names(dir.path()), ["kept"]);
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn in_a_shared_folder_only_files_without_a_living_writer_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let age = |path: &Path| {
            let old = std::time::SystemTime::now() - 2 * UNLOCKED_MAX;
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        };
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, b"half").unwrap();
            path
        };
        age(&make(".a.bin.77-0.tmp"));
        make(".young.bin.77-1.tmp");
        age(&make(".mine.tmp"));
        age(&make("kept.bin"));
        let mut living = AtomicFile::create(&dir.path().join("b.bin")).unwrap();
        age(&living.temporary);
        remove_abandoned(dir.path());
        let left = names(dir.path());
        assert_eq!(left.len(), 4, "{left:?}");
        assert!(!left.contains(&".a.bin.77-0.tmp".to_owned()));
        living.write_all(b"whole").unwrap();
        living.commit().unwrap();
        assert_eq!(fs::read(dir.path().join("b.bin")).unwrap(), b"whole");
    }

    #[test]
    fn a_truncated_line_does_not_damage_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        append_line(&path, "one").unwrap();
        append_line(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        fs::write(&path, b"one\n{\"half").unwrap();
        append_line(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\n{\"half\ntwo\n");
        let error = append_line(dir.path(), "x").unwrap_err().to_string();
        assert!(error.starts_with("cannot open"), "{error}");
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no such folder/x.bin");
        let text = write_atomic(&path, b"").unwrap_err().to_string();
        assert!(
            text.contains("x.bin") && text.starts_with("cannot create"),
            "{text}"
        );
        // The target is a folder: the rename fails and the temporary file is removed.
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write_atomic(&taken, b"x").is_err());
        assert_eq!(names(dir.path()), ["taken"]);
        assert!(write_atomic(Path::new("/"), b"x").is_err());
    }
}
