//! The same cluster as plain processes on loopback, for machines without Docker.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::engine::succeeds;
use super::proxy::Proxy;
use super::scenario::{Cluster, Role, SHARDS, VICTIM};
use crate::command;

/// What containers are given to stop.
const GRACE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The processes, by their names.
#[derive(Debug)]
pub struct Processes {
    bin: PathBuf,
    folder: tempfile::TempDir,
    /// Where each shard listens, and where the learner does.
    shards: Vec<SocketAddr>,
    learner: SocketAddr,
    /// Between the last shard and everybody else.
    proxy: Proxy,
    config: PathBuf,
    running: BTreeMap<String, Child>,
    /// Whether the victim's rows lie on a small file system of their own.
    mounted: bool,
}

impl Processes {
    /// Nothing is started yet. The programs lie in `bin`.
    pub fn new(root: &Path, bin: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let shards = (0..SHARDS).map(|_| free_address());
        let shards = shards.collect::<Result<Vec<_>>>()?;
        let victim = shards.get(VICTIM).context("no such shard")?;
        let proxy = Proxy::start(*victim)?;
        let rows = folder.path().join(format!("rows-{VICTIM}"));
        fs::create_dir(&rows)?;
        let mount = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"];
        let mounted = succeeds(Command::new("mount").args(mount).arg(&rows));
        let made = Self {
            bin: bin.to_path_buf(),
            shards,
            learner: free_address()?,
            proxy,
            config: root.join("deploy/landmarl.toml"),
            running: BTreeMap::new(),
            mounted,
            folder,
        };
        let mut certs = Command::new(bin.join("landmarl"));
        certs.current_dir(made.folder.path());
        command::run(certs.args(["certs", "--out", "certs"]))?;
        let mut phantom = made.program("landmarl", "operator");
        phantom.args(["phantom", "--out", "data"]);
        phantom.args(["--train", "24", "--selection", "6", "--test", "0"]);
        command::run(&mut phantom)?;
        Ok(made)
    }

    /// A program with the cluster's settings and the certificate of a role.
    fn program(&self, name: &str, role: &str) -> Command {
        let mut addresses = self.shards.clone();
        if let Some(victim) = addresses.get_mut(VICTIM) {
            *victim = self.proxy.address();
        }
        let shards: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let place = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(self.bin.join(name));
        command
            .current_dir(self.folder.path())
            .env("LANDMARL__DATA__TRAIN_IMAGES", place("data"))
            .env("LANDMARL__DATA__CACHE", place("cache"))
            .env(
                "LANDMARL__CLUSTER__SHARDS",
                format!("[{}]", shards.join(",")),
            )
            .env("LANDMARL__CLUSTER__LEARNER", self.learner.to_string())
            .env("LANDMARL__CLUSTER__CA", place("certs/ca.pem"))
            .env(
                "LANDMARL__CLUSTER__CERT",
                place(&format!("certs/{role}.pem")),
            )
            .env(
                "LANDMARL__CLUSTER__KEY",
                place(&format!("certs/{role}.key")),
            )
            .env("LANDMARL__CLUSTER__TOKEN_FILE", place("certs/token"))
            .env("LANDMARL__LOG__FOLDER", place("run/logs"));
        command
    }

    fn start(&mut self, name: &str) -> Result<()> {
        if self.running.contains_key(name) {
            return Ok(());
        }
        let service = name.split('-').next().unwrap_or(name);
        let program = match service {
            "replay" => "replay-server",
            "evaluator" => "actor",
            other => other,
        };
        let mut command = self.program(program, service);
        command.env("LANDMARL__LOG__INSTANCE", name);
        let run = self.folder.path().join("run");
        match service {
            "replay" => {
                let number = name.strip_prefix("replay-").unwrap_or_default();
                let address = self.shard_address(number.parse()?)?;
                command
                    .args(["serve", "--shard", number, "--listen", &address])
                    .arg("--journal")
                    .arg(self.folder.path().join(format!("rows-{number}")));
            }
            "learner" => {
                command
                    .args(["run", "--resume", "auto", "--run-dir"])
                    .arg(&run);
            }
            "evaluator" => {
                command.arg("evaluate");
            }
            _ => {
                command.arg("run");
            }
        }
        let log = self.folder.path().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let child = command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    fn shard_address(&self, number: usize) -> Result<String> {
        Ok(self
            .shards
            .get(number)
            .context("no such shard")?
            .to_string())
    }

    /// SIGTERM to all of them, then the end of each within the grace.
    fn stop(&mut self, names: &[String]) -> Result<()> {
        let mut ending = Vec::new();
        for name in names {
            if let Some(child) = self.running.remove(name) {
                command::read(Command::new("kill").args(["-TERM", &child.id().to_string()]))?;
                ending.push((name, child));
            }
        }
        let begun = Instant::now();
        for (name, mut child) in ending {
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if begun.elapsed() > GRACE {
                    child.kill().ok();
                    child.wait().ok();
                    bail!("{name} does not stop within {} s", GRACE.as_secs());
                }
                std::thread::sleep(LOOK_EVERY);
            };
            ensure!(status.success(), "{name} ended badly at its stop: {status}");
        }
        Ok(())
    }

    fn actors(&self) -> Vec<String> {
        let names = self.running.keys();
        names.filter(|n| n.starts_with("actor-")).cloned().collect()
    }

    fn read_json(command: &mut Command) -> Result<Value> {
        Ok(serde_json::from_str(&command::read(command)?)?)
    }
}

impl Cluster for Processes {
    fn up(&mut self, actors: usize) -> Result<()> {
        for number in 0..SHARDS {
            self.start(&format!("replay-{number}"))?;
        }
        self.start("learner")?;
        self.start("evaluator")?;
        self.scale(actors)
    }

    fn scale(&mut self, actors: usize) -> Result<()> {
        let extra: Vec<String> = self.actors().into_iter().skip(actors).collect();
        self.stop(&extra)?;
        for number in 0..actors {
            self.start(&format!("actor-{number}"))?;
        }
        Ok(())
    }

    /// And starts it again, which in containers the engine does.
    fn kill(&mut self, role: Role) -> Result<()> {
        let name = match role {
            Role::Actor => "actor-0",
            other => other.name(),
        };
        let mut child = self.running.remove(name).context("it does not run")?;
        child.kill()?;
        child.wait()?;
        self.start(name)
    }

    fn cut(&mut self, cut: bool) -> Result<()> {
        self.proxy.cut(cut);
        Ok(())
    }

    fn fill(&mut self, full: bool) -> Result<bool> {
        if !self.mounted {
            return Ok(false);
        }
        let rows = self.folder.path().join(format!("rows-{VICTIM}"));
        let ballast = rows.join("ballast");
        if full {
            let mut file = File::create(&ballast)?;
            // Until there is no room: the error is what is wanted.
            std::io::copy(&mut std::io::repeat(0), &mut file).ok();
        } else {
            fs::remove_file(&ballast)?;
        }
        Ok(true)
    }

    fn down(&mut self) -> Result<()> {
        let mut first = self.actors();
        first.push("evaluator".to_owned());
        self.stop(&first)?;
        self.stop(&["learner".to_owned()])?;
        let shards: Vec<String> = (0..SHARDS).map(|n| format!("replay-{n}")).collect();
        self.stop(&shards)
    }

    fn learner(&self) -> Result<Value> {
        let address = self.learner.to_string();
        let status = ["status", "--json", "--address", &address];
        Self::read_json(self.program("learner", "operator").args(status))
    }

    fn shard(&self, number: usize) -> Result<Value> {
        let address = self.shard_address(number)?;
        let status = ["status", "--json", "--address", &address];
        Self::read_json(self.program("replay-server", "operator").args(status))
    }

    fn verify(&self, number: usize) -> Result<Value> {
        let folder = format!("rows-{number}");
        let verify = ["verify", "--json", &folder];
        Self::read_json(self.program("replay-server", "operator").args(verify))
    }

    fn validations(&self) -> Result<String> {
        let path = self.folder.path().join("run/validation.jsonl");
        Ok(fs::read_to_string(path).unwrap_or_default())
    }

    fn logs(&self) -> Result<String> {
        let mut logs = self.program("landmarl", "operator");
        command::read(logs.args(["logs", "run", "--json"]))
    }

    /// The test of the metrics has a Prometheus scrape a process.
    fn observed(&mut self, _actors: usize) -> Result<Option<usize>> {
        Ok(None)
    }

    fn only_killed_restarted(&mut self) -> Result<()> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                let log = self.folder.path().join(format!("{name}.log"));
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{name} ended by itself ({status}):\n{said}");
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        if self.mounted {
            let rows = self.folder.path().join(format!("rows-{VICTIM}"));
            succeeds(Command::new("umount").arg("-l").arg(rows));
        }
    }
}

/// Where nobody listens at this moment.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?)
}
