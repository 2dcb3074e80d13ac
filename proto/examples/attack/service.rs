//! One process under attack: its memory, its log and its end.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::{logged, program};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Characters of a log that are shown of a service that has ended.
const SHOWN: usize = 2000;
/// Words of warnings that files could not be written.
const WRITES: [&str; 6] = [
    "checkpoint",
    "journal",
    "snapshot",
    "cannot write",
    "cannot save",
    "Too many open files",
];

/// A process that is killed when dropped.
pub struct Service {
    pub name: &'static str,
    child: Child,
    log: PathBuf,
    /// Bytes of the log that have been looked at.
    seen: u64,
}

/// What a service wrote to its log since the last look.
#[derive(Debug, Default)]
pub struct News {
    pub bytes: u64,
    /// Errors, and warnings of files that could not be written.
    pub bad: Vec<String>,
}

impl Service {
    pub fn start(bins: &Path, name: &'static str, folder: &Path, line: &str) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let child = logged(&mut program(bins, name, folder, line), &log)?;
        Ok(Self {
            name,
            child,
            log,
            seen: 0,
        })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        format!("{} ended: {}", self.name, &log[from..])
    }

    /// Resident memory in MB: the most since [`Service::reset_peak`] with `VmHWM`, now with `VmRSS`.
    pub fn memory_mb(&self, field: &str) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        let kib: f64 = kib
            .with_context(|| format!("{path} lacks {field}"))?
            .parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Lets the kernel measure the peak of resident memory anew.
    pub fn reset_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
    }

    pub fn news(&mut self) -> Result<News> {
        let mut file = std::fs::File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.seen))?;
        let mut text = Vec::new();
        let bytes = file.read_to_end(&mut text)? as u64;
        self.seen += bytes;
        let text = String::from_utf8_lossy(&text);
        let bad = text.lines().filter(|line| is_bad(line)).map(str::to_owned);
        let bad = bad.collect();
        Ok(News { bytes, bad })
    }

    /// SIGTERM; the seconds until its end, or `None` if that took too long or it failed.
    pub async fn stop(&mut self, within: Duration) -> Option<f64> {
        let begun = Instant::now();
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().ok()?;
        while begun.elapsed() < within {
            if let Some(status) = self.child.try_wait().ok()? {
                let took = begun.elapsed().as_secs_f64();
                return status.success().then_some(took);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }
}

/// Whether a line of the log says that the service is in trouble: peers that are refused are not.
fn is_bad(line: &str) -> bool {
    let Ok(json) = serde_json::from_str::<Value>(line) else {
        return line.starts_with("error: ") || line.contains("panicked");
    };
    match json["level"].as_str() {
        Some("ERROR") => true,
        Some("WARN") => {
            let refused = line.contains("refused");
            !refused && WRITES.iter().any(|word| line.contains(word))
        }
        _ => false,
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
