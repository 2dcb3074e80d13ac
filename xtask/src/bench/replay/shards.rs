//! Shards as processes: started, asked what they take, ended.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use super::case::{Ack, Group};
use crate::command;

/// A shard with an empty journal listens at once; this is for a slow disk.
const START: Duration = Duration::from_secs(30);
/// Lines of a shard's log that are kept to explain a failure.
const LOG_LINES: usize = 20;
/// Bytes of a block in what the system says a file takes.
const BLOCK_BYTES: u64 = 512;

/// All shards of one service; they end with it.
#[derive(Debug)]
pub struct Shards {
    processes: Vec<Process>,
    /// Removed last, when nobody writes there any more.
    journals: Option<TempDir>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    address: String,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Shards {
    /// Starts empty shards that hold the group's rows together; with journals
    /// below `scratch` if they must be durable.
    pub fn start(program: &Path, group: Group, scratch: &Path) -> Result<Self> {
        let journals = match group.ack {
            Ack::Memory => None,
            Ack::Durable => Some(
                tempfile::Builder::new()
                    .prefix("journals-")
                    .tempdir_in(scratch)
                    .with_context(|| format!("no journals in {}", scratch.display()))?,
            ),
        };
        let mut shards = Self {
            processes: Vec::new(),
            journals,
        };
        let capacity = group.rows.div_ceil(group.shards.into());
        for number in 0..group.shards {
            let mut command = Command::new(program);
            command
                .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
                .args(["--shard", &number.to_string()])
                .args(["--capacity", &capacity.to_string()]);
            if let Some(folder) = &shards.journals {
                let journal = folder.path().join(format!("shard-{number}"));
                command.arg("--journal").arg(journal);
            }
            shards.processes.push(Process::start(&mut command)?);
        }
        Ok(shards)
    }

    /// Where they listen, separated by commas.
    pub fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.processes.iter().map(|p| p.address.as_str()).collect();
        addresses.join(",")
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|p| p.child.id()).collect()
    }

    /// Memory that they hold now, all together.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.pids().into_iter().map(resident_bytes).sum()
    }

    /// Disk that their journals take now; none without journals.
    pub fn disk_bytes(&self) -> Result<Option<u64>> {
        let folder = self.journals.as_ref().map(TempDir::path);
        folder.map(allocated_bytes).transpose()
    }

    /// An error with what the shards complained about.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let said: Vec<String> = self
            .processes
            .iter()
            .flat_map(Process::said)
            .filter(|line| line.contains("\"warn\"") || line.contains("\"error\""))
            .collect();
        if said.is_empty() {
            return error;
        }
        error.context(format!("the shards say:\n{}", said.join("\n")))
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that ended by itself cannot be killed, which is as well.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let line = command::show(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` does not start"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (heard, address) = mpsc::channel();
        let kept = log.clone();
        let reader = thread::spawn(move || listen(stderr, &kept, &heard));
        let mut process = Self {
            child,
            address: String::new(),
            log,
        };
        if let Ok(address) = address.recv_timeout(START) {
            process.address = address;
            return Ok(process);
        }
        let _ = process.child.kill();
        let status = process
            .child
            .wait()
            .context("a shard cannot be waited for")?;
        let _ = reader.join();
        let said: Vec<String> = process.said().into_iter().collect();
        bail!("`{line}` does not serve ({status}):\n{}", said.join("\n"))
    }

    fn said(&self) -> VecDeque<String> {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }
}

/// Keeps the end of a log and tells the address that it names; reads on until
/// the shard ends, because one that cannot write its log would stop.
fn listen(stderr: ChildStderr, log: &Mutex<VecDeque<String>>, heard: &Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(address) = address(&line) {
            // Nobody asks for a second one.
            let _ = heard.send(address);
        }
        if let Ok(mut log) = log.lock() {
            if log.len() == LOG_LINES {
                log.pop_front();
            }
            log.push_back(line);
        }
    }
}

fn address(line: &str) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(entry.get("address")?.as_str()?.to_owned())
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    resident(&text).ok_or_else(|| anyhow!("{path} names no VmRSS: the shard has ended"))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Blocks that all files below `folder` take, reserved ones too.
fn allocated_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("{} cannot be listed", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            // A segment may be dropped while we look.
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                sum += meta.blocks() * BLOCK_BYTES;
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_log_names_the_address() {
        let line = r#"{"address":"127.0.0.1:41313","message":"replay shard listens"}"#;
        assert_eq!(address(line).as_deref(), Some("127.0.0.1:41313"));
        assert_eq!(address("error: unexpected argument"), None);
        assert_eq!(address("{}"), None);
    }

    #[test]
    fn memory_and_disk_are_counted() {
        assert_eq!(
            resident("VmHWM:\t 9 kB\nVmRSS:\t  124652 kB\n"),
            Some(127_643_648)
        );
        assert_eq!(resident("Name:\tx\n"), None);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(allocated_bytes(folder.path()).unwrap(), 0);
        let deep = folder.path().join("a");
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("b"), vec![1; 10_000]).unwrap();
        assert!(allocated_bytes(folder.path()).unwrap() >= 10_000);
    }

    #[test]
    fn a_shard_that_does_not_serve_is_quoted() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'error: unexpected argument --journal' >&2; exit 2",
        ]);
        let error = Process::start(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("unexpected argument --journal") && error.contains("exit"),
            "{error}"
        );
    }
}
