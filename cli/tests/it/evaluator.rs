//! The evaluator beside a cluster of processes, and the commands that query a running
//! learner.

use std::time::{Duration, Instant};

use proto::messages::status::LearnerStatus;
use serde_json::Value;

use crate::process::json;
use crate::run::lines;
use crate::services::{Cluster, Service};

/// Timeout for steps that only a slow machine takes long for.
const PATIENCE: Duration = Duration::from_secs(90);
/// A service that was asked to stop ends within this time.
const DRAINED: Duration = Duration::from_secs(30);

fn evaluated(status: &LearnerStatus, updates: u64) -> bool {
    status.last_evaluation.is_some_and(|e| e.updates >= updates)
}

/// Runs `actor health` to its end.
fn health(cluster: &Cluster, more: &str) -> (Option<i32>, String) {
    let line = format!("health --learner {} {more}", cluster.address);
    let mut asked = Service::start(&cluster.bench, "actor", "health", &line);
    let code = asked.ended(PATIENCE);
    (code, asked.log())
}

#[test]
fn an_evaluator_keeps_the_best_weights_and_outlives_the_learner() {
    let settings = "--set validation.period=40 --set checkpoint.period=20";
    let mut cluster = Cluster::start(2, 300, settings);
    let evaluator = format!(
        "evaluate --config cluster.toml --learner {}",
        cluster.address
    );
    let evaluator = evaluator + " --set validation.period=40 --set validation.starts=1";
    // The evaluator starts before there are any rows.
    let mut evaluator = Service::start(&cluster.bench, "actor", "evaluator", &evaluator);
    let (code, said) = health(&cluster, "");
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("has no actor of host"), "{said}");
    cluster.until("the untrained weights", PATIENCE, |s| evaluated(s, 0));
    let mut actor = cluster.actor("");
    cluster.until("an evaluation", PATIENCE, |s| evaluated(s, 40));
    for part in ["", "--evaluator"] {
        let (code, said) = health(&cluster, part);
        assert_eq!(code, Some(0), "{part} {said}");
    }

    let run = cluster.bench.path("runs/cluster");
    let kept = lines(&run.join("validation.jsonl"));
    assert_eq!(kept[0]["updates"], 0, "what the others are compared with");
    assert!(kept[0]["constant_guess_mm"].as_f64().unwrap() > 0.0);
    assert!(kept.iter().any(|v| v["best"] == true));
    pulled(&cluster);
    status_agrees(&mut cluster);

    // Killed without notice: the evaluator waits for the next incarnation and continues.
    let before = cluster.status().unwrap();
    cluster.learner.die();
    cluster.resume();
    let target = before.last_evaluation.unwrap().updates + 40;
    cluster.until("an evaluation after the restart", PATIENCE, |s| {
        evaluated(s, target)
    });
    assert!(evaluator.is_running());
    // An actor that is asked to stop says so: it is not missed, even before its lease ends.
    cluster.until("the actor again", PATIENCE, |s| s.actors_expected == 1);
    actor.terminate();
    assert_eq!(actor.ended(DRAINED), Some(0), "{}", actor.log());
    // An actor that ended without notice would be expected forever.
    cluster.until("nobody is missed", PATIENCE, |s| {
        s.actors_expected == 0 && s.actors.is_empty()
    });

    let begin = Instant::now();
    evaluator.terminate();
    assert_eq!(evaluator.ended(DRAINED), Some(0), "{}", evaluator.log());
    assert!(begin.elapsed() < DRAINED);
    let kept = lines(&run.join("validation.jsonl"));
    let updates: Vec<u64> = kept.iter().filter_map(|v| v["updates"].as_u64()).collect();
    assert!(
        updates.contains(&0) && updates.last() >= Some(&target),
        "{updates:?}"
    );
    assert_eq!(
        updates.iter().filter(|u| **u == 0).count(),
        1,
        "{updates:?}"
    );
}

/// The files of a running learner are listed and pulled, and the bytes are identical.
fn pulled(cluster: &Cluster) {
    let from = format!("--from {}", cluster.address);
    let list = cluster
        .bench
        .succeed(&format!("checkpoint list {from} --json"));
    let list: Value = serde_json::from_str(&list.out).unwrap();
    let names: Vec<&str> = list["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    for name in ["best.safetensors", "last.safetensors"] {
        assert!(names.contains(&name), "{list}");
    }
    let table = cluster
        .bench
        .succeed(&format!("checkpoint list {from}"))
        .out;
    assert!(
        table.contains("update-0") && table.contains("best.safetensors"),
        "{table}"
    );
    cluster.bench.succeed(&format!(
        "checkpoint pull {from} best -o here/best.safetensors"
    ));
    cluster.bench.succeed(&format!(
        "checkpoint pull {from} last -o here/last.safetensors"
    ));
    let verified = cluster.bench.succeed("checkpoint verify here --json");
    let verified: Value = serde_json::from_str(&verified.out).unwrap();
    let kinds = ["here/best.safetensors", "here/last.safetensors"].map(|path| {
        let files = verified.as_array().unwrap();
        let file = files.iter().find(|f| f["path"] == path).unwrap();
        file["kind"].as_str().unwrap().to_owned()
    });
    assert_eq!(kinds, ["weights", "checkpoint"]);
    cluster.bench.fail(
        &format!("checkpoint pull {from} gone"),
        4,
        &["best.safetensors"],
    );
}

/// `landmarl status` and `learner status` agree.
fn status_agrees(cluster: &mut Cluster) {
    let address = cluster.address.clone();
    let status = cluster
        .bench
        .succeed(&format!("status {address} --json"))
        .out;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["run"], &status["actors_joined"]),
        (&"cluster".into(), &1.into())
    );
    assert_eq!(status["actors_expected"], 1, "who has joined");
    assert!(status["actors"][0]["env_steps_per_s"].as_f64().unwrap() > 0.0);
    assert!(status["updates_per_s"].as_f64().unwrap() > 0.0);
    assert!(
        status["limits"]["advice"]
            .as_str()
            .is_some_and(|a| !a.is_empty())
    );
    let rows = status["rows_by_weights_age"].as_object().unwrap();
    assert!(
        rows.values().filter_map(Value::as_u64).sum::<u64>() > 0,
        "{status}"
    );
    let text = cluster.bench.succeed(&format!("status {address}")).out;
    for words in [
        "run cluster:",
        "limited by",
        "actors: 1 of 1 joined",
        "best validation error",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let line = format!("status --address {address}");
    let mut asked = Service::start(&cluster.bench, "learner", "status", &line);
    assert_eq!(asked.ended(PATIENCE), Some(0));
    let first = |text: &str| text.split(':').next().map(str::to_owned);
    assert_eq!(first(&asked.log()), first(&text));
    // The actor received weights and reported after what time it acted with them.
    cluster.until("a latency", PATIENCE, |s| {
        s.actors
            .iter()
            .any(|a| a.alive && a.report().weights_latency_s > 0.0)
    });
}

#[test]
fn the_last_weights_of_a_run_are_evaluated_before_it_ends() {
    // Earlier evaluations, with more updates than the last version, do not end the wait.
    let settings = "--set validation.period=20 --set learner.updates=60";
    let mut cluster = Cluster::start(1, 2000, settings);
    let line = format!(
        "evaluate --config cluster.toml --learner {}",
        cluster.address
    );
    let line = line + " --set validation.period=20 --set validation.starts=1";
    let mut evaluator = Service::start(&cluster.bench, "actor", "evaluator", &line);
    // The learner waits for an evaluator that it knows of: 60 updates may be made
    // before a slow machine has started one.
    cluster.until("the untrained weights", PATIENCE, |s| evaluated(s, 0));
    let mut actor = cluster.actor("");
    assert_eq!(
        cluster.learner.ended(PATIENCE),
        Some(0),
        "{}",
        cluster.learner.log()
    );
    assert_eq!(evaluator.ended(PATIENCE), Some(0), "{}", evaluator.log());
    assert_eq!(actor.ended(PATIENCE), Some(0), "{}", actor.log());
    let kept = lines(&cluster.bench.path("runs/cluster/validation.jsonl"));
    let updates: Vec<_> = kept.iter().map(|v| v["updates"].as_u64()).collect();
    assert_eq!(updates.first(), Some(&Some(0)));
    assert_eq!(updates.last(), Some(&Some(60)), "{updates:?}");
    let best = cluster
        .bench
        .path("runs/cluster/checkpoints/best.safetensors");
    assert!(best.is_file(), "the learner waits for the best weights too");
    let info = json(&cluster.bench.path("runs/cluster/run.json"));
    let run_id = info["run_id"].as_str().unwrap();
    assert!(run_id.starts_with("cluster-"), "{run_id}");
}
