//! `landmarl train` and a cluster of processes are one system: the same configuration leaves the
//! same files behind, and the other commands report the same about both runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Bench, json};
use crate::run::lines;
use crate::services::{Service, at_free_address};

/// Timeout for steps that only a slow machine takes long for.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Exit codes of `landmarl train` and of the services that SIGTERM stops.
const STOPPED: [i32; 2] = [130, 0];

const CONFIG: &str = r#"
data.train_images = "data/train/images.txt"
data.train_landmarks = "data/train/landmarks.txt"
data.validation_images = "validation/images.txt"
data.validation_landmarks = "validation/landmarks.txt"
data.landmarks = ["0", "base_ball"]
rules.window_size = 12
rules.scales = [[2, 3], [1, 1]]
rules.max_steps = 30
replay.shards = 1
replay.capacity = 2000
replay.min_rows = 64
replay.error_buffer = 200
actor.count = 1
actor.slots = 4
actor.start_near_radius = [8.0, 4.0]
actor.batch_rows = 16
actor.batch_wait_ms = 20
learner.device = "cpu"
learner.threads = 1
learner.batch = 16
learner.publish_period = 5
learner.updates = 1000000
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
            let text = std::fs::read_to_string(folder.join(format!("{list}.txt"))).unwrap();
            let line = text.lines().nth(number).unwrap();
            folder.join(line).display().to_string()
        };
        let text = [of("validation", 0), of("train", 1)].join("\n") + "\n";
        bench.write(&format!("validation/{list}.txt"), text);
    }
    bench.write("parity.toml", CONFIG);
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
        let said = || messages(&run, "learner listens");
        let before = said().len();
        let mut process = Service::start(bench, "landmarl", "train", line);
        let begin = Instant::now();
        let learner = loop {
            let said = said();
            if said.len() > before {
                break said[before]["address"].as_str().unwrap().to_owned();
            }
            assert!(
                process.is_running() && begin.elapsed() < PATIENCE,
                "no address of the learner:\n{}",
                process.log()
            );
            std::thread::sleep(LOOK_EVERY);
        };
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
        let begin = Instant::now();
        loop {
            let done = bench.run(&format!("status {} --json", self.learner));
            let status: Value = serde_json::from_str(&done.out).unwrap_or_default();
            let acts = status["actors_joined"] == 1 && status["updates"].as_u64() >= Some(1);
            let evaluated = !status["last_evaluation"].is_null();
            if acts && evaluated && status["evaluators"][0].is_object() {
                return status;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{status:#}\n{}\n{}",
                done.err,
                self.logs()
            );
            std::thread::sleep(LOOK_EVERY);
        }
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
    let files = std::fs::read_dir(run.join("logs"));
    let mut files: Vec<_> = files.into_iter().flatten().map(|f| f.unwrap()).collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let text = |f: &std::fs::DirEntry| std::fs::read_to_string(f.path()).unwrap();
    files
        .iter()
        .flat_map(|f| {
            let text = text(f);
            let lines = text.lines().map(serde_json::from_str::<Value>);
            lines.filter_map(Result::ok).collect::<Vec<_>>()
        })
        .filter(|l| l["message"].as_str().is_some_and(|m| m.contains(message)))
        .collect()
}

/// Relative paths of all files below a run folder; TensorBoard's without their time.
fn files(run: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(run).unwrap().display().to_string();
            found.insert(match name.strip_prefix("events.out.tfevents.") {
                Some(rest) => format!("events.{}", rest.split_once('.').unwrap().1),
                None => name,
            });
        }
    }
    found
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
        let validations = lines(&run.join("validation.jsonl"));
        let metrics = lines(&run.join("metrics.jsonl"));
        let same = ["seed", "manifest", "config_digest", "landmarks", "version"];
        let updates = |v: &Value| v["updates"].clone();
        let last = validations.last().unwrap();
        assert_eq!(updates(last), updates(metrics.last().unwrap()));
        let warned = messages(run, "also trained on");
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
    let id = json(&run.join("run.json"))["run_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let name = run.file_name().unwrap().to_str().unwrap();
    let suffix = id.strip_prefix(&format!("{name}-")).unwrap_or_default();
    let hex = suffix.chars().all(|c| c.is_ascii_hexdigit());
    assert!(suffix.len() == 16 && hex, "{id} of {name}");
    id
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
        let baseline = &status[key]["constant_guess_mm"];
        assert!(baseline.as_f64() > Some(0.0), "{key}: {status:#}");
    }
    let mut found = BTreeSet::new();
    all_keys(status, "", &mut found);
    found
}

/// The output of `eval`, `runs list` and `runs compare`.
fn check_reports(bench: &Bench, updates: u64) {
    let runs = bench.succeed("runs list --json").out;
    let runs: Value = serde_json::from_str(&runs).unwrap();
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let total = (&run["updates"], &run["updates_total"], &run["ended"]);
        assert_eq!(
            total,
            (&updates.into(), &updates.into(), &true.into()),
            "{run:#}"
        );
        for key in ["minutes", "best_validation_mm"] {
            assert!(run[key].as_f64() > Some(0.0), "{key}: {run:#}");
        }
    }
    assert_eq!(keys(&runs[0]), keys(&runs[1]));

    let compared = bench
        .succeed("runs compare runs/train runs/cluster --json")
        .out;
    let compared: Value = serde_json::from_str(&compared).unwrap();
    let differing = keys(&compared["differing_settings"]);
    let unexpected: Vec<_> = differing
        .iter()
        .filter(|k| !PLACES.contains(&k.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{compared:#}");

    let eval = |name: &str| {
        let done = bench.succeed(&format!(
            "eval --load runs/{name} --images data/test/images.txt --no-pictures --device cpu \
             --landmarks-files data/test/landmarks.txt --out eval-{name} --json"
        ));
        let summary: Value = serde_json::from_str(&done.out).unwrap();
        let from = summary["constant_guess_from"].as_str().unwrap_or_default();
        let run = format!("/runs/{name}");
        assert!(
            from.contains("3 training scans of") && from.ends_with(&run),
            "{from}"
        );
        assert!(!done.err.contains("unknown"), "{}", done.err);
        summary["constant_guess_mm"].as_f64().unwrap()
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
    let done =
        |run: &PathBuf| lines(&run.join("metrics.jsonl")).last().unwrap()["updates"].as_u64();
    let updates = paths
        .each_ref()
        .map(done)
        .into_iter()
        .max()
        .unwrap()
        .unwrap()
        + 60;
    let resume = format!("train --resume runs/train --updates {updates}");
    Running::train(&bench, &resume).ended(0);
    let resume = format!("--resume auto --set learner.updates={updates}");
    Running::cluster(&bench, &shard, &resume).ended(0);
    let facts = paths.each_ref().map(|run| Facts::of(run));
    assert_eq!(facts[0].untrained, 1, "{:#?}", facts[0]);
    assert_eq!(facts[0].last_updates, updates);
    assert_eq!(
        facts[0].warnings.len(),
        2,
        "once per start: {:#?}",
        facts[0]
    );
    assert_eq!(facts[0], facts[1]);
    assert_eq!(
        ids,
        paths.each_ref().map(|run| run_id(run)),
        "resumed runs keep their ids"
    );
    check_reports(&bench, updates);

    // A shard with rows of the first run of this name refuses the second run.
    std::fs::rename(&paths[1], bench.path("first")).unwrap();
    let (_, mut learner) = start_learner(&bench, &shard, "runs/cluster", "");
    assert_ne!(run_id(&paths[1]), ids[1]);
    let begin = Instant::now();
    while !learner.log().contains("runs differ") {
        assert!(begin.elapsed() < PATIENCE, "{}", learner.log());
        std::thread::sleep(LOOK_EVERY);
    }
    learner.terminate();
    assert_eq!(learner.ended(PATIENCE), Some(0), "{}", learner.log());
}
