//! A complete run, as small as possible: train, evaluate, play, resume, stop.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::run::run_folder::RunFolder;

use crate::checkpoints;
use crate::process::{Bench, errors_as_before, json};

const DATA: &str = "--train-images data/train/images.txt --train-landmarks data/train/landmarks.txt \
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

fn train(bench: &Bench, more: &str) -> crate::process::Done {
    bench.succeed(&format!("train {DATA} {more} {SMALL}"))
}

pub fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn log_file() -> String {
    format!(
        "logs/landmarl-{}.jsonl",
        common::run::run_folder::host_name()
    )
}

#[test]
fn train_eval_play_resume() {
    let bench = Bench::new();
    bench.phantoms();
    let trained = train(&bench, "--name one --updates 30");
    assert!(
        trained
            .err
            .contains("landmarl eval --load runs/one/checkpoints/best.safetensors"),
        "{}",
        trained.err
    );
    let run = bench.path("runs/one");
    for file in [
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "validation.jsonl",
        "mean_landmarks.json",
        &log_file(),
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    for writer in ["learner", "validation"] {
        let files = std::fs::read_dir(&run).unwrap();
        let mut names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        let curves = names.find(|n| n.starts_with("events.out.tfevents.") && n.ends_with(writer));
        let curves = std::fs::read(run.join(curves.unwrap())).unwrap();
        let tag: &[u8] = match writer {
            "learner" => b"train/loss",
            _ => b"validation/mean_error_mm",
        };
        assert!(curves.windows(tag.len()).any(|w| w == tag), "{writer}");
    }
    let info = json(&run.join("run.json"));
    assert_eq!(
        info["landmarks"],
        serde_json::json!(["bridge", "base_ball"])
    );
    let validations = lines(&run.join("validation.jsonl"));
    assert_eq!(
        validations.last().unwrap()["updates"],
        30,
        "{validations:?}"
    );
    assert!(validations[0]["constant_guess_mm"].as_f64().unwrap() > 0.0);
    assert!(
        lines(&run.join(log_file()))
            .iter()
            .all(|l| l["service"] == "landmarl" && l["run"] == "one")
    );

    evaluated(&bench);
    played(&bench);
    resumed(&bench, validations.len());
    listed(&bench);
    checkpoints::listed_verified_exported(&bench);
    errors_as_before("runs");
}

fn listed(bench: &Bench) {
    train(
        bench,
        "--name two --updates 10 --seed 4 --set learner.lr=0.001",
    );
    let list = bench.succeed("runs list --json").out;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(
        (&list[1]["updates"], &list[1]["ended"]),
        (&10.into(), &true.into())
    );
    assert!(list[0]["best_validation_mm"].as_f64().unwrap() > 0.0);
    let compared = bench.succeed("runs compare runs/one runs/two --json").out;
    let compared: serde_json::Value = serde_json::from_str(&compared).unwrap();
    let differing = &compared["differing_settings"];
    assert_eq!(differing["learner.lr"], serde_json::json!([0.0005, 0.001]));
    assert!(differing.get("learner.batch").is_none(), "{differing}");
    let table = bench.succeed("runs compare runs/one runs/two").out;
    assert!(
        table.contains("learner.lr") && table.contains("two"),
        "{table}"
    );
    bench.fail(
        "runs list --dir nowhere",
        1,
        &["cannot list the runs of nowhere", "--dir"],
    );
    bench.fail("runs compare runs/one runs/gone", 1, &["gone"]);
}

fn evaluated(bench: &Bench) {
    let done = bench.succeed(
        "eval --load runs/one/checkpoints/best.safetensors --images data/test/images.txt \
         --landmarks-files data/test/landmarks.txt --out eval --json --device cpu",
    );
    let summary: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(summary, json(&bench.path("eval/summary.json")));
    let number = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN);
    assert!(
        number("mean_error_mm") > 0.0 && number("constant_guess_mm") > 0.0,
        "{summary}"
    );
    assert_eq!(summary["landmarks"][1]["name"], "base_ball");
    assert!(
        summary["notice"]
            .as_str()
            .unwrap()
            .contains("not a medical device")
    );
    let csv = std::fs::read_to_string(bench.path("eval/predictions.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let picture = std::fs::read(bench.path("eval/pictures/phantom_0001.png")).unwrap();
    assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
    // By the folder of the run, in a table, from the published starts.
    let table = bench.succeed(
        "eval --load runs --images data/test/images.txt --landmarks-files data/test/landmarks.txt \
         --protocol 19 --no-pictures --device cpu",
    );
    assert!(
        table.out.contains("constant guess mm") && table.out.contains("bridge"),
        "{}",
        table.out
    );
    assert_eq!(
        std::fs::read_dir(bench.path("runs/one/evaluations"))
            .unwrap()
            .count(),
        1
    );
}

fn played(bench: &Bench) {
    let done = bench.succeed(
        "play --load runs/one data/test/images/phantom_0001.nii.gz -o found --starts 2 --json --device cpu",
    );
    let printed: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(printed, json(&bench.path("found/predictions.json")));
    let first = &printed["predictions"][0];
    let (ras, lps) = (&first["predicted"]["ras_mm"], &first["predicted"]["lps_mm"]);
    assert_eq!(ras[0].as_f64().unwrap(), -lps[0].as_f64().unwrap());
    assert_eq!(first["truth"], serde_json::Value::Null);
    assert!(bench.path("found/pictures/phantom_0001.png").is_file());
}

/// Rows in the journal of the run's first shard, and the number of the next one.
fn kept(run: &Path) -> (u64, u64) {
    let kept = replay_server::journal::verify::verify(&run.join("replay/shard-0")).unwrap();
    assert!(kept.is_sound(), "{}", kept.as_text());
    let kept = kept.as_json();
    assert_eq!(kept["snapshot_row"], kept["next_row"], "{kept}");
    (
        kept["rows"].as_u64().unwrap(),
        kept["next_row"].as_u64().unwrap(),
    )
}

fn resumed(bench: &Bench, validations: usize) {
    let run = bench.path("runs/one");
    let before = kept(&run);
    train(bench, "--resume runs/one --updates 50");
    let after = kept(&run);
    assert!(before.0 > 0 && before.0 == before.1, "{before:?}");
    assert!(
        after.0 > before.0 && after.0 == after.1,
        "{after:?}: the rows went on"
    );
    let all = lines(&run.join("validation.jsonl"));
    assert!(all.len() > validations);
    assert!(
        all[validations..]
            .iter()
            .all(|v| v["updates"].as_u64().unwrap() > 30),
        "{all:?}"
    );
    assert_eq!(all.last().unwrap()["updates"], 50);
    assert_eq!(
        json(&run.join("run.json"))["resumed"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let line = format!("train {DATA} --resume runs/one --updates 60 {SMALL}");
    bench.fail(
        &format!("{line} --set learner.gamma=0.5"),
        1,
        &["cannot be continued", "configuration digest"],
    );
    bench.fail(
        &format!("{line} --landmarks bridge"),
        1,
        &["cannot be continued"],
    );
    bench.fail(
        &format!("{line} --set network.dueling=true"),
        4,
        &["network"],
    );
}

#[test]
fn a_folder_names_training_and_validation_scans() {
    let bench = Bench::new();
    bench.phantoms();
    let done = bench.succeed(&format!(
        "train --train-images data --landmarks bridge,base_ball --name folder --updates 10 --json {SMALL}"
    ));
    let summary: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (
            &summary["run"],
            &summary["updates"],
            &summary["interrupted"]
        ),
        (&"runs/folder".into(), &10.into(), &false.into())
    );
    assert!(
        bench.path(summary["weights"].as_str().unwrap()).is_file(),
        "{summary}"
    );
    let validations = lines(&bench.path("runs/folder/validation.jsonl"));
    assert_eq!(validations.last().unwrap()["updates"], 10);
    bench.fail(
        &format!("train --train-images data --fold 1 --landmarks bridge {SMALL}"),
        4,
        &["names no folds", "data.fold"],
    );
    errors_as_before("folders");
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
    let words = ["runs/one is trained in by another process"];
    bench.fail(&format!("{line} --name one"), 1, &words);
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
    let runs = std::fs::read_dir(bench.path("runs")).unwrap();
    let runs: Vec<_> = runs.map(|r| r.unwrap().path()).collect();
    assert_eq!(runs.len(), 3, "{runs:?}");
    for run in runs {
        assert!(run.join("checkpoints/final.safetensors").is_file());
        let name = run.file_name().unwrap().to_str().unwrap();
        let info = json(&run.join("run.json"));
        assert!(info["run_id"].as_str().unwrap().starts_with(name), "{info}");
    }
}

#[test]
fn ctrl_c_leaves_a_checkpoint() {
    let bench = Bench::new();
    bench.phantoms();
    let line = format!("train {DATA} --name two --updates 100000 {SMALL}");
    let mut child = bench.command(&line).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = bench.path("runs/two/metrics.jsonl");
    let begin = Instant::now();
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "training does not start"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "training ended by itself"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("landmarl train --resume runs/two"), "{err}");
    let left: Vec<_> = std::fs::read_dir(bench.path("runs/two/checkpoints"))
        .unwrap()
        .collect();
    assert!(!left.is_empty(), "{err}");
}
