//! Compose, in either of its versions, and the containers of a project.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::engine::{docker, has_plugin, succeeds};
use crate::command;

/// One project: its files, its variables.
#[derive(Debug)]
pub struct Compose {
    plugin: bool,
    folder: PathBuf,
    files: Vec<PathBuf>,
    project: String,
    variables: Vec<(String, String)>,
}

/// A container as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What the engine calls it; another one of the same name has another.
    pub id: String,
    /// The service that it belongs to.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// The process, as the host counts; 0 where it does not run.
    pub pid: u64,
    /// When it was started last.
    pub started: String,
    /// How often the engine started it again.
    pub restarts: u64,
    /// How it ended, if it did.
    pub exit_code: i64,
    /// `healthy`, `starting`, `unhealthy`; empty where nobody asks.
    pub health: String,
}

impl Compose {
    /// The project `project` of the files in `folder`.
    pub fn new(folder: &Path, files: Vec<PathBuf>, project: &str) -> Result<Self> {
        let plugin = has_plugin();
        if !plugin && !succeeds(Command::new("docker-compose").arg("version")) {
            bail!("neither `docker compose` nor `docker-compose` is there");
        }
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

    /// Runs it in sight.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        command::run(&mut self.command(arguments))
    }

    /// In words.
    pub fn describe(&self) -> Result<String> {
        Ok(command::read(&mut self.command(&["version", "--short"]))?
            .trim()
            .to_owned())
    }

    /// All containers of the project, ended ones too.
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

    /// Those of one service that run.
    pub fn running(&self, service: &str) -> Result<Vec<Container>> {
        let mut all = self.containers()?;
        all.retain(|container| container.service == service && container.running);
        Ok(all)
    }

    /// What a program says inside the first container of a service.
    pub fn exec(&self, service: &str, words: &[&str]) -> Result<String> {
        let running = self.running(service)?;
        let container = running
            .first()
            .with_context(|| format!("no container of {service} runs"))?;
        command::read(docker().arg("exec").arg(&container.name).args(words))
    }

    /// The name that the engine gives to a volume of the project.
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
        health: text(&state["Health"]["Status"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_read_from_what_the_engine_says() {
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
        assert_eq!(
            (found.name.as_str(), found.health.as_str()),
            ("landmarl-test_actor_1", "")
        );
    }
}
