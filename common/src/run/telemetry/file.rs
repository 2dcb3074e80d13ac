//! The log file of one process: of bounded size, and never blocking.
//!
//! Lines are appended to `<service>-<instance>.jsonl`; at 64 MiB it is renamed to
//! `….jsonl.1`, the one before to `….jsonl.2`, and so on up to `….jsonl.4`. A
//! process that finds the file locked by another one of the same name uses
//! `<service>-<instance>-2.jsonl`. A disk that refuses lines, or the removal of
//! the folder, loses only the lines of that time, which are counted and
//! reported.
//!
//! file-rotate and logroller do less: neither locks its file, counts failed
//! writes, or detects that its file was removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::json::Labels;
use crate::run::lock::is_locked;
use crate::run::records::{RecordFile, ends_a_line};
use crate::run::throttle::Throttle;

/// Maximum number of processes with the same name in one folder.
const NAMESAKES: usize = 1000;
/// Interval between two checks that the path still refers to the open file, and
/// between two attempts to open one.
const CHECK_EVERY: Duration = Duration::from_secs(5);
const WARN_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) folder: PathBuf,
    pub(super) service: String,
    pub(super) instance: String,
}

/// A file that no other process writes to.
#[derive(Debug)]
pub(super) struct Claim {
    /// The instance, with a number appended if its name is not unique.
    pub(super) instance: String,
    path: PathBuf,
    file: File,
}

impl Name {
    pub(super) fn path(&self, instance: &str) -> PathBuf {
        self.folder
            .join(format!("{}-{instance}.jsonl", self.service))
    }

    /// Claims the first free name.
    pub(super) fn claim(&self) -> io::Result<Claim> {
        for number in 1..=NAMESAKES {
            let instance = match number {
                1 => self.instance.clone(),
                _ => format!("{}-{number}", self.instance),
            };
            let path = self.path(&instance);
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).read(true).open(&path)?;
            if is_locked(&file, &path)?.is_some() {
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

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Size at which a file is rotated.
    bytes: u64,
    /// Number of rotated files, without the current one.
    kept: usize,
}

pub(super) const BOUNDS: Bounds = Bounds {
    bytes: 64 << 20,
    kept: 4,
};

/// Writes lines, each by one call of `write`.
pub(super) struct LogFile {
    name: Name,
    bounds: Bounds,
    path: PathBuf,
    /// `None` while it cannot be opened.
    file: Option<RecordFile>,
    bytes: u64,
    /// Whether a killed process left half a line at the end.
    mid_line: bool,
    checked: Instant,
    /// Lines written since then.
    unchecked: u64,
    /// Lines lost since the last successful one.
    lost: u64,
    throttle: Throttle,
    warn: Box<dyn Fn(&str) + Send>,
    labels: Arc<Labels>,
    dropped: Arc<AtomicU64>,
}

impl LogFile {
    /// `warn` receives warnings that cannot be written to the file itself.
    pub(super) fn new(
        name: Name,
        claim: Claim,
        bounds: Bounds,
        warn: Box<dyn Fn(&str) + Send>,
        labels: Arc<Labels>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let mut log = Self {
            name,
            bounds,
            path: PathBuf::new(),
            file: None,
            bytes: 0,
            mid_line: false,
            checked: Instant::now(),
            unchecked: 0,
            lost: 0,
            throttle: Throttle::new(WARN_EVERY),
            warn,
            labels,
            dropped,
        };
        log.take(claim);
        log
    }

    fn take(&mut self, claim: Claim) {
        self.bytes = claim.file.metadata().map_or(0, |m| m.len());
        self.mid_line = !ends_a_line(&claim.file);
        self.path = claim.path;
        self.file = Some(RecordFile::new(claim.file));
        self.unchecked = 0;
    }

    fn write_line(&mut self, line: &[u8], now: Instant) {
        match self.try_line(line, now) {
            Ok(()) if self.lost > 0 => self.report_loss(now),
            Ok(()) => {}
            Err(error) => {
                self.lose(1);
                self.warn_of(&error, now);
            }
        }
    }

    fn try_line(&mut self, line: &[u8], now: Instant) -> io::Result<()> {
        if now.duration_since(self.checked) >= CHECK_EVERY {
            self.checked = now;
            self.check()?;
        }
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bounds.bytes {
            self.rotate()?;
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if self.mid_line {
            file.append(b"\n")?;
            self.bytes += 1;
            self.mid_line = false;
        }
        file.append(line)?;
        self.bytes += line.len() as u64;
        self.unchecked += 1;
        Ok(())
    }

    /// Reopens the file if its path refers to another one. The folder is not created
    /// again: its removal may be intended.
    fn check(&mut self) -> io::Result<()> {
        let open = self.file.as_ref();
        let open = open.and_then(|f| f.storage().metadata().ok());
        let named = fs::metadata(&self.path).ok();
        let identity = |file: &fs::Metadata| (file.dev(), file.ino());
        if open.is_some() && open.as_ref().map(identity) == named.as_ref().map(identity) {
            self.unchecked = 0;
            return Ok(());
        }
        if open.is_some_and(|file| file.nlink() == 0) {
            self.lose(self.unchecked);
        }
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let claim = self.name.claim()?;
        self.take(claim);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.bounds.kept).rev() {
            let [from, to] = [number, number + 1].map(|n| numbered(&self.path, n));
            fs::rename(from, to).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.reopen()
    }

    fn lose(&mut self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.lost += lines;
    }

    fn warn_of(&mut self, error: &io::Error, now: Instant) {
        if self.throttle.warning(now).is_some() {
            (self.warn)(&format!(
                "cannot write log lines to {}: {error}; {} dropped so far; training goes on",
                self.path.display(),
                self.lost
            ));
        }
    }

    fn report_loss(&mut self, now: Instant) {
        let line = self.labels.warning(&format!(
            "{} log lines were dropped here: the file could not be written",
            self.lost
        ));
        self.lost = 0;
        self.throttle.reset();
        // If this fails, so does the next line, which is counted.
        let _ = self.try_line(line.as_bytes(), now);
    }
}

/// `<file>.<number>`: a rotated file.
#[must_use]
pub fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Never fails: the caller, a thread of tracing-appender, ignores errors.
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
