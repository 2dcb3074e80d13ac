//! Docker, and the containers of the project.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;

pub const PROJECT: &str = "landmarl-test";
/// The base of the images.
pub const BASE: &str = "debian:bookworm-slim";
/// Interval between two polls of a status.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

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

/// `docker LINE`, ready to run.
pub fn docker(line: &str) -> Command {
    command::new("docker", line)
}

/// Whether a command succeeds; its output is discarded.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// All containers of the project, including those that ended.
pub fn containers() -> Result<Vec<Container>> {
    let label = format!("label=com.docker.compose.project={PROJECT}");
    let ids = command::read(docker("ps --all --quiet --filter").arg(label))?;
    if ids.trim().is_empty() {
        return Ok(Vec::new());
    }
    let all = command::read(docker("inspect").args(ids.split_whitespace()))?;
    let all: Vec<Value> = serde_json::from_str(&all).context("docker inspect")?;
    let mut all: Vec<Container> = all.iter().map(container).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The first container of a service that runs.
pub fn running(service: &str) -> Result<Container> {
    let mut all = containers()?.into_iter();
    all.find(|container| container.service == service && container.running)
        .with_context(|| format!("no container of {service} runs"))
}

/// The output of a program inside the first container of a service.
pub fn exec(service: &str, line: &str) -> Result<String> {
    let name = running(service)?.name;
    command::read(docker("exec").arg(name).args(line.split(' ')))
}

/// The engine's name for a volume of the project, and where it is mounted.
pub fn rows_of(shard: usize) -> String {
    format!("{PROJECT}_rows-{shard}:/rows")
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

/// Polls until the state is as wanted, also while a service does not respond.
pub fn wait<T: Debug>(
    what: &str,
    within: Duration,
    look: impl Fn() -> Result<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) if wanted(&found) => return Ok(found),
            found if begun.elapsed() > within => {
                let seconds = within.as_secs_f64();
                bail!("waited {seconds:.0} s for {what}, found {found:?}")
            }
            _ => std::thread::sleep(POLL_EVERY),
        }
    }
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
        assert_eq!((found.pid, found.restarts), (77, 2));
        let names = [found.service, found.name];
        assert_eq!(names, ["actor", "landmarl-test_actor_1"]);
    }

    #[test]
    fn listeners_on_loopback_are_recognised() {
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
