//! Clients as processes: started together, their results joined.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::case::{Group, Operation};
use super::latency::{Measure, Part, joined};
use crate::command;

/// A load on running shards.
#[derive(Debug)]
pub struct Load {
    program: PathBuf,
    group: Group,
    addresses: String,
}

/// What all clients did together.
#[derive(Debug)]
pub struct Run {
    /// By operation.
    pub parts: BTreeMap<String, Measure>,
    /// Processor seconds of all clients.
    pub processor_s: f64,
}

/// What one client prints.
#[derive(Debug, Deserialize)]
struct Printed {
    parts: BTreeMap<String, Part>,
    processor_s: f64,
}

impl Load {
    /// A load on the shards at `addresses`.
    pub fn new(program: &Path, group: Group, addresses: String) -> Self {
        Self {
            program: program.to_owned(),
            group,
            addresses,
        }
    }

    /// Fills the shards: one client, all rows.
    pub fn fill(&self) -> Result<()> {
        let mut command = self.command("fill", 0);
        command.args(["--rows", &self.group.rows.to_string()]);
        together(vec![command])?;
        Ok(())
    }

    /// All clients at once; `rate` is of all together.
    pub fn run(&self, operation: Operation, rate: Option<f64>) -> Result<Run> {
        let name = match operation {
            Operation::MixedHalf => Operation::Mixed.name(),
            other => other.name(),
        };
        let commands = (0..self.group.clients).map(|client| {
            let mut command = self.command(name, client);
            command.args(["--seconds", &self.group.seconds.to_string()]);
            if let Some(rate) = rate {
                let each = rate / f64::from(self.group.clients);
                command.args(["--rate", &each.to_string()]);
            }
            command
        });
        let printed = together(commands.collect())?;
        let mut parts = BTreeMap::new();
        for name in printed.iter().flat_map(|client| client.parts.keys()) {
            let of_all = printed.iter().filter_map(|client| client.parts.get(name));
            parts.entry(name.clone()).or_insert_with(|| joined(of_all));
        }
        Ok(Run {
            parts,
            processor_s: printed.iter().map(|client| client.processor_s).sum(),
        })
    }

    fn command(&self, operation: &str, client: u32) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--shards", &self.addresses, "--operation", operation])
            .args(["--batch", &self.group.batch.to_string()])
            .args(["--ack", self.group.ack.name()])
            .args(["--client", &client.to_string()])
            .args(["--histogram", "--wait"]);
        command
    }
}

/// Runs clients that begin at the same moment; what each printed.
fn together(commands: Vec<Command>) -> Result<Vec<Printed>> {
    let mut clients = Vec::new();
    for mut command in commands {
        clients.push(Client::start(&mut command)?);
    }
    for client in &mut clients {
        client.wait_until_ready()?;
    }
    for client in &mut clients {
        client.begin()?;
    }
    clients.iter_mut().map(Client::result).collect()
}

/// One running client; it ends with this.
struct Client {
    line: String,
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Client {
    fn start(command: &mut Command) -> Result<Self> {
        let line = command::show(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` does not start"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        Ok(Self {
            line,
            child,
            stderr: BufReader::new(stderr),
        })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let mut said = String::new();
        self.stderr.read_line(&mut said)?;
        if said.trim() == "ready" {
            return Ok(());
        }
        self.stderr.read_to_string(&mut said)?;
        bail!("`{}` failed: {}", self.line, said.trim())
    }

    fn begin(&mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("no standard input")?;
        stdin
            .write_all(b"\n")
            .with_context(|| format!("`{}` ended before it began", self.line))
    }

    fn result(&mut self) -> Result<Printed> {
        let mut printed = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut printed)?;
        }
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        if !self.child.wait()?.success() {
            bail!("`{}` failed: {}", self.line, said.trim());
        }
        serde_json::from_str(&printed)
            .with_context(|| format!("`{}` printed what is no result", self.line))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // One that ended by itself cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const RESULT: &str = r#"{"parts":{"insert":{"rows_per_s":5.0,"max_ms":1.0,
        "histogram_us":[[10,2]]}},"processor_s":0.5}"#;

    #[test]
    fn nobody_begins_before_all_are_ready() {
        let folder = tempfile::tempdir().unwrap();
        let flag = folder.path().join("slow-is-ready");
        let flag = flag.display();
        let slow = format!("sleep 0.2; touch {flag}; echo ready >&2; read x; echo '{RESULT}'");
        let quick = format!("echo ready >&2; read x; test -e {flag} && echo '{RESULT}'");
        let printed = together(vec![shell(&quick), shell(&slow)]).unwrap();
        assert_eq!(printed.len(), 2);
    }

    #[test]
    fn a_client_that_fails_is_quoted() {
        let early = together(vec![shell("echo no shard >&2; echo at all >&2; exit 1")]);
        let error = early.unwrap_err().to_string();
        assert!(error.contains("no shard\nat all"), "{error}");
        let late = together(vec![shell(
            "echo ready >&2; read x; echo lost it >&2; exit 1",
        )]);
        let error = late.unwrap_err().to_string();
        assert!(error.contains("lost it"), "{error}");
    }
}
