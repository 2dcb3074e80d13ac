//! The processes: started, asked, ended.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::latency::Latencies;
use super::{Options, Settings};
use crate::command;
use crate::workspace::Workspace;

/// How long processes may take to end once told to.
const END: Duration = Duration::from_secs(30);
/// Bytes of a log that are shown of a process that failed.
const LOG_END: usize = 2000;

/// Where the binaries are, and a folder for what they write.
#[derive(Debug)]
pub struct Programs {
    pub bins: PathBuf,
    pub scratch: PathBuf,
}

impl Programs {
    pub fn path(&self, name: &str) -> String {
        self.bins.join(name).display().to_string()
    }
}

#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// All of them; they end with it.
#[derive(Debug)]
pub struct Services {
    processes: Vec<Process>,
    learner: String,
    status: PathBuf,
    /// The newest version when measuring began.
    first_version: u64,
}

/// An address on which nobody listens at this moment.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl Services {
    pub fn start(
        workspace: &Workspace,
        programs: &Programs,
        options: &Options,
        settings: &Settings,
    ) -> Result<Self> {
        let learner = free_address()?;
        let mut services = Self {
            processes: Vec::new(),
            learner: learner.clone(),
            status: programs.bins.join("learner"),
            first_version: 0,
        };
        let addresses = (0..options.shards).map(|_| free_address());
        let addresses = addresses.collect::<Result<Vec<_>>>()?;
        let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        // Shards share the capacity among as many as the learner counts.
        let shards = format!("cluster.shards=[{}]", quoted.join(","));
        for (number, address) in addresses.iter().enumerate() {
            let mut command = workspace.command(&programs.path("replay-server"));
            command.args(["serve", "--listen", address]);
            command.args(["--shard", &number.to_string()]);
            command.arg("--config").arg(&settings.config);
            command.args(["--set", &shards]);
            command.arg("--journal");
            command.arg(programs.scratch.join(format!("rows-{number}")));
            services.add(programs, &format!("shard-{number}"), &mut command)?;
        }
        let set = |command: &mut Command| {
            command.arg("--config").arg(&settings.config);
            command.args(settings.set.iter().flat_map(|s| ["--set", s.as_str()]));
            command.args(["--set", &format!("cluster.learner={learner}")]);
            // Its own end would end the measurement.
            command.args(["--set", "learner.max_minutes=0.0"]);
            command.args(["--set", "learner.updates=1000000"]);
        };
        let mut command = workspace.command(&programs.path("learner"));
        command
            .arg("run")
            .arg("--run-dir")
            .arg(programs.scratch.join("run"));
        set(&mut command);
        command.args(["--set", "log.level=info,learner=debug"]);
        command.args(["--set", &shards]);
        services.add(programs, "learner", &mut command)?;
        for number in 0..options.actors {
            let mut command = workspace.command(&programs.path("actor"));
            command.args(["run", "--log-format", "json"]);
            set(&mut command);
            command.args(["--set", "log.level=info,actor=debug"]);
            services.add(programs, &format!("actor-{number}"), &mut command)?;
        }
        Ok(services)
    }

    fn add(&mut self, programs: &Programs, name: &str, command: &mut Command) -> Result<()> {
        let log = programs.scratch.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let line = command::show(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("`{line}` does not start"))?;
        self.processes.push(Process {
            name: name.to_owned(),
            child,
            log,
        });
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|p| p.child.id()).collect()
    }

    /// Fails once a process has ended.
    pub fn check(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended early ({status})", process.name);
            }
        }
        Ok(())
    }

    fn status(&self) -> Result<serde_json::Value> {
        let mut command = Command::new(&self.status);
        command.args(["status", "--json", "--address", &self.learner]);
        // It listens once the scans are read.
        let Ok(text) = command::read(&mut command) else {
            return Ok(serde_json::Value::Null);
        };
        serde_json::from_str(&text).context("the learner's status is no JSON")
    }

    /// Updates done; 0 as long as the learner does not answer.
    pub fn updates(&self) -> Result<u64> {
        Ok(self.status()?["updates"].as_u64().unwrap_or(0))
    }

    /// What is published from now on counts.
    pub fn begin(&mut self) -> Result<()> {
        let version = self.status()?["weights_version"].as_u64();
        self.first_version = version.context("the learner tells no version")? + 1;
        Ok(())
    }

    /// Tells all to end, actors first, and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        for process in self.processes.iter_mut().rev() {
            let pid = process.child.id().to_string();
            command::read(Command::new("kill").args(["-TERM", &pid]))?;
            let begin = Instant::now();
            while process.child.try_wait()?.is_none() {
                if begin.elapsed() > END {
                    bail!("{} does not end within {} s", process.name, END.as_secs());
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Of all actors, from their logs.
    pub fn latencies(&self) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        let actors = self
            .processes
            .iter()
            .filter(|p| p.name.starts_with("actor"));
        for actor in actors {
            let log = fs::read_to_string(&actor.log)
                .with_context(|| format!("{} cannot be read", actor.log.display()))?;
            latencies.add(&log, self.first_version);
        }
        Ok(latencies)
    }

    /// An error with the ends of the logs of those that ended.
    pub fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let mut said = Vec::new();
        for process in &mut self.processes {
            let ended = process.child.try_wait().ok().flatten().is_some();
            if ended || process.name == "learner" {
                said.push(format!("{} says:\n{}", process.name, end_of(&process.log)));
            }
        }
        error.context(said.join("\n"))
    }
}

fn end_of(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(LOG_END);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

impl Drop for Services {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that ended by itself cannot be killed, which is as well.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
