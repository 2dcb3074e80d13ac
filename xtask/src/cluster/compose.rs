//! Docker and Compose, in either of its versions, and the containers of a project.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;

/// The base of the images.
pub const BASE: &str = "debian:bookworm-slim";
/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// One project: its files and variables.
#[derive(Debug)]
pub struct Compose {
    plugin: bool,
    folder: PathBuf,
    files: Vec<PathBuf>,
    project: String,
    variables: Vec<(String, String)>,
}

/// A container as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// A new container of the same name has another.
    pub id: String,
    pub service: String,
    pub name: String,
    pub running: bool,
    /// As the host counts; 0 if it does not run.
    pub pid: u64,
    /// When it was started last.
    pub started: String,
    /// How often the engine started it again.
    pub restarts: u64,
    pub exit_code: i64,
}

/// The client.
pub fn docker() -> Command {
    Command::new("docker")
}

/// Whether a command succeeds; its output is discarded.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

impl Compose {
    pub fn new(folder: &Path, files: Vec<PathBuf>, project: &str) -> Result<Self> {
        let plugin = succeeds(docker().args(["compose", "version"]));
        ensure!(
            plugin || succeeds(Command::new("docker-compose").arg("version")),
            "neither `docker compose` nor `docker-compose` is installed"
        );
        Ok(Self {
            plugin,
            folder: folder.to_path_buf(),
            files,
            project: project.to_owned(),
            variables: Vec::new(),
        })
    }

    /// Sets a variable of `.env`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// `docker compose ARGUMENTS`, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.plugin {
            let mut command = docker();
            command.arg("compose");
            command
        } else {
            Command::new("docker-compose")
        };
        command.current_dir(&self.folder);
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .args(arguments);
        command
    }

    /// Runs it with our own output.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        command::run(&mut self.command(arguments))
    }

    /// All containers of the project, including those that ended.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let ids = command::read(docker().args(["ps", "--all", "--quiet", "--filter", &label]))?;
        if ids.trim().is_empty() {
            return Ok(Vec::new());
        }
        let text = command::read(docker().arg("inspect").args(ids.split_whitespace()))?;
        let all: Vec<Value> = serde_json::from_str(&text).context("docker inspect")?;
        let mut all: Vec<Container> = all.iter().map(container).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The first container of a service that runs.
    pub fn running(&self, service: &str) -> Result<Container> {
        let mut all = self.containers()?.into_iter();
        all.find(|container| container.service == service && container.running)
            .with_context(|| format!("no container of {service} runs"))
    }

    /// The output of a program inside the first container of a service.
    pub fn exec(&self, service: &str, words: &[&str]) -> Result<String> {
        let name = self.running(service)?.name;
        command::read(docker().arg("exec").arg(name).args(words))
    }

    /// The engine's name for a volume of the project.
    pub fn volume(&self, name: &str) -> String {
        format!("{}_{name}", self.project)
    }
}

fn container(inspected: &Value) -> Container {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let state = &inspected["State"];
    Container {
        id: text(&inspected["Id"]),
        service: text(&inspected["Config"]["Labels"]["com.docker.compose.service"]),
        name: text(&inspected["Name"]).trim_start_matches('/').to_owned(),
        running: state["Running"].as_bool().unwrap_or(false),
        pid: state["Pid"].as_u64().unwrap_or(0),
        started: text(&state["StartedAt"]),
        restarts: inspected["RestartCount"].as_u64().unwrap_or(0),
        exit_code: state["ExitCode"].as_i64().unwrap_or(-1),
    }
}

/// Every address, as `/proc/net/tcp` writes it, on which this machine listens.
pub fn listening() -> BTreeSet<String> {
    // A machine without IPv6 has no second table.
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.iter().flat_map(fs::read_to_string);
    let mut all = BTreeSet::new();
    for line in tables.collect::<String>().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, local, _, LISTEN, ..] = words[..] {
            all.insert(local.to_owned());
        }
    }
    all
}

/// Whether only this machine reaches such an address: 127.0.0.0/8 (the bytes of
/// each word are in reverse order) or ::1.
pub fn is_loopback(address: &str) -> bool {
    let (ip, _) = address.split_once(':').unwrap_or((address, ""));
    (ip.len() == 8 && ip.ends_with("7F")) || ip == "00000000000000000000000001000000"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_read_from_the_engines_report() {
        let inspected = serde_json::json!({
            "Name": "/landmarl-test_actor_1", "RestartCount": 2,
            "Config": {"Labels": {"com.docker.compose.service": "actor"}},
            "State": {"Running": true, "Pid": 77, "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0},
        });
        let found = container(&inspected);
        assert_eq!(
            (found.service.as_str(), found.pid, found.restarts),
            ("actor", 77, 2)
        );
        assert_eq!(found.name, "landmarl-test_actor_1");
    }

    #[test]
    fn a_new_listener_is_seen_with_its_reach() {
        let listen = |ip: &str| std::net::TcpListener::bind((ip, 0)).unwrap();
        for (ip, loopback) in [("127.0.0.1", true), ("127.3.2.1", true), ("0.0.0.0", false)] {
            let before = listening();
            let listener = listen(ip);
            let port = format!(":{:04X}", listener.local_addr().unwrap().port());
            let now = listening();
            let mut new = now.difference(&before);
            let address = new.find(|address| address.ends_with(&port)).unwrap();
            assert_eq!(is_loopback(address), loopback, "{address}");
        }
        assert!(is_loopback("00000000000000000000000001000000:1CE8"));
        assert!(!is_loopback("00000000000000000000000000000000:1CE8"));
    }
}
