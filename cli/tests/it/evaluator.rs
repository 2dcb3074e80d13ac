//! The evaluator beside a cluster of processes, and the commands that query a running
//! learner.

use std::time::{Duration, Instant};

use proto::messages::status::LearnerStatus;
use serde_json::Value;

use crate::process::{assert_contains, json, json_lines};
use crate::services::{Cluster, PATIENCE, ask};

/// A service that was asked to stop ends within this time.
const DRAINED: Duration = Duration::from_secs(30);

fn evaluated(status: &LearnerStatus, updates: u64) -> bool {
    status.last_evaluation.is_some_and(|e| e.updates >= updates)
}

/// Runs `actor health` to its end.
fn health(cluster: &Cluster, more: &str) -> (Option<i32>, String) {
    let line = format!("health --learner {} {more}", cluster.address);
    ask(&cluster.bench, "actor", &line)
}

#[test]
fn an_evaluator_keeps_the_best_weights_and_outlives_the_learner() {
    let settings = "--set validation.period=40 --set checkpoint.period=20";
    let mut cluster = Cluster::start(2, 300, settings);
    // The evaluator starts before there are any rows.
    let mut evaluator = cluster.evaluator(40);
    let (code, output) = health(&cluster, "");
    assert_eq!(code, Some(5), "{output}");
    assert_contains(&output, "has no actor of host");
    cluster.until("the untrained weights", PATIENCE, |s| evaluated(s, 0));
    let mut actor = cluster.actor("");
    cluster.until("an evaluation", PATIENCE, |s| evaluated(s, 40));
    for part in ["", "--evaluator"] {
        let (code, output) = health(&cluster, part);
        assert_eq!(code, Some(0), "{part} {output}");
    }

    let run = cluster.bench.path("runs/cluster");
    let kept = json_lines(&run.join("validation.jsonl"));
    assert_eq!(kept[0]["updates"], 0, "what the others are compared with");
    assert!(kept[0]["baseline_error_mm"].as_f64().unwrap() > 0.0);
    assert!(kept.iter().any(|v| v["best"] == true));
    check_pull(&cluster);
    check_status(&mut cluster);

    // Killed without notice: the evaluator waits for the next incarnation and continues.
    let before = cluster.status().unwrap();
    cluster.learner.kill();
    cluster.resume();
    let target = before.last_evaluation.unwrap().updates + 40;
    cluster.until("an evaluation after the restart", PATIENCE, |s| {
        evaluated(s, target)
    });
    assert!(evaluator.is_running());
    // An actor that is asked to stop leaves: it is not missed, even before its lease ends.
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
    let kept = json_lines(&run.join("validation.jsonl"));
    let updates: Vec<u64> = kept.iter().filter_map(|v| v["updates"].as_u64()).collect();
    assert!(updates.last() >= Some(&target), "{updates:?}");
    let untrained = updates.iter().filter(|u| **u == 0).count();
    assert_eq!(untrained, 1, "{updates:?}");
}

/// The files of a running learner are listed and pulled, and the bytes are identical.
fn check_pull(cluster: &Cluster) {
    let (bench, from) = (&cluster.bench, format!("--from {}", cluster.address));
    let list = bench.json(&format!("checkpoint list {from} --json"));
    let checkpoints = list["checkpoints"].as_array().unwrap();
    for name in ["best.safetensors", "last.safetensors"] {
        assert!(checkpoints.iter().any(|c| c["name"] == name), "{list}");
    }
    let table = bench.succeed(&format!("checkpoint list {from}")).out;
    assert_contains(&table, "update-0 | best.safetensors");
    for name in ["best", "last"] {
        let pull = format!("checkpoint pull {from} {name} -o here/{name}.safetensors");
        bench.succeed(&pull);
    }
    let verified = bench.json("checkpoint verify here --json");
    let kinds = ["here/best.safetensors", "here/last.safetensors"].map(|path| {
        let files = verified.as_array().unwrap();
        let file = files.iter().find(|f| f["path"] == path).unwrap();
        file["kind"].as_str().unwrap().to_owned()
    });
    assert_eq!(kinds, ["weights", "checkpoint"]);
    let gone = format!("checkpoint pull {from} gone");
    bench.fail(&gone, 4, &["best.safetensors"]);
}

/// `landmarl status` and `learner status` agree.
fn check_status(cluster: &mut Cluster) {
    let (bench, address) = (&cluster.bench, &cluster.address);
    let status = bench.json(&format!("status {address} --json"));
    assert_eq!(
        (&status["run"], &status["actors_joined"]),
        (&"cluster".into(), &1.into())
    );
    assert_eq!(status["actors_expected"], 1, "who has joined");
    assert!(status["actors"][0]["env_steps_per_s"].as_f64().unwrap() > 0.0);
    assert!(status["updates_per_s"].as_f64().unwrap() > 0.0);
    let advice = status["limits"]["advice"].as_str();
    assert!(advice.is_some_and(|a| !a.is_empty()));
    let rows = status["rows_by_weights_age"].as_object().unwrap();
    let rows: u64 = rows.values().filter_map(Value::as_u64).sum();
    assert!(rows > 0, "{status}");
    let text = bench.succeed(&format!("status {address}")).out;
    let words = "run cluster: | limited by | actors: 1 of 1 joined | best validation error";
    assert_contains(&text, words);
    let (code, output) = ask(bench, "learner", &format!("status --address {address}"));
    assert_eq!(code, Some(0));
    assert_eq!(output.split(':').next(), text.split(':').next());
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
    let mut evaluator = cluster.evaluator(20);
    // The learner waits for an evaluator that it knows of: 60 updates may be made
    // before a slow machine has started one.
    cluster.until("the untrained weights", PATIENCE, |s| evaluated(s, 0));
    let mut actor = cluster.actor("");
    cluster.learner.succeeds();
    evaluator.succeeds();
    actor.succeeds();
    let run = cluster.bench.path("runs/cluster");
    let kept = json_lines(&run.join("validation.jsonl"));
    let updates: Vec<_> = kept.iter().map(|v| v["updates"].as_u64()).collect();
    assert_eq!(updates.first(), Some(&Some(0)));
    assert_eq!(updates.last(), Some(&Some(60)), "{updates:?}");
    let best = run.join("checkpoints/best.safetensors");
    assert!(best.is_file(), "the learner waits for the best weights too");
    let info = json(&run.join("run.json"));
    let run_id = info["run_id"].as_str().unwrap();
    assert!(run_id.starts_with("cluster-"), "{run_id}");
}
