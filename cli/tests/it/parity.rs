//! `landmarl train` and a cluster of processes are one system: the same configuration leaves the
//! same files behind, and the other commands report the same about both runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::process::{Bench, files_below, json, json_lines, names_in, wait_for};
use crate::services::{CONFIG, PATIENCE, Service, at_free_address};

/// Exit codes of `landmarl train` and of the services that SIGTERM stops.
const STOPPED: [i32; 2] = [130, 0];

/// Settings beside those of [`CONFIG`].
const MORE: &str = r#"
replay.shards = 1
replay.capacity = 2000
actor.count = 1
cluster.lease_s = 2.0
validation.period = 20
validation.starts = 1
checkpoint.period = 20
evaluation.starts = 2
"#;

/// Settings that locate the services and do not affect the training.
const PLACES: [&str; 4] = [
    "cluster.learner",
    "cluster.shards",
    "log.folder",
    "run.name",
];

/// Files whose names or places follow from how the services are started: logs are named after
/// services, and shards of a cluster keep their rows on disks of their own.
fn place_differs(file: &str) -> bool {
    file.starts_with("logs/") || file.starts_with("replay/")
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.succeed("phantom --out data --train 3 --validation 1 --test 1 --size 48x56x48 --seed 3");
    // Two validation scans, one of which is also a training scan.
    for list in ["images", "landmarks"] {
        let of = |split: &str, number: usize| {
            let folder = bench.path("data").join(split);
            let text = bench.text(&format!("data/{split}/{list}.txt"));
            let line = text.lines().nth(number).unwrap();
            folder.join(line).display().to_string()
        };
        let text = [of("validation", 0), of("train", 1)].join("\n") + "\n";
        bench.write(&format!("validation/{list}.txt"), text);
    }
    let config = CONFIG.replace("data/validation/", "validation/");
    let config = config.replace("replay.min_rows = 400", "replay.min_rows = 64");
    bench.write("parity.toml", config + MORE);
    bench
}

/// A running training, and the process that stops it.
struct Running {
    learner: String,
    /// The first process is the one that stops the others.
    processes: Vec<Service>,
    /// Exit code of that process after SIGTERM.
    stopped: i32,
}

impl Running {
    /// Starts `landmarl train`; the log contains the address of its learner.
    fn train(bench: &Bench, line: &str) -> Self {
        let run = bench.path("runs/train");
        let listens = || messages(&run, "learner listens");
        let before = listens().len();
        let mut process = Service::start(bench, "landmarl", "train", line);
        let learner = wait_for("the address of the learner", PATIENCE, || {
            let line = listens().into_iter().nth(before);
            let ended = line.is_none() && !process.is_running();
            assert!(!ended, "{}", process.log());
            line.ok_or_else(|| process.log())
        });
        let learner = learner["address"].as_str().unwrap().to_owned();
        Self {
            learner,
            processes: vec![process],
            stopped: STOPPED[0],
        }
    }

    /// Starts learner, actor and evaluator, beside a running shard.
    fn cluster(bench: &Bench, shard: &str, more: &str) -> Self {
        let (learner, process) = start_learner(bench, shard, "runs/cluster", more);
        let set = "--config parity.toml --set log.folder=runs/cluster/logs";
        let part = |name: &str, command: &str| {
            let line = format!("{command} {set} --learner {learner}");
            Service::start(bench, "actor", name, &line)
        };
        let parts = [part("actor", "run"), part("evaluator", "evaluate")];
        Self {
            learner,
            processes: std::iter::once(process).chain(parts).collect(),
            stopped: STOPPED[1],
        }
    }

    /// `landmarl status --json` once an actor acts and the evaluator has reported.
    fn status(&self, bench: &Bench) -> Value {
        wait_for("an actor and an evaluation", PATIENCE, || {
            let done = bench.run(&format!("status {} --json", self.learner));
            let status: Value = serde_json::from_str(&done.out).unwrap_or_default();
            let acts = status["actors_joined"] == 1 && status["updates"].as_u64() >= Some(1);
            let evaluated = !status["last_evaluation"].is_null();
            if acts && evaluated && status["evaluators"][0].is_object() {
                return Ok(status);
            }
            Err(format!("{status:#}\n{}\n{}", done.err, self.logs()))
        })
    }

    /// Sends SIGTERM to the learner, which stops the others.
    fn stop(self) {
        self.processes[0].terminate();
        let code = self.stopped;
        self.ended(code);
    }

    fn ended(mut self, code: i32) {
        for (place, process) in self.processes.iter_mut().enumerate() {
            let expected = if place == 0 { code } else { 0 };
            // An evaluator whose learner was stopped waits for its return.
            if place > 0 && process.is_running() {
                process.terminate();
            }
            let ended = process.ended(PATIENCE);
            assert_eq!(ended, Some(expected), "{}", process.log());
        }
    }

    fn logs(&self) -> String {
        let logs: Vec<_> = self.processes.iter().map(Service::log).collect();
        logs.join("\n")
    }
}

fn start_shard(bench: &Bench) -> (String, Service) {
    at_free_address(|address| {
        let line = format!("serve --listen {address} --shard 0 --capacity 2000 --journal rows");
        let shard = Service::start(bench, "replay-server", "shard", &line);
        (shard, "replay shard listens")
    })
}

fn start_learner(bench: &Bench, shard: &str, run: &str, more: &str) -> (String, Service) {
    at_free_address(|address| {
        let line = format!(
            "run --config parity.toml --run-dir {run} --set log.folder={run}/logs \
             --set cluster.learner={address} --set cluster.shards=[\"{shard}\"] {more}"
        );
        let learner = Service::start(bench, "learner", "learner", &line);
        (learner, "learner listens")
    })
}

/// Lines with this message in all logs of a run folder.
fn messages(run: &Path, message: &str) -> Vec<Value> {
    let logs = run.join("logs");
    let mut found = Vec::new();
    for name in names_in(&logs) {
        let text = std::fs::read_to_string(logs.join(name)).unwrap();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let lines = lines.filter_map(Result::ok);
        found.extend(lines.filter(|l| l["message"].as_str().is_some_and(|m| m.contains(message))));
    }
    found
}

/// Relative paths of all files below a run folder; TensorBoard's without their time.
fn files(run: &Path) -> BTreeSet<String> {
    let name = |name: String| match name.strip_prefix("events.out.tfevents.") {
        Some(rest) => format!("events.{}", rest.split_once('.').unwrap().1),
        None => name,
    };
    files_below(run).into_iter().map(name).collect()
}

/// Everything that must not depend on how a run was started.
#[derive(Debug, PartialEq)]
struct Facts {
    files: BTreeSet<String>,
    baseline: Value,
    manifest: Value,
    info_keys: Vec<String>,
    info: BTreeMap<&'static str, Value>,
    validation_keys: Vec<String>,
    untrained: usize,
    last_updates: Value,
    metrics_keys: Vec<String>,
    /// Validation scans that are also training scans, according to the warning in the log.
    warnings: Vec<(Value, Value)>,
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

impl Facts {
    /// Collects it from a run that has ended.
    fn of(run: &Path) -> Self {
        let info = json(&run.join("run.json"));
        let validations = json_lines(&run.join("validation.jsonl"));
        let metrics = json_lines(&run.join("metrics.jsonl"));
        let same = ["seed", "manifest", "config_digest", "landmarks", "version"];
        let updates = |v: &Value| v["updates"].clone();
        let last = validations.last().unwrap();
        assert_eq!(updates(last), updates(metrics.last().unwrap()));
        let warned = messages(run, "is also a training scan");
        Self {
            files: files(run)
                .into_iter()
                .filter(|f| !place_differs(f))
                .collect(),
            baseline: json(&run.join("mean_landmarks.json")),
            manifest: json(&run.join("training_manifest.json")),
            info_keys: keys(&info),
            info: same.map(|key| (key, info[key].clone())).into(),
            validation_keys: keys(last),
            untrained: validations.iter().filter(|v| v["updates"] == 0).count(),
            last_updates: updates(last),
            metrics_keys: keys(metrics.last().unwrap()),
            warnings: warned
                .iter()
                .map(|l| (l["level"].clone(), l["scan"].clone()))
                .collect(),
        }
    }
}

/// The run's name, and sixteen unique digits.
fn run_id(run: &Path) -> String {
    let info = json(&run.join("run.json"));
    let id = info["run_id"].as_str().unwrap();
    let name = run.file_name().unwrap().to_str().unwrap();
    let suffix = id.strip_prefix(&format!("{name}-")).unwrap_or_default();
    let hex = suffix.chars().all(|c| c.is_ascii_hexdigit());
    assert!(suffix.len() == 16 && hex, "{id} of {name}");
    id.to_owned()
}

/// Keys of nested objects and lists, without their values.
fn all_keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = format!("{path}.{key}");
                into.insert(path.clone());
                all_keys(value, &path, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|v| all_keys(v, path, into)),
        _ => {}
    }
}

fn check_status(status: &Value, name: &str) -> BTreeSet<String> {
    assert_eq!(status["run"], name, "{status:#}");
    assert!(status["run_id"].as_str().unwrap().starts_with(name));
    for key in ["last_evaluation", "best_evaluation"] {
        let baseline = &status[key]["baseline_error_mm"];
        assert!(baseline.as_f64() > Some(0.0), "{key}: {status:#}");
    }
    let mut found = BTreeSet::new();
    all_keys(status, "", &mut found);
    found
}

/// The output of `eval`, `runs list` and `runs compare`.
fn check_reports(bench: &Bench, updates: u64) {
    let runs = bench.json("runs list --json");
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert_eq!(run["updates"], updates, "{run:#}");
        assert_eq!(run["updates_total"], updates, "{run:#}");
        assert_eq!(run["ended"], true, "{run:#}");
        for key in ["minutes", "best_validation_mm"] {
            assert!(run[key].as_f64() > Some(0.0), "{key}: {run:#}");
        }
    }
    assert_eq!(keys(&runs[0]), keys(&runs[1]));

    let compared = bench.json("runs compare runs/train runs/cluster --json");
    let mut differing = keys(&compared["differing_settings"]);
    differing.retain(|k| !PLACES.contains(&k.as_str()));
    assert!(differing.is_empty(), "{compared:#}");

    let eval = |name: &str| {
        let done = bench.succeed(&format!(
            "eval --load runs/{name} --images data/test/images.txt --no-pictures --device cpu \
             --landmarks-files data/test/landmarks.txt --out eval-{name} --json"
        ));
        let summary: Value = serde_json::from_str(&done.out).unwrap();
        let from = summary["baseline_from"].as_str().unwrap_or_default();
        let ours = from.contains("3 training scans of");
        assert!(ours && from.ends_with(&format!("/runs/{name}")), "{from}");
        assert!(!done.err.contains("unknown"), "{}", done.err);
        summary["baseline_error_mm"].as_f64().unwrap()
    };
    assert_eq!(eval("train"), eval("cluster"));
}

#[test]
fn a_cluster_and_landmarl_train_leave_the_same_run_behind() {
    let bench = bench();
    let (shard, _shard) = start_shard(&bench);
    let fresh = "train --config parity.toml --run-dir runs --name train --device cpu";
    let train = Running::train(&bench, fresh);
    let status = check_status(&train.status(&bench), "train");
    train.stop();
    let cluster = Running::cluster(&bench, &shard, "");
    assert_eq!(status, check_status(&cluster.status(&bench), "cluster"));
    cluster.stop();
    let paths = ["train", "cluster"].map(|name| bench.path("runs").join(name));
    let ids = paths.each_ref().map(|run| run_id(run));

    // Both continue to the same end.
    let metrics = paths
        .each_ref()
        .map(|run| json_lines(&run.join("metrics.jsonl")));
    let last = metrics
        .iter()
        .map(|m| m.last().unwrap()["updates"].as_u64());
    let updates = last.max().unwrap().unwrap() + 60;
    let resume = format!("train --resume runs/train --updates {updates}");
    Running::train(&bench, &resume).ended(0);
    let resume = format!("--resume auto --set learner.updates={updates}");
    Running::cluster(&bench, &shard, &resume).ended(0);
    let facts = paths.each_ref().map(|run| Facts::of(run));
    assert_eq!(facts[0].untrained, 1, "{:#?}", facts[0]);
    assert_eq!(facts[0].last_updates, updates);
    let warnings = &facts[0].warnings;
    assert_eq!(warnings.len(), 2, "once per start: {warnings:#?}");
    assert_eq!(facts[0], facts[1]);
    let resumed = paths.each_ref().map(|run| run_id(run));
    assert_eq!(ids, resumed, "resumed runs keep their ids");
    check_reports(&bench, updates);

    // A shard with rows of the first run of this name refuses the second run.
    std::fs::rename(&paths[1], bench.path("first")).unwrap();
    let (_, mut learner) = start_learner(&bench, &shard, "runs/cluster", "");
    assert_ne!(run_id(&paths[1]), ids[1]);
    wait_for("the refusal", PATIENCE, || {
        let log = learner.log();
        if log.contains("runs differ") {
            Ok(())
        } else {
            Err(log)
        }
    });
    learner.stop();
}
