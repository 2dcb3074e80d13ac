//! The metrics of a training, compared with the documentation, the dashboards, the
//! alerts, and a real Prometheus if one is installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proto::transport::metrics::{BUILD, DISK, Metric, PROCESS};
use regex::Regex;
use serde_json::Value;

use crate::process::{Bench, parse, wait_for};
use crate::services::{CONFIG, PATIENCE, Service, free_address};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every word in a text that looks like one of our metrics.
fn names(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\blandmarl_[a-z0-9_]+\b").unwrap();
    name.find_iter(text)
        .map(|m| m.as_str().to_owned())
        .collect()
}

/// Names of the samples in an exposition.
fn exported(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    samples.map(name).collect()
}

/// Metrics as rows of a table of docs/metrics.md.
fn rows<T>(metrics: &[Metric<T>]) -> String {
    let row = |metric: &Metric<T>| {
        let m = metric.describe();
        let (name, unit, help, healthy) = (m.name, m.unit, m.help, m.healthy);
        format!("| `{name}` | {unit} | {help} | {healthy} |\n")
    };
    metrics.iter().map(row).collect()
}

fn table<T>(metrics: &[Metric<T>]) -> String {
    format!(
        "| name | unit | what | healthy |\n|---|---|---|---|\n{}",
        rows(metrics)
    )
}

#[test]
fn the_documentation_has_the_tables_of_the_code() {
    let tables = [
        ("learner", table(learner::report::metrics::METRICS)),
        ("evaluator", table(actor::session::metrics::EVALUATOR)),
        ("actor", table(actor::session::metrics::ACTOR)),
        ("shard", table(replay_server::metrics::SHARD)),
        ("journal", table(replay_server::metrics::JOURNAL)),
        ("process", table(PROCESS) + &rows(BUILD) + &rows(DISK)),
    ];
    let have = read("docs/metrics.md");
    let mut want = have.clone();
    for (name, table) in tables {
        let begin = format!("<!-- {name} -->\n");
        let (before, rest) = want.split_once(&begin).unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        want = format!("{before}{begin}{table}<!-- end -->{after}");
    }
    if std::env::var_os("LANDMARL_REGEN").is_some() {
        std::fs::write(file("docs/metrics.md"), &want).unwrap();
        return;
    }
    assert!(
        have == want,
        "docs/metrics.md has not the metrics of the code; \
         run LANDMARL_REGEN=1 cargo test -p cli --test it documentation"
    );
}

/// The expressions of both dashboards, with their panels.
fn dashboards() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for board in ["training", "cluster"] {
        let board = parse(&read(&format!("deploy/grafana/dashboards/{board}.json")));
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                if target["datasource"]["type"] == "prometheus" {
                    let of = format!("{}: {}", board["title"], panel["title"]);
                    all.push((of, target["expr"].as_str().unwrap().to_owned()));
                }
            }
        }
    }
    assert!(all.len() > 60, "{}", all.len());
    all
}

/// Name and expression of each alert.
fn alerts() -> Vec<(String, String)> {
    let text = read("deploy/prometheus/alerts.yml");
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(str::to_owned);
    let of = |key| text.lines().filter_map(move |l| value(l, key));
    let all: Vec<_> = of("- alert: ").zip(of("expr: ")).collect();
    assert_eq!(all.len(), of("expr: ").count());
    all
}

/// A training in one process that exports all metrics, and the exported text.
struct Training {
    address: String,
    text: String,
    _process: Service,
    bench: Bench,
}

impl Training {
    fn start() -> Self {
        let bench = Bench::new();
        bench.write("run.toml", CONFIG);
        bench.phantoms();
        let address = free_address();
        let line = format!(
            "train --config run.toml --validation-images data/validation/images.txt \
             --validation-landmarks data/validation/landmarks.txt --name run --actors 2 --log-json \
             --set http.listen={address} --set replay.journal=true --set validation.period=10 \
             --set log.instance=here"
        );
        let mut process = Service::start(&bench, "landmarl", "train", &line);
        let ready = [
            "landmarl_evaluator_error_millimetres ",
            "landmarl_actor_weights_age_seconds{actor=\"1\"}",
            "landmarl_learner_episode_error_finest_steps ",
            "landmarl_learner_left_seconds ",
        ];
        let text = wait_for("all metrics", PATIENCE, || {
            let text = get(&address, "/metrics").unwrap_or_default();
            if ready.iter().all(|name| text.contains(name)) {
                return Ok(text);
            }
            assert!(process.is_running(), "{}", process.log());
            Err(format!("{text}\n{}", process.log()))
        });
        Self {
            address,
            text,
            _process: process,
            bench,
        }
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut reply = ureq::get(format!("http://{address}{path}")).call().ok()?;
    reply.body_mut().read_to_string().ok()
}

#[test]
fn exported_metrics_are_documented_and_shown_metrics_are_exported() {
    let training = Training::start();
    let exported = exported(&training.text);
    let text = read("docs/metrics.md");
    let documented = names(text.split("## Prometheus").nth(1).unwrap());
    let missing: Vec<_> = exported.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let gone: Vec<_> = documented.difference(&exported).collect();
    assert!(gone.is_empty(), "documented, not exported: {gone:?}");

    let mut shown = BTreeSet::new();
    for (whence, expression) in dashboards().into_iter().chain(alerts()) {
        for name in names(&expression) {
            let known = exported.contains(&name);
            assert!(known, "{whence} uses {name}, which nobody exports");
            shown.insert(name);
        }
    }
    let hidden: Vec<_> = exported.difference(&shown).collect();
    assert!(hidden.is_empty(), "in no dashboard or alert: {hidden:?}");

    check_level_changes(&training);
    check_with_prometheus(&training);
}

fn check_level_changes(training: &Training) {
    let debug = || {
        let log = training.bench.text("runs/run/logs/landmarl-here.jsonl");
        log.contains("\"level\":\"debug\"")
    };
    assert!(!debug());
    let url = format!("http://{}/log-level", training.address);
    // From a page that gave its own name this address.
    let rebound = ureq::put(&url).header("Host", "evil.example:7480");
    let rebound = rebound.header("Origin", "http://evil.example:7480");
    let refused = rebound.send("debug").unwrap_err();
    assert!(matches!(refused, ureq::Error::StatusCode(403)), "{refused}");
    let mut reply = ureq::put(&url).send("debug").unwrap();
    assert_eq!(reply.body_mut().read_to_string().unwrap(), "debug\n");
    wait_for("a line of the new level", PATIENCE, || {
        debug().then_some(()).ok_or_else(String::new)
    });
    ureq::put(&url).send("info").unwrap();
    assert_eq!(get(&training.address, "/log-level").unwrap(), "info\n");
    assert_eq!(get(&training.address, "/health").unwrap(), "ok\n");
}

struct Prometheus {
    child: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes the training every second, with our rules.
    fn start(training: &Training) -> Self {
        let rules = read("deploy/prometheus/alerts.yml");
        training.bench.write("alerts.yml", rules);
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n\
             \x20 - job_name: landmarl\n\
             \x20   static_configs: [{{targets: [\"{}\"]}}]\n",
            training.address
        );
        training.bench.write("prometheus.yml", config);
        let address = free_address();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(training.bench.dir.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(training.bench.path("prometheus.log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// The current samples of an expression, or the reason why there are none.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut reply = ureq::get(format!("http://{}/api/v1/query", self.address))
            .query("query", expression)
            .config()
            .http_status_as_error(false)
            .build()
            .call()
            .map_err(|e| e.to_string())?;
        let text = reply.body_mut().read_to_string();
        let text = text.map_err(|e| e.to_string())?;
        let response: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        let result = response["data"]["result"].as_array().cloned();
        result.ok_or(text)
    }

    fn rules(&self) -> Value {
        parse(&get(&self.address, "/api/v1/rules").unwrap())
    }
}

/// An alert without its comparisons: the compared metrics must exist.
fn vector(expression: &str) -> String {
    let comparison = Regex::new(r" (==|>|<) [0-9.]+").unwrap();
    comparison.replace_all(expression, "").into_owned()
}

/// Replaces minutes by seconds, and Grafana's interval by one that suits a short test.
fn shortened(expression: &str) -> String {
    let minutes = Regex::new(r"\b(\d+)m\b").unwrap();
    let expression = expression.replace("$__rate_interval", "20s");
    minutes.replace_all(&expression, "${1}s").into_owned()
}

#[expect(
    clippy::print_stdout,
    reason = "cargo xtask test looks for skipped tests there"
)]
fn skipped(test: &str) {
    println!("skipped: {test}: prometheus is not installed (apt-get install prometheus)");
}

/// Whether a program is installed; prints that the test is skipped if not.
fn installed(program: &str) -> bool {
    let installed = Command::new(program).arg("--version").output().is_ok();
    if !installed {
        skipped(program);
    }
    installed
}

fn check_with_prometheus(training: &Training) {
    if !installed("prometheus") {
        return;
    }
    let prometheus = Prometheus::start(training);
    let alert_vectors = alerts().into_iter().map(|(name, e)| (name, vector(&e)));
    let wanted = dashboards().into_iter().chain(alert_vectors);
    let mut left: Vec<_> = wanted
        .map(|(whence, expression)| (whence, shortened(&expression), String::new()))
        .collect();
    wait_for("data of all expressions", PATIENCE, || {
        left.retain_mut(|(_, expression, why)| {
            *why = match prometheus.query(expression) {
                Ok(samples) if !samples.is_empty() => return false,
                Ok(_) => "no data".to_owned(),
                Err(error) => error,
            };
            true
        });
        let log = training.bench.text("prometheus.log");
        let all = left.is_empty();
        all.then_some(()).ok_or_else(|| format!("{left:#?}\n{log}"))
    });
    let groups = prometheus.rules();
    let rules = groups["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

/// Debian's Prometheus package includes promtool.
#[test]
fn the_configuration_and_the_alerts_satisfy_promtool() {
    if !installed("promtool") {
        return;
    }
    for line in [
        // The configuration refers to certificates that the cluster creates.
        "check config --syntax-only prometheus.yml",
        "check rules alerts.yml",
        "test rules alerts_test.yml",
    ] {
        let done = Command::new("promtool")
            .args(line.split(' '))
            .current_dir(file("deploy/prometheus"))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "promtool {line}\n{output}");
    }
}
