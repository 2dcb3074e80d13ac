//! What version 0.1.0 wrote before its keys and folders were renamed stays
//! readable: a run folder with its weights, checkpoint and journal, a manifest,
//! and a configuration, in `tests/data/v0.1.0` (made by `make.sh` there).

use std::path::Path;

use crate::fixtures::TEST_SCANS;
use crate::process::{Bench, assert_contains, files_below, json, json_lines};

/// Copies a folder into the folder of the test.
fn copy(bench: &Bench, from: &Path, to: &str) {
    for name in files_below(from) {
        let bytes = std::fs::read(from.join(&name)).unwrap();
        bench.write(&format!("{to}/{name}"), bytes);
    }
}

#[test]
fn a_run_is_read_evaluated_played_and_resumed() {
    let bench = Bench::new();
    // The run was trained on these, and resuming compares every voxel.
    bench.phantoms();
    // As the folder was called then; its configuration names it.
    let validation = bench.path("data/validation");
    copy(&bench, &validation, "data/selection");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v0.1.0");
    copy(&bench, &fixture.join("run"), "runs/old");
    let journal = bench.path("runs/old/replay/shard-0");
    let found = replay_server::journal::verify::verify(&journal).unwrap();
    assert!(found.is_sound(), "{}", found.as_text());
    check_commands(&bench);
    check_manifest(&bench);
    check_resume(&bench);
}

fn check_commands(bench: &Bench) {
    let list = bench.json("runs list --json");
    assert_eq!(list[0]["name"], "old");
    assert_eq!(list[0]["updates"], 20);
    assert!(list[0]["best_validation_mm"].as_f64().unwrap() > 0.0);
    bench.succeed("checkpoint list runs/old");
    bench.succeed("checkpoint verify runs/old");
    bench.succeed("checkpoint export runs/old --out exported");
    let eval = format!("eval --load runs/old {TEST_SCANS} --out evaluated");
    let report = bench.succeed(&eval).out;
    assert!(!report.contains("unknown"), "{report}");
    assert_contains(&bench.text("evaluated/predictions.json"), "error_voxels");
    let scan = bench.text("data/test/images.txt");
    let scan = scan.lines().next().unwrap();
    bench.succeed(&format!("play --load runs/old data/test/{scan} -o played"));
}

/// The split `selection` is read with a warning.
fn check_manifest(bench: &Bench) {
    let first = |list: &str| {
        let text = bench.text(&format!("data/validation/{list}.txt"));
        format!("data/validation/{}", text.lines().next().unwrap())
    };
    let (image, landmarks) = (first("images"), first("landmarks"));
    let manifest = format!("image,landmarks,split\n{image},{landmarks},selection\n");
    bench.write("scans.csv", manifest);
    let old = "eval --load runs/old --images scans.csv --split";
    bench.succeed(&format!("{old} validation --out a"));
    bench.succeed(&format!("{old} selection --out b"));
}

/// The run continues with its rows and its renamed settings.
fn check_resume(bench: &Bench) {
    bench.succeed("train --resume runs/old --updates 30");
    let run = bench.path("runs/old");
    let metrics = json_lines(&run.join("metrics.jsonl"));
    let last = metrics.last().unwrap();
    assert_eq!(last["updates"], 30);
    assert!(last["inserted"].as_u64().unwrap() > 0, "{last}");
    assert!(last["rows"].as_u64().unwrap() >= 64, "{last}");
    let info = json(&run.join("run.json"));
    assert_eq!(info["resumed"].as_array().unwrap().len(), 1);
    let config = bench.text("runs/old/config.toml");
    let settings = "publish_period = 5 | error_buffer = 200 | objective = \"q_learning\"";
    assert_contains(&config, settings);
}

#[test]
fn former_keys_in_a_users_file_are_refused_with_the_present_name() {
    let bench = Bench::new();
    bench.write("mine.toml", "[learner]\npublish_every = 10\n");
    let key = r#""learner.publish_every" in mine.toml is now "learner.publish_period""#;
    let values = r#"with "q_learning" for "taken", "step_reward" for "all""#;
    bench.failures(&format!(
        r#"3 config check --config mine.toml => {key}
           3 config check --set learner.actions=all => is now "learner.objective", {values}"#
    ));
}
