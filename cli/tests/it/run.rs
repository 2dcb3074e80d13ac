//! A complete run, as small as possible: train, evaluate, play, resume, stop.

use std::path::Path;
use std::process::Stdio;

use common::run::run_folder::RunFolder;
use serde_json::Value;

use crate::checkpoints;
use crate::fixtures::{TEST_SCANS, check_evaluation, check_play};
use crate::process::{
    Bench, Done, assert_contains, check_error_snapshot, json, json_lines, names_in,
};

/// Lists of the phantoms, and two of their landmarks.
pub const DATA: &str = "--train-images data/train/images.txt --train-landmarks data/train/landmarks.txt \
    --validation-images data/validation/images.txt --validation-landmarks data/validation/landmarks.txt \
    --landmarks bridge,base_ball";
/// Settings that shorten any training to seconds.
pub const SMALL: &str = "--run-dir runs --device cpu --actors 1 \
    --set rules.window_size=12 --set rules.scales=[[2,3],[1,1]] --set rules.max_steps=30 \
    --set actor.slots=4 --set actor.start_near_radius=[8.0,4.0] --set actor.batch_rows=16 \
    --set actor.batch_wait_ms=20 --set replay.capacity=2000 --set replay.min_rows=64 \
    --set replay.error_buffer=200 --set learner.batch=16 --set learner.publish_period=5 \
    --set cluster.lease_s=1 --set validation.period=10 --set validation.starts=1 \
    --set checkpoint.period=10 --set evaluation.starts=2";

fn train(bench: &Bench, more: &str) -> Done {
    bench.succeed(&format!("train {DATA} {more} {SMALL}"))
}

#[test]
fn train_eval_play_resume() {
    let bench = Bench::new();
    bench.phantoms();
    let trained = train(&bench, "--name one --updates 30").err;
    let next = "landmarl eval --load runs/one/checkpoints/best.safetensors";
    assert_contains(&trained, next);
    let run = bench.path("runs/one");
    let names = names_in(&run);
    for file in "config.toml run.json metrics.jsonl mean_landmarks.json".split(' ') {
        assert!(names.iter().any(|n| n == file), "{file}");
    }
    for (writer, tag) in [
        ("learner", "train/loss"),
        ("validation", "validation/mean_error_mm"),
    ] {
        let curves = |n: &&String| n.starts_with("events.out.tfevents.") && n.ends_with(writer);
        let curves = std::fs::read(run.join(names.iter().find(curves).unwrap())).unwrap();
        let mut windows = curves.windows(tag.len());
        assert!(windows.any(|w| w == tag.as_bytes()), "{writer}");
    }
    let info = json(&run.join("run.json"));
    let landmarks = serde_json::json!(["bridge", "base_ball"]);
    assert_eq!(info["landmarks"], landmarks);
    let validations = json_lines(&run.join("validation.jsonl"));
    let last = validations.last().unwrap();
    assert_eq!(last["updates"], 30, "{validations:?}");
    assert!(validations[0]["baseline_error_mm"].as_f64().unwrap() > 0.0);
    check_services_in_log(&bench, &run);

    check_evaluations(&bench);
    check_play(&bench, "runs/one");
    check_resume(&bench, validations.len());
    check_folder_as_data(&bench);
    check_listing(&bench);
    checkpoints::check_list_verify_export(&bench);
    check_error_snapshot("runs");
    bench.fail(
        &format!("train --train-images data --fold 1 --landmarks bridge {SMALL}"),
        4,
        &["names no folds", "data.fold"],
    );
    check_error_snapshot("folders");
}

/// The services of one process have log lines of their own.
fn check_services_in_log(bench: &Bench, run: &Path) {
    let log = format!("logs/landmarl-{}.jsonl", common::run::machine::host_name());
    let lines = json_lines(&run.join(log));
    assert!(lines.iter().all(|line| line["run"] == "one"), "{lines:?}");
    for service in ["landmarl", "learner", "actor", "replay-server", "evaluator"] {
        let its = lines.iter().filter(|line| line["service"] == service);
        let shown = bench.succeed(&format!("logs runs/one --service {service} --json"));
        let count = its.count();
        assert!(count > 0, "{service}: {lines:?}");
        assert_eq!(shown.out.lines().count(), count, "{service}");
    }
    // A line of each: what it says belongs to the service that it names.
    for (service, message) in [
        ("learner", "checkpoint written"),
        ("learner", "best weights saved"),
        ("replay-server", "replay shard stopped"),
    ] {
        let says = |line: &&Value| line["message"] == message;
        let mut said = lines.iter().filter(says).peekable();
        assert!(said.peek().is_some(), "{message}: {lines:?}");
        assert!(said.all(|line| line["service"] == service), "{message}");
    }
}

/// Trains `runs/two`; a folder names training and validation scans.
fn check_folder_as_data(bench: &Bench) {
    let summary = bench.json(&format!(
        "train --train-images data --landmarks bridge,base_ball --name two --updates 10 --seed 4 \
         --set learner.lr=0.001 --json {SMALL}"
    ));
    assert_eq!(summary["run"], "runs/two");
    assert_eq!(summary["updates"], 10);
    assert_eq!(summary["interrupted"], false);
    let weights = bench.path(summary["weights"].as_str().unwrap());
    assert!(weights.is_file(), "{summary}");
    let validations = json_lines(&bench.path("runs/two/validation.jsonl"));
    assert_eq!(validations.last().unwrap()["updates"], 10);
}

fn check_listing(bench: &Bench) {
    let list = bench.json("runs list --json");
    let runs = list.as_array().unwrap().iter();
    let names: Vec<&str> = runs.map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(list[1]["updates"], 10);
    assert_eq!(list[1]["ended"], true);
    assert!(list[0]["best_validation_mm"].as_f64().unwrap() > 0.0);
    let compared = bench.json("runs compare runs/one runs/two --json");
    let differing = &compared["differing_settings"];
    assert_eq!(differing["learner.lr"], serde_json::json!([0.0005, 0.001]));
    assert!(differing.get("learner.batch").is_none(), "{differing}");
    let table = bench.succeed("runs compare runs/one runs/two").out;
    assert_contains(&table, "learner.lr | two");
    bench.failures(
        "1 runs list --dir nowhere => cannot list the runs of nowhere | --dir
         1 runs compare runs/one runs/gone => gone",
    );
}

fn check_evaluations(bench: &Bench) {
    check_evaluation(bench, "eval --load runs/one/checkpoints/best.safetensors");
    // By the folder of the run, in a table, from the published starts.
    let line = format!("eval --load runs {TEST_SCANS} --protocol 19 --no-pictures --device cpu");
    let table = bench.succeed(&line).out;
    assert_contains(&table, "baseline mm | bridge");
    assert_eq!(names_in(&bench.path("runs/one/evaluations")).len(), 1);
}

/// Rows in the journal of the run's first shard, and the number of the next one.
fn kept(run: &Path) -> (u64, u64) {
    let kept = replay_server::journal::verify::verify(&run.join("replay/shard-0")).unwrap();
    assert!(kept.is_sound(), "{}", kept.as_text());
    let kept = kept.as_json();
    assert_eq!(kept["snapshot_row"], kept["next_row"], "{kept}");
    let number = |key: &str| kept[key].as_u64().unwrap();
    (number("rows"), number("next_row"))
}

fn check_resume(bench: &Bench, validations: usize) {
    let run = bench.path("runs/one");
    let before = kept(&run);
    train(bench, "--resume runs/one --updates 50");
    let after = kept(&run);
    assert!(before.0 > 0 && before.0 == before.1, "{before:?}");
    assert!(after.0 > before.0, "{after:?}: the rows went on");
    assert_eq!(after.0, after.1);
    let all = json_lines(&run.join("validation.jsonl"));
    assert!(all.len() > validations);
    let mut new = all[validations..].iter().map(|v| v["updates"].as_u64());
    assert!(new.all(|updates| updates > Some(30)), "{all:?}");
    assert_eq!(all.last().unwrap()["updates"], 50);
    let info = json(&run.join("run.json"));
    assert_eq!(info["resumed"].as_array().unwrap().len(), 1);
    let line = format!("train {DATA} --resume runs/one --updates 60 {SMALL}");
    let gone = bench.run(&format!("{line} --checkpoint update-00000099"));
    assert_eq!(gone.code, Some(4), "{}", gone.err);
    assert_contains(&gone.err, "there is no checkpoint | update-00000050");
    bench.failures(&format!(
        "1 {line} --set learner.gamma=0.5 => cannot be continued | configuration digest
         1 {line} --landmarks bridge => cannot be continued
         4 {line} --set network.dueling=true => network"
    ));
}

#[test]
fn trainings_that_start_at_once_do_not_share_a_folder() {
    let bench = Bench::new();
    bench.phantoms();
    // Another process trains there and has not written anything about its run yet.
    let now = std::time::SystemTime::now();
    let taken = RunFolder::create(&bench.path("runs"), "one", now).unwrap();
    let lock = taken.lock().unwrap();
    let line = format!("train {DATA} --updates 5 {SMALL}");
    let holder = format!(
        "runs/one is in use by another process ({} on",
        std::process::id()
    );
    bench.fail(&format!("{line} --name one"), 1, &[&holder]);
    assert!(taken.checkpoints().is_dir(), "it is not ours to remove");
    drop(lock);
    std::fs::remove_dir_all(taken.path()).unwrap();

    let start = || {
        let mut command = bench.command(&line);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    for mut child in [start(), start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    let runs = names_in(&bench.path("runs"));
    assert_eq!(runs.len(), 3, "{runs:?}");
    for name in &runs {
        let run = bench.path("runs").join(name);
        assert!(run.join("checkpoints/final.safetensors").is_file());
        let info = json(&run.join("run.json"));
        assert!(info["run_id"].as_str().unwrap().starts_with(name), "{info}");
    }
}
