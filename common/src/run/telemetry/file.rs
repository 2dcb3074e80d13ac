//! The log file: of one process alone, of bounded size, and never in the way.
//!
//! `<service>-<instance>.jsonl` is written to; at [`FILE_BYTES`] it becomes
//! `….jsonl.1`, what was there `….jsonl.2`, and so on up to [`KEPT`]. A process
//! that finds the file locked by another one of the same name takes
//! `<service>-<instance>-2.jsonl`. A disk that refuses lines, or a folder that
//! goes away, costs these lines and nothing else; how many there were is told.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::run::durable::ends_a_line;

/// A file this large is rotated.
pub const FILE_BYTES: u64 = 64 << 20;
/// Rotated files that are kept, besides the one that is written to.
pub const KEPT: usize = 4;
/// Processes of one name in one folder.
const NAMESAKES: usize = 1000;
/// Time between two looks at whether the file is still where it was opened,
/// and between two tries to open one.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How large, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: FILE_BYTES,
            kept: KEPT,
        }
    }
}

/// The names that a process may take for its file.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) folder: PathBuf,
    pub(super) service: String,
    pub(super) instance: String,
}

/// A file that no other process writes to.
#[derive(Debug)]
pub(super) struct Claim {
    /// The instance, with a number if it is not the only one of its name.
    pub(super) instance: String,
    path: PathBuf,
    file: File,
}

impl Name {
    fn path(&self, instance: &str) -> PathBuf {
        self.folder
            .join(format!("{}-{instance}.jsonl", self.service))
    }

    /// The path without a number: what errors name.
    pub(super) fn first(&self) -> PathBuf {
        self.path(&self.instance)
    }

    /// Takes the first free name.
    pub(super) fn claim(&self) -> io::Result<Claim> {
        for number in 1..=NAMESAKES {
            let instance = if number == 1 {
                self.instance.clone()
            } else {
                format!("{}-{number}", self.instance)
            };
            let path = self.path(&instance);
            if let Some(file) = open_alone(&path)? {
                return Ok(Claim {
                    instance,
                    path,
                    file,
                });
            }
        }
        let why = format!("{NAMESAKES} processes of this name write there already");
        Err(io::Error::other(why))
    }
}

/// `None` while another process holds it.
fn open_alone(path: &Path) -> io::Result<Option<File>> {
    let options = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .clone();
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks: names must differ by configuration.
        Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Where a log tells what it cannot write.
pub(super) type Complain = Box<dyn Fn(&str) + Send>;

/// Writes lines, each by one call of `write`.
pub(super) struct LogFile {
    name: Name,
    path: PathBuf,
    bounds: Bounds,
    /// `None` while it cannot be opened.
    file: Option<File>,
    bytes: u64,
    /// The last line was cut off in the middle.
    broken: bool,
    looked: Instant,
    /// Lines written since then.
    unseen: u64,
    /// Lines lost since the last complaint.
    lost: u64,
    complained: Option<Instant>,
    complain: Complain,
    /// Makes a line of the log that says this.
    line: Box<dyn Fn(&str) -> String + Send>,
    dropped: Arc<AtomicU64>,
}

impl LogFile {
    pub(super) fn new(
        name: Name,
        claim: Claim,
        bounds: Bounds,
        complain: Complain,
        line: Box<dyn Fn(&str) -> String + Send>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let mut log = Self {
            name,
            path: PathBuf::new(),
            bounds,
            file: None,
            bytes: 0,
            broken: false,
            looked: Instant::now(),
            unseen: 0,
            lost: 0,
            complained: None,
            complain,
            line,
            dropped,
        };
        log.take(claim);
        log
    }

    fn take(&mut self, claim: Claim) {
        self.bytes = claim.file.metadata().map_or(0, |m| m.len());
        // A line that a kill cut off must not swallow the next one.
        self.broken = self.bytes > 0 && !ends_a_line(&claim.file);
        self.path = claim.path;
        self.file = Some(claim.file);
        self.unseen = 0;
    }

    fn lose(&mut self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.lost += lines;
    }

    fn write_line(&mut self, line: &[u8], now: Instant) {
        match self.try_line(line, now) {
            Ok(()) if self.lost > 0 => self.tell_recovery(now),
            Ok(()) => {}
            Err(error) => {
                self.lose(1);
                self.complain_about(&error, now);
            }
        }
    }

    fn try_line(&mut self, line: &[u8], now: Instant) -> io::Result<()> {
        if now.duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.look()?;
        }
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bounds.bytes {
            self.rotate()?;
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if self.broken {
            file.write_all(b"\n")?;
            self.broken = false;
            self.bytes += 1;
        }
        match file.write(line) {
            Ok(written) if written == line.len() => {
                self.bytes += written as u64;
                self.unseen += 1;
                Ok(())
            }
            Ok(written) => {
                self.bytes += written as u64;
                self.broken = written > 0;
                Err(io::ErrorKind::StorageFull.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the file anew where its name leads elsewhere by now. The folder is
    /// not made again: whoever removed it may have meant it.
    fn look(&mut self) -> io::Result<()> {
        let open = self.file.as_ref().and_then(|f| f.metadata().ok());
        let named = fs::metadata(&self.path).ok();
        if open.is_some() && open.as_ref().map(identity) == named.as_ref().map(identity) {
            self.unseen = 0;
            return Ok(());
        }
        if open.is_some_and(|m| is_removed(&m)) {
            self.lose(self.unseen);
        }
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let claim = self.name.claim()?;
        self.take(claim);
        Ok(())
    }

    /// The open file gets the first number, the others the next, the last goes.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.bounds.kept).rev() {
            let (from, to) = (
                numbered(&self.path, number),
                numbered(&self.path, number + 1),
            );
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.reopen()
    }

    fn complain_about(&mut self, error: &io::Error, now: Instant) {
        let due = |at| now.duration_since(at) >= COMPLAIN_EVERY;
        if self.complained.is_none_or(due) {
            self.complained = Some(now);
            (self.complain)(&format!(
                "{} takes no log lines: {error}; {} dropped so far; training goes on",
                self.path.display(),
                self.lost
            ));
        }
    }

    fn tell_recovery(&mut self, now: Instant) {
        let told = (self.line)(&format!(
            "{} log lines were dropped here: the file could not be written",
            self.lost
        ));
        self.lost = 0;
        self.complained = None;
        // If this fails, it is the next line's turn to complain.
        let _ = self.try_line(told.as_bytes(), now);
    }
}

/// `<file>.<number>`: a rotated file.
#[must_use]
pub fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Which file it is, whatever its name.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> Option<std::time::SystemTime> {
    metadata.created().ok()
}

/// Whether no name leads to it any more.
#[cfg(unix)]
fn is_removed(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.nlink() == 0
}

#[cfg(not(unix))]
fn is_removed(_: &fs::Metadata) -> bool {
    false
}

/// Every `write` is one line; it never fails, because nobody could do anything about it.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_line(line, Instant::now());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
