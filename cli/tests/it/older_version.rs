//! What version 0.1.0 wrote before its keys and folders were renamed stays
//! readable: a run folder with its weights, checkpoint and journal, a manifest,
//! and a configuration, in `tests/data/v0.1.0` (made by `make.sh` there).

use std::fs;
use std::path::Path;

use crate::process::{Bench, json};
use crate::run::lines;

const SCANS: &str = "--images data/test/images.txt --landmarks-files data/test/landmarks.txt";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn with_old_run() -> Bench {
    let bench = Bench::new();
    // The run was trained on these, and resuming compares every voxel.
    bench.phantoms();
    // As the folder was called then; its configuration names it.
    copy(
        &bench.path("data/validation"),
        &bench.path("data/selection"),
    );
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v0.1.0");
    copy(&fixture.join("run"), &bench.path("runs/old"));
    bench
}

#[test]
fn a_run_is_listed_verified_evaluated_and_played() {
    let bench = with_old_run();
    let list: serde_json::Value =
        serde_json::from_str(&bench.succeed("runs list --json").out).unwrap();
    assert_eq!(list[0]["name"], "old");
    assert_eq!(list[0]["updates"], 20);
    assert!(list[0]["best_validation_mm"].as_f64().unwrap() > 0.0);
    bench.succeed("checkpoint list runs/old");
    bench.succeed("checkpoint verify runs/old");
    bench.succeed("checkpoint export runs/old --out exported");
    let report = bench
        .succeed(&format!("eval --load runs/old {SCANS} --out evaluated"))
        .out;
    assert!(!report.contains("unknown"), "{report}");
    let predictions = json(&bench.path("evaluated/predictions.json"));
    assert!(predictions.to_string().contains("error_voxels"));
    let scan = fs::read_to_string(bench.path("data/test/images.txt")).unwrap();
    let scan = format!("data/test/{}", scan.lines().next().unwrap());
    bench.succeed(&format!("play --load runs/old {scan} -o played"));
}

#[test]
fn a_run_is_resumed_with_its_rows_and_its_renamed_settings() {
    let bench = with_old_run();
    bench.succeed("train --resume runs/old --updates 30");
    let run = bench.path("runs/old");
    let metrics = lines(&run.join("metrics.jsonl"));
    let last = metrics.last().unwrap();
    assert_eq!(last["updates"], 30);
    assert!(
        last["inserted"].as_u64().unwrap() > 0 && last["rows"].as_u64().unwrap() >= 64,
        "{last}"
    );
    assert_eq!(
        json(&run.join("run.json"))["resumed"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    for key in [
        "publish_period = 5",
        "error_buffer = 200",
        "objective = \"q_learning\"",
    ] {
        assert!(config.contains(key), "{key} is not in\n{config}");
    }
}

#[test]
fn a_journal_of_rows_is_sound() {
    let bench = with_old_run();
    let folder = bench.path("runs/old/replay/shard-0");
    let found = replay_server::journal::verify::verify(&folder).unwrap();
    assert!(found.is_sound(), "{}", found.as_text());
}

#[test]
fn a_manifest_with_the_split_selection_is_read_with_a_warning() {
    let bench = with_old_run();
    let first = |list: &str| {
        let text = fs::read_to_string(bench.path(&format!("data/{list}"))).unwrap();
        let (folder, _) = list.split_once('/').unwrap();
        format!("data/{folder}/{}", text.lines().next().unwrap())
    };
    let manifest = format!(
        "image,landmarks,split\n{},{},selection\n",
        first("validation/images.txt"),
        first("validation/landmarks.txt")
    );
    bench.write("scans.csv", manifest);
    let old = "eval --load runs/old --images scans.csv --split";
    bench.succeed(&format!("{old} validation --out a"));
    bench.succeed(&format!("{old} selection --out b"));
}

#[test]
fn former_keys_in_a_users_file_are_refused_with_the_present_name() {
    let bench = Bench::new();
    bench.write("mine.toml", "[learner]\npublish_every = 10\n");
    bench.fail(
        "config check --config mine.toml",
        3,
        &["\"learner.publish_every\" in mine.toml is now \"learner.publish_period\""],
    );
    bench.fail(
        "config check --set learner.actions=all",
        3,
        &["is now \"learner.objective\", with \"q_learning\" for \"taken\", \"step_reward\" for \"all\""],
    );
}
