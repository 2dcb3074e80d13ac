//! `eval` and `play` with untrained weights: everything except the accuracy.

use common::imaging::landmark_file::LandmarkFile;
use common::imaging::nifti_io::{Limits, Samples, read};

use crate::fixtures::{check_evaluation, check_play, random_weights, rules, with_weights};
use crate::process::{Bench, assert_contains, check_error_snapshot, json, names_in};

const EVAL: &str = "eval --load weights.safetensors --images data/test/images.txt \
    --landmarks-files data/test/landmarks.txt --device cpu --starts 2";

#[test]
fn an_evaluation_leaves_tables_pictures_and_films() {
    let bench = with_weights();
    let training =
        "--train-images data/train/images.txt --train-landmarks data/train/landmarks.txt";
    let line = format!("eval --load weights.safetensors --starts 2 {training}");
    let summary = check_evaluation(&bench, &line);
    assert_eq!(summary["weights"]["updates"], 80);
    assert_eq!(summary["weights"]["weights_version"], 4);
    let page = bench.text("eval/report.html");
    let parts = "<table> | base_ball | <svg  | Worst predictions | data:image/png;base64,";
    assert_contains(&page, parts);
    assert_contains(&page, "not a medical device");
    assert!(bench.path("eval/cumulative.svg").is_file());
    check_exports(&bench, "eval");
    let truth = landmarks(&bench, "eval/exports/phantom_0001_truth.mrk.json");
    let given = landmarks(&bench, "data/test/landmarks/phantom_0001.csv");
    let [x, y, z] = given.find("base_ball").unwrap().point.position.unwrap();
    let found = truth.find("base_ball").unwrap().point.position.unwrap();
    for (found, expected) in found.into_iter().zip([-x, -y, z]) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }

    assert_contains(
        &page,
        "agreement of starts is not accuracy | at least 20 predictions",
    );
    assert_eq!(summary["confidence"], serde_json::Value::Null);
    // The same episodes again give the same predictions. Random weights are worse than any guess.
    let again = bench.succeed(&format!("{EVAL} {training} --out again --no-pictures"));
    let last = again.err.lines().last().unwrap_or_default();
    assert_contains(last, "than the mean-position baseline | train longer");
    assert!(!again.err.contains("warning"), "{}", again.err);
    let csv = bench.text("eval/predictions.csv");
    assert_eq!(bench.text("again/predictions.csv"), csv);
    assert!(!bench.path("again/pictures").exists());
    check_table_without_baseline(&bench);
    check_films(&bench);
}

fn check_table_without_baseline(bench: &Bench) {
    let line = EVAL.replace("--starts 2", "--protocol 19");
    let done = bench.succeed(&format!("{line} --failure-mm 0.01"));
    let words = "baseline mm | within step limit | bridge | farther off than 0.01 mm (2)";
    assert_contains(&done.out, words);
    let words = "weights: weights.safetensors (updates: 80) | agreement of starts is not accuracy";
    assert_contains(&done.err, words);
    // Two predictions, of which any correlation would be chance.
    assert!(!done.err.contains("correlation"), "{}", done.err);
    assert_contains(&done.err, "baseline: unknown; give --train-images");
    assert_contains(&done.err, "starts: nineteen | not a medical device");
    assert_eq!(names_in(&bench.path("evaluations")).len(), 1);
}

fn check_films(bench: &Bench) {
    bench.succeed(&format!("{EVAL} --out films --no-pictures"));
    assert!(names_in(&bench.path("films/films")).is_empty());
    let line = format!("{EVAL} --out films --no-pictures --render worst:1");
    let refused = bench.run(&line);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert_contains(
        &refused.err,
        "films/predictions.csv and | other files exist already | --force",
    );
    let rendered = bench.succeed(&format!("{line} --force"));
    let films = rendered.err.matches("film: films/films/phantom_0001_");
    assert_eq!(films.count(), 2, "{}", rendered.err);
    let line = format!("{EVAL} --out all --no-pictures --render all --film gif");
    bench.succeed(&line);
    for landmark in ["bridge", "base_ball"] {
        let film = format!("all/films/phantom_0001_{landmark}.gif");
        let film = std::fs::read(bench.path(&film)).unwrap();
        assert_eq!(&film[..6], b"GIF89a");
    }
    let line = format!("{EVAL} --render best");
    bench.fail(&line, 2, &["give all, or worst:5"]);
}

fn landmarks(bench: &Bench, file: &str) -> LandmarkFile {
    LandmarkFile::read(&bench.path(file)).unwrap()
}

/// Compares every export of the first phantom with predictions.json.
fn check_exports(bench: &Bench, out: &str) {
    let exports = |ending: &str| format!("{out}/exports/phantom_0001{ending}");
    let predictions = json(&bench.path(&format!("{out}/predictions.json")));
    let open = |file: &str| read(&bench.path(file), &Limits::default()).unwrap();
    let labels = open(&exports("_label.nii.gz"));
    let scan = open("data/test/images/phantom_0001.nii.gz");
    assert_eq!(labels.dims(), scan.dims());
    assert_eq!(labels.affine(), scan.affine());
    let Samples::U8(voxels) = labels.samples() else {
        panic!("labels are bytes");
    };
    for (label, place) in (1..).zip(predictions["predictions"].as_array().unwrap()) {
        let name = place["landmark"].as_str().unwrap();
        let numbers = |space: &str| -> Vec<f64> {
            let list = place["predicted"][space].as_array().unwrap();
            list.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        for (ending, space) in [
            (".mrk.json", "lps_mm"),
            (".fcsv", "lps_mm"),
            (".csv", "ras_mm"),
        ] {
            let file = landmarks(bench, &exports(ending));
            let point = file.find(name).unwrap().point;
            assert_eq!(point.position.unwrap()[..], numbers(space), "{ending}");
        }
        let [nx, ny, _] = labels.dims();
        let at = numbers("file_voxel");
        let at: Vec<usize> = at.into_iter().map(|v| v.round() as usize).collect();
        let found = voxels[at[0] + nx * (at[1] + ny * at[2])];
        assert_eq!(found, label, "{name} at {at:?}");
    }
    let legend = bench.text(&format!("{out}/exports/labels.csv"));
    assert_eq!(legend, "label,landmark\n1,bridge\n2,base_ball\n");
}

#[test]
fn a_folder_or_a_manifest_serves_as_well_as_lists_and_play_needs_no_landmarks() {
    let bench = with_weights();
    bench.succeed(&format!("{EVAL} --out lists --no-pictures"));
    let image = |set: &str| {
        format!("data/{set}/images/phantom_0001.nii.gz,data/{set}/landmarks/phantom_0001.csv,{set}")
    };
    let (train, test) = (image("train"), image("test"));
    bench.write(
        "scans.csv",
        format!("image,landmarks,split\n{train}\n{test}\n"),
    );
    let by = "eval --load weights.safetensors --device cpu --starts 2 --no-pictures";
    bench.succeed(&format!("{by} --images data --out folder"));
    let manifest = "--images scans.csv --train-images scans.csv --out manifest";
    bench.succeed(&format!("{by} {manifest}"));
    let table = |out: &str| {
        let text = bench.text(&format!("{out}/predictions.csv"));
        let columns = |l: &str| l.split(',').take(20).collect::<Vec<_>>().join(",");
        text.lines().map(columns).collect::<Vec<_>>()
    };
    assert_eq!(table("folder"), table("lists"));
    assert_eq!(table("manifest"), table("lists"));
    let summary = json(&bench.path("manifest/summary.json"));
    assert!(summary["baseline_error_mm"].as_f64().unwrap() > 0.0);
    let splits = "scans.csv' names no validation scans; it has 1 train, 0 validation, 1 test";
    bench.failures(&format!(
        "4 {by} --images scans.csv --split validation => {splits}
         2 {by} --images data/test/images.txt => a list of scans | --landmarks-files"
    ));
    check_error_snapshot("evaluation");

    check_play(&bench, "weights.safetensors");
    check_exports(&bench, "found");
    let truth = bench.path("found/exports/phantom_0001_truth.mrk.json");
    assert!(!truth.exists());
    let play = "play --load weights.safetensors";
    bench.failures(&format!(
        "2 {play} x.nii --label-radius-mm=-1 => --label-radius-mm | 0 or more
         4 {play} gone.nii.gz => gone.nii.gz"
    ));
    check_error_snapshot("play");
}

#[test]
fn weights_that_do_not_fit() {
    let bench = Bench::new();
    bench.phantoms();
    let bytes = random_weights(&bench, &rules(16));
    bench.fail(EVAL, 4, &["window is 12 in the network and 16"]);
    bench.write("weights.safetensors", &bytes[..bytes.len() - 10]);
    let cut = "cut off or damaged";
    bench.fail(EVAL, 4, &[cut, "not a complete safetensors file"]);
    random_weights(&bench, "{");
    bench.fail(EVAL, 4, &["metadata landmarl.rules"]);
    random_weights(&bench, &rules(12));
    let other = "name,x_ras_mm,y_ras_mm,z_ras_mm\nother,1,2,3\n";
    bench.write("data/test/landmarks/phantom_0001.csv", other);
    bench.fail(EVAL, 4, &["bridge", "phantom_0001.csv"]);
    let none = EVAL.replace("--starts 2", "--starts 0");
    bench.fail(&none, 2, &["--starts 0"]);
    check_error_snapshot("weights-that-do-not-fit");
}
