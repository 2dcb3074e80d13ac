//! A real Prometheus beside the containers: it finds them by `deploy/prometheus`,
//! authenticates as the monitor and evaluates the queries of the dashboards.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde_json::Value;

use super::compose::{BASE, PROJECT, docker, succeeds, wait};
use crate::{command, files};

const NAME: &str = "landmarl-test-prometheus";
/// Where Debian's package puts it; it needs only the C library of the base.
const PROGRAM: &str = "/usr/bin/prometheus";
/// Names are looked up and scraped every few seconds; rates need two scrapes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Prometheus in a container, by its address.
#[derive(Debug)]
pub struct Prometheus(String);

impl Prometheus {
    /// In the network of the project, with the rights of the service in compose.yaml;
    /// `None` where no Prometheus is installed whose program a container could mount.
    pub fn start(root: &Path) -> Result<Option<Self>> {
        if !Path::new(PROGRAM).exists() || !succeeds(Command::new("promtool").arg("--version")) {
            return Ok(None);
        }
        remove();
        let line = format!(
            "run --detach --name {NAME} --read-only --network {PROJECT}_default \
             --cap-drop ALL --user 65534:10001 --tmpfs /prometheus:uid=65534,gid=10001 \
             --volume {PROGRAM}:{PROGRAM}:ro --volume {PROJECT}_certs-monitor:/certs:ro --volume"
        );
        let configuration = root.join("deploy/prometheus");
        let mut run = docker(&line);
        run.arg(format!("{}:/etc/prometheus:ro", configuration.display()));
        run.args([BASE, PROGRAM, "--storage.tsdb.path=/prometheus"]);
        command::run(run.arg("--config.file=/etc/prometheus/prometheus.yml"))?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = command::read(docker("inspect --format").args([format, NAME]))?;
        let ip = ip.trim();
        if ip.is_empty() {
            return Err(with_log(anyhow!("{NAME} ended")));
        }
        Ok(Some(Self(format!("http://{ip}:9090"))))
    }

    /// The samples of an expression now.
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let words = ["query", "instant", "-o", "json", &self.0, expression];
        let json = command::read(Command::new("promtool").args(words))?;
        Ok(match serde_json::from_str::<Value>(&json).context(json)? {
            Value::Array(samples) => samples,
            scalar => vec![scalar],
        })
    }

    /// Waits until exactly these services are scraped and respond.
    pub fn wait_for_targets(&self, wanted: &[(&str, usize)]) -> Result<()> {
        let what = format!("Prometheus to scrape {wanted:?}");
        let up = || self.query("up");
        let all = |up: &Vec<Value>| {
            let mut wanted = wanted.iter();
            wanted.all(|(job, count)| reachable(up, job) == Some(*count))
        };
        wait(&what, PATIENCE, up, all).map(drop).map_err(with_log)
    }

    /// Waits until every expression of dashboards and alerts returns data; returns
    /// their number.
    pub fn wait_for_data(&self, root: &Path) -> Result<usize> {
        let all = expressions(root)?;
        let begun = Instant::now();
        for (origin, expression) in &all {
            let what = format!("data of {origin}: {expression}");
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let found = |samples: &Vec<Value>| !samples.is_empty();
            wait(&what, left, || self.query(expression), found).map_err(with_log)?;
        }
        Ok(all.len())
    }
}

/// Removes the container, if there is one.
pub fn remove() {
    succeeds(docker("rm --force --volumes").arg(NAME));
}

/// The error, then the end of the container's log.
fn with_log(error: Error) -> Error {
    match docker("logs --tail 30").arg(NAME).output() {
        Ok(log) => anyhow!("{error:#}\n{}", String::from_utf8_lossy(&log.stderr)),
        Err(_) => error,
    }
}

/// How many targets of a job respond; `None` while some do not.
fn reachable(up: &[Value], job: &str) -> Option<usize> {
    let targets: Vec<&Value> = up.iter().filter(|s| s["metric"]["job"] == job).collect();
    let all = targets.iter().all(|s| s["value"][1] == "1");
    all.then_some(targets.len())
}

/// Every expression, with its origin.
fn expressions(root: &Path) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for board in ["training", "cluster"] {
        let path = format!("deploy/grafana/dashboards/{board}.json");
        let board: Value = files::read_json(&root.join(path))?;
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
    let text = files::read(&root.join("deploy/prometheus/alerts.yml"))?;
    let alerts = text.lines().map(str::trim);
    let alerts = alerts.filter_map(|line| line.strip_prefix("expr: "));
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
        let two = "rate(a[5m]) > 0.5 and on (b) c == 0";
        for (alert, expected) in [
            ("up == 0", "up"),
            (two, "rate(a[5m]) and on (b) c"),
            ("a[1m] / a[1m] offset 20m < 0.5", "a[1m] / a[1m] offset 30s"),
        ] {
            assert_eq!(compared(alert), expected);
        }
    }

    #[test]
    fn a_job_with_a_target_that_is_down_is_not_ready() {
        let all = ["actor 1", "actor 1", "replay 0", "replay 1"].map(|target| {
            let (job, value) = target.split_once(' ').unwrap();
            json!({"metric": {"job": job}, "value": [1.5, value]})
        });
        assert_eq!(reachable(&all, "actor"), Some(2));
        assert_eq!(reachable(&all, "replay"), None);
        assert_eq!(reachable(&all, "learner"), Some(0));
    }

    #[test]
    fn dashboards_and_alerts_have_expressions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = expressions(&root).unwrap();
        let odd = |e: &str| e.is_empty() || e.contains('$') || e.contains("==");
        let odd: Vec<_> = all.iter().filter(|(_, e)| odd(e)).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }
}
