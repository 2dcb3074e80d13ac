//! Files that exclude other processes from a folder, also where a file system has no locks.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use super::machine::host_name;

/// Excludes other processes until it is dropped; the system releases it when the process ends.
#[derive(Debug)]
#[must_use]
pub struct LockFile {
    _file: File,
    /// False on a file system without locks.
    pub is_exclusive: bool,
}

/// Why a file is not locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds the lock.
    Held(Holder),
    /// The file cannot be created or opened.
    Open(io::Error),
}

/// The process that holds a lock, as far as it is known: its number and host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder(Option<(u32, String)>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((id, host)) => write!(f, "another process ({id} on {host})"),
            None => f.write_str("another process"),
        }
    }
}

impl LockFile {
    /// Locks the file `path`, which is created if missing and then names this process.
    /// On a file system without locks it succeeds, and the process warns once.
    pub fn new(path: &Path) -> Result<Self, LockError> {
        // Not truncated: until it is locked, it names its holder.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(LockError::Open)?;
        let locked = is_locked(&file, path).map_err(LockError::Open)?;
        let Some(is_exclusive) = locked else {
            return Err(LockError::Held(holder(&mut file)));
        };
        // Without the name, only the message to the next process says less.
        if let Err(error) = name_holder(&mut file) {
            tracing::debug!(%error, path = %path.display(), "the lock does not name its holder");
        }
        Ok(Self {
            _file: file,
            is_exclusive,
        })
    }
}

/// Locks an open file; `path` is used in the warning. Returns `None` if another process holds the
/// lock, and `Some(false)` on a file system without locks, of which one warning of this process
/// says what is not protected then. Fails for other reasons, when another process may hold it.
pub(super) fn is_locked(file: &File, path: &Path) -> io::Result<Option<bool>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(true)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if !lacks_locks(&error) => Err(error),
        Err(TryLockError::Error(error)) => {
            WITHOUT_LOCKS.get_or_init(|| {
                let folder = path.parent().unwrap_or(path).display();
                format!(
                    "file locks do not work in {folder} ({error}): nothing keeps two processes \
                     from writing to one run folder, journal or log file, where each would \
                     damage the files of the other; give each process a folder of its own"
                )
            });
            report_missing_locks();
            Ok(Some(false))
        }
    }
}

/// Whether an error of locking means that the file system has no locks.
fn lacks_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let without = [
        Errno::NOLCK,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
    ];
    error.kind() == io::ErrorKind::Unsupported
        || Errno::from_io_error(error).is_some_and(|errno| without.contains(&errno))
}

/// The warning of a process on a file system without locks.
static WITHOUT_LOCKS: OnceLock<String> = OnceLock::new();

/// Logs the warning, once; without a log it waits for the next call.
pub(super) fn report_missing_locks() {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    let has_log = !tracing::dispatcher::get_default(Dispatch::is::<NoSubscriber>);
    if let Some(warning) = WITHOUT_LOCKS.get().filter(|_| has_log)
        && !REPORTED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!("{warning}");
    }
}

fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{} {}", std::process::id(), host_name())
}

fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    // Longer than any process number and host name.
    let read = file.take(400).read_to_string(&mut text);
    let (id, host) = text.trim().split_once(' ').unwrap_or_default();
    let known = id.parse().ok().filter(|_| read.is_ok());
    Holder(known.map(|id| (id, host.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(path: &Path) -> String {
        match LockFile::new(path) {
            Err(LockError::Held(holder)) => holder.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_held_lock_names_its_holder_and_a_released_one_can_be_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Of a process that has ended, with a longer name.
        std::fs::write(&path, "4294967295 a-host-with-a-long-name.example.org\n").unwrap();
        let lock = LockFile::new(&path).unwrap();
        assert!(lock.is_exclusive);
        let own = format!(
            "another process ({} on {})",
            std::process::id(),
            host_name()
        );
        assert_eq!(held(&path), own);
        // As version 0.1.0 left it.
        std::fs::write(&path, "").unwrap();
        assert_eq!(held(&path), "another process");
        drop(lock);
        assert!(LockFile::new(&path).unwrap().is_exclusive);
        let missing = LockFile::new(&dir.path().join("none/lock"));
        assert!(matches!(missing, Err(LockError::Open(_))), "{missing:?}");
    }
}
