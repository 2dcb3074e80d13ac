//! A real Prometheus beside the containers: it finds them by `deploy/prometheus`,
//! authenticates as the monitor and answers the queries of the dashboards.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::compose::{BASE, docker, succeeds};
use crate::command;

const NAME: &str = "landmarl-test-prometheus";
/// Where Debian's package puts it; it needs only the C library of the base.
const PROGRAM: &str = "/usr/bin/prometheus";
/// Names are looked up and scraped every few seconds; rates need two scrapes.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Prometheus {
    address: String,
}

impl Prometheus {
    /// In the network of the project, with the rights of the service in compose.yaml;
    /// `None` where no Prometheus is installed whose program a container could mount.
    pub fn start(root: &Path, project: &str) -> Result<Option<Self>> {
        if !Path::new(PROGRAM).exists() || !succeeds(Command::new("promtool").arg("--version")) {
            return Ok(None);
        }
        remove();
        let configuration = root.join("deploy/prometheus");
        let volumes = [
            format!("{PROGRAM}:{PROGRAM}:ro"),
            format!("{}:/etc/prometheus:ro", configuration.display()),
            format!("{project}_certs-monitor:/certs:ro"),
        ];
        let mut command = docker();
        command.args(["run", "--detach", "--name", NAME, "--read-only"]);
        command.args(["--network", &format!("{project}_default")]);
        command.args(["--cap-drop", "ALL", "--user", "65534:10001"]);
        command.args(["--tmpfs", "/prometheus:uid=65534,gid=10001"]);
        for volume in &volumes {
            command.args(["--volume", volume]);
        }
        command.args([
            BASE,
            PROGRAM,
            "--config.file=/etc/prometheus/prometheus.yml",
        ]);
        command::run(command.arg("--storage.tsdb.path=/prometheus"))?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = command::read(docker().args(["inspect", "--format", format, NAME]))?;
        let ip = ip.trim();
        ensure!(!ip.is_empty(), "{NAME} ended: {}", log());
        Ok(Some(Self {
            address: format!("http://{ip}:9090"),
        }))
    }

    /// The samples of an expression now.
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let words = ["query", "instant", "-o", "json", &self.address, expression];
        let json = command::read(Command::new("promtool").args(words))?;
        let samples = serde_json::from_str(&json).with_context(|| json.clone())?;
        match samples {
            Value::Array(samples) => Ok(samples),
            // A scalar.
            sample => Ok(vec![sample]),
        }
    }

    /// Waits until exactly these services are scraped and answer.
    pub fn sees(&self, wanted: &[(&str, usize)]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let up = self.query("up");
            let missing = match &up {
                Ok(up) => wanted
                    .iter()
                    .find(|(job, n)| answering(up, job) != Some(*n)),
                Err(_) => wanted.first(),
            };
            let Some((job, count)) = missing else {
                return Ok(());
            };
            if begun.elapsed() > PATIENCE {
                bail!(
                    "Prometheus does not see {count} of {job}, all up: {up:?}\n{}",
                    log()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until every expression of dashboards and alerts returns data; returns
    /// their number.
    pub fn answers(&self, root: &Path) -> Result<usize> {
        let all = expressions(root)?;
        let begun = Instant::now();
        for (origin, expression) in &all {
            loop {
                let found = self.query(expression);
                if found.as_ref().is_ok_and(|samples| !samples.is_empty()) {
                    break;
                }
                ensure!(
                    begun.elapsed() < PATIENCE,
                    "{origin}: {expression}: {found:?}\n{}",
                    log()
                );
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(all.len())
    }
}

/// Removes the container, if there is one.
pub fn remove() {
    succeeds(docker().args(["rm", "--force", "--volumes", NAME]));
}

fn log() -> String {
    let log = docker().args(["logs", "--tail", "30", NAME]).output();
    log.map_or_else(
        |error| error.to_string(),
        |log| String::from_utf8_lossy(&log.stderr).into_owned(),
    )
}

/// How many targets of a job answer; `None` while some do not.
fn answering(up: &[Value], job: &str) -> Option<usize> {
    let targets: Vec<&Value> = up.iter().filter(|s| s["metric"]["job"] == job).collect();
    let all = targets.iter().all(|s| s["value"][1] == "1");
    all.then_some(targets.len())
}

/// Every expression, with its origin.
fn expressions(root: &Path) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for board in ["training", "cluster"] {
        let path = root.join(format!("deploy/grafana/dashboards/{board}.json"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let board: Value = serde_json::from_str(&text)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for panel in list(&board["panels"]) {
            for target in list(&panel["targets"]) {
                if target["datasource"]["type"] == "prometheus" {
                    let expression = target["expr"].as_str().unwrap_or_default();
                    // Grafana's own variable: four scrapes and more.
                    let expression = expression.replace("$__rate_interval", "1m");
                    all.push((format!("panel {}", panel["title"]), expression));
                }
            }
        }
    }
    let path = root.join("deploy/prometheus/alerts.yml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let alerts = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    all.extend(alerts.map(|alert| (format!("alert {alert}"), compared(alert))));
    ensure!(all.len() > 70, "only {} expressions were found", all.len());
    Ok(all)
}

/// The data that an alert compares must exist, whether it fires or not. The cluster is
/// younger than what an alert compares with.
fn compared(alert: &str) -> String {
    let mut words = Vec::new();
    let mut all = alert.split(' ');
    while let Some(word) = all.next() {
        if ["==", ">", "<"].contains(&word) {
            all.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ").replace("offset 20m", "offset 30s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn alerts_lose_their_comparisons() {
        for (alert, expected) in [
            ("up == 0", "up"),
            (
                "rate(a[5m]) > 0.5 and on (b) c == 0",
                "rate(a[5m]) and on (b) c",
            ),
            ("a[1m] / a[1m] offset 20m < 0.5", "a[1m] / a[1m] offset 30s"),
        ] {
            assert_eq!(compared(alert), expected);
        }
    }

    #[test]
    fn a_target_that_is_down_is_no_target_less() {
        let up = |job: &str, value: &str| json!({"metric": {"job": job}, "value": [1.5, value]});
        let all = [
            up("actor", "1"),
            up("actor", "1"),
            up("replay", "0"),
            up("replay", "1"),
        ];
        assert_eq!(answering(&all, "actor"), Some(2));
        assert_eq!(answering(&all, "replay"), None);
        assert_eq!(answering(&all, "learner"), Some(0));
    }

    #[test]
    fn the_files_of_this_repository_hold_expressions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = expressions(&root).unwrap();
        let odd = |e: &str| e.is_empty() || e.contains('$') || e.contains("==");
        let odd: Vec<_> = all.iter().filter(|(_, e)| odd(e)).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }
}
