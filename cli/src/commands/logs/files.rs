//! Finds, merges and follows the log files of a folder.
//!
//! A *chain* is the file of one process with its rotated predecessors. Files are opened from
//! the newest to the oldest, each once, even if files are renamed meanwhile: a rotation
//! neither loses nor repeats lines.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use common::run::telemetry::numbered;

use super::filter::Filter;
use super::line::Line;

/// The most rotated files that are looked for; more than landmarl keeps.
const ROTATED_MAX: usize = 32;

type Identity = (u64, u64);

#[derive(Debug)]
struct Open {
    identity: Identity,
    file: BufReader<File>,
    /// The beginning of a line that is not complete yet.
    partial: Vec<u8>,
}

/// The files of one process, the oldest first.
#[derive(Debug)]
struct Chain {
    path: PathBuf,
    open: VecDeque<Open>,
    /// The newest file opened so far.
    newest: Option<Identity>,
    /// The next line to merge.
    next: Option<Line>,
    /// No more lines are available in this pass.
    exhausted: bool,
}

/// All log files of a folder.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    chains: BTreeMap<PathBuf, Chain>,
    since: Option<u64>,
    /// Number of lines that could not be parsed.
    pub damaged: u64,
}

impl Files {
    pub fn open(folder: &Path, since: Option<u64>) -> io::Result<Self> {
        let mut files = Self {
            folder: folder.to_owned(),
            chains: BTreeMap::new(),
            since,
            damaged: 0,
        };
        files.refresh()?;
        Ok(files)
    }

    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Looks for new files and rotations.
    pub fn refresh(&mut self) -> io::Result<()> {
        for path in log_files(&self.folder)? {
            let chain = self.chains.entry(path.clone()).or_insert_with(|| Chain {
                path,
                open: VecDeque::new(),
                newest: None,
                next: None,
                exhausted: false,
            });
            chain.extend(self.since)?;
        }
        Ok(())
    }

    /// Passes the available lines that match the filter to `take`, in chronological order.
    pub fn merged(
        &mut self,
        filter: &Filter,
        mut take: impl FnMut(Line) -> bool,
    ) -> io::Result<()> {
        for chain in self.chains.values_mut() {
            chain.exhausted = false;
        }
        loop {
            let mut first: Option<&mut Chain> = None;
            for chain in self.chains.values_mut().filter(|c| !c.exhausted) {
                if chain.next.is_none() {
                    chain.next = chain.next_match(filter, &mut self.damaged)?;
                    chain.exhausted = chain.next.is_none();
                }
                let Some(line) = &chain.next else { continue };
                let before = first.as_ref().and_then(|c| c.next.as_ref());
                if before.is_none_or(|before| line.nanos < before.nanos) {
                    first = Some(chain);
                }
            }
            let line = first.and_then(|chain| chain.next.take());
            if !line.is_some_and(&mut take) {
                return Ok(());
            }
        }
    }

    /// Counts incomplete lines as damaged: no more data is expected.
    pub fn finish(&mut self) {
        for open in self.chains.values_mut().flat_map(|c| &mut c.open) {
            self.damaged += u64::from(!open.partial.is_empty());
            open.partial.clear();
        }
    }
}

/// The paths that processes write to, even if a file was just rotated away.
fn log_files(folder: &Path) -> io::Result<HashSet<PathBuf>> {
    let mut found = HashSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        let base = match name.rsplit_once('.') {
            Some((base, number)) if number.parse::<usize>().is_ok() => base,
            _ => name.as_ref(),
        };
        if base.ends_with(".jsonl") {
            found.insert(PathBuf::from(base));
        }
    }
    Ok(found)
}

/// Whether a folder holds log files.
pub fn has_logs(folder: &Path) -> bool {
    log_files(folder).is_ok_and(|files| !files.is_empty())
}

impl Chain {
    /// Opens the files that are newer than those opened before.
    fn extend(&mut self, since: Option<u64>) -> io::Result<()> {
        let mut known: HashSet<Identity> = self.open.iter().map(|o| o.identity).collect();
        known.extend(self.newest);
        let mut new: Vec<Open> = Vec::new();
        for number in 0..=ROTATED_MAX {
            let path = match number {
                0 => self.path.clone(),
                _ => numbered(&self.path, number),
            };
            let file = match File::open(&path) {
                Ok(file) => file,
                // During a rotation the first file may be missing.
                Err(e) if e.kind() == io::ErrorKind::NotFound && number == 0 => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            };
            let metadata = file.metadata()?;
            let identity = (metadata.dev(), metadata.ino());
            if known.contains(&identity) {
                break;
            }
            // Renamed between the listing and the opening.
            if new.iter().any(|open| open.identity == identity) {
                continue;
            }
            if number > 0 && is_older(&metadata, since) {
                break;
            }
            new.push(Open {
                identity,
                file: BufReader::new(file),
                partial: Vec::new(),
            });
        }
        if let Some(first) = new.first() {
            self.newest = Some(first.identity);
        }
        self.open.extend(new.into_iter().rev());
        Ok(())
    }

    /// The next complete line that matches the filter.
    fn next_match(&mut self, filter: &Filter, damaged: &mut u64) -> io::Result<Option<Line>> {
        loop {
            let last = self.open.len() == 1;
            let Some(open) = self.open.front_mut() else {
                return Ok(None);
            };
            let read = open.file.read_until(b'\n', &mut open.partial)?;
            let whole = open.partial.last() == Some(&b'\n');
            if read > 0 && whole {
                let text = String::from_utf8_lossy(&open.partial);
                let line = Line::parse(&text);
                *damaged += u64::from(line.is_none() && !text.trim().is_empty());
                open.partial.clear();
                if let Some(line) = line.filter(|l| filter.matches(l)) {
                    return Ok(Some(line));
                }
            } else if last {
                return Ok(None);
            } else {
                *damaged += u64::from(!open.partial.is_empty());
                self.open.pop_front();
            }
        }
    }
}

/// Whether the file's last modification was before `since`.
fn is_older(metadata: &fs::Metadata, since: Option<u64>) -> bool {
    let written = metadata.modified().ok();
    let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let (Some(since), Some(written)) = (since, written) else {
        return false;
    };
    // One minute of tolerance: the clocks of hosts differ.
    written + Duration::from_secs(60) < Duration::from_nanos(since)
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
