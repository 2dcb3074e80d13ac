//! What `eval` and `play` write and print, beside the numbers: names, order, warnings.

use std::collections::BTreeSet;

use common::imaging::landmark_file::LandmarkFile;
use serde_json::Value;

use crate::fixtures::with_weights;
use crate::process::{Bench, assert_contains, files_below, json};

/// Copies the phantoms as scans of these names, with landmark files, and lists them.
fn scans(names: &[&str]) -> Bench {
    let bench = with_weights();
    let phantoms = ["train/1", "train/2", "validation/1", "test/1"];
    let (mut images, mut points) = (String::new(), String::new());
    for (name, phantom) in names.iter().zip(phantoms) {
        let (set, number) = phantom.split_once('/').unwrap();
        let file = |kind: &str, end: &str| {
            let file = format!("data/{set}/{kind}/phantom_000{number}.{end}");
            std::fs::read(bench.path(&file)).unwrap()
        };
        bench.write(&format!("{name}.nii.gz"), file("images", "nii.gz"));
        bench.write(&format!("points/{name}.csv"), file("landmarks", "csv"));
        images += &format!("{name}.nii.gz\n");
        points += &format!("points/{name}.csv\n");
    }
    bench.write("images.txt", images);
    bench.write("points.txt", points);
    bench
}

const BRIEF: &str = "--load weights.safetensors --device cpu --starts 2 --no-pictures";

/// Scan names in the order of predictions.json, each once.
fn order(bench: &Bench, out: &str) -> Vec<String> {
    let all = json(&bench.path(&format!("{out}/predictions.json")));
    let names = all["predictions"].as_array().unwrap().iter();
    let mut names: Vec<String> = names
        .map(|p| p["scan"].as_str().unwrap().to_owned())
        .collect();
    names.dedup();
    names
}

fn position(bench: &Bench, file: &str) -> [f64; 3] {
    let file = LandmarkFile::read(&bench.path(file)).unwrap();
    file.find("bridge").unwrap().point.position.unwrap()
}

/// The field case: the ground truth of `x` was lost under the prediction of `x_truth`, the
/// table of `labels` under the legend.
#[test]
fn exports_of_scans_with_names_like_other_files_are_all_kept() {
    let names = ["x", "x_truth", "labels", "X"];
    let bench = scans(&names);
    let line = format!("eval {BRIEF} --images images.txt --landmarks-files points.txt --out found");
    let done = bench.succeed(&line);
    assert_contains(
        &done.err,
        "'x_truth' are named 'x_truth-2' | 'labels' are named 'labels-2'",
    );
    let found = json(&bench.path("found/predictions.json"));
    let found = found["predictions"].as_array().unwrap();
    for (name, stem) in names.iter().zip(["x", "x_truth-2", "labels-2", "X-2"]) {
        let of_scan = |p: &&Value| p["scan"] == *name && p["landmark"] == "bridge";
        let prediction = found.iter().find(of_scan).unwrap();
        assert_eq!(prediction["exports"], stem);
        let place = |kind: &str, space: &str| -> Vec<f64> {
            let values = prediction[kind][space].as_array().unwrap();
            values.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let file = |end: &str| position(&bench, &format!("found/exports/{stem}{end}"));
        assert_eq!(
            file(".mrk.json")[..],
            place("predicted", "lps_mm"),
            "{name}"
        );
        assert_eq!(file(".csv")[..], place("predicted", "ras_mm"), "{name}");
        assert_eq!(
            file("_truth.mrk.json")[..],
            place("truth", "lps_mm"),
            "{name}"
        );
    }
    let legend = bench.text("found/exports/labels.csv");
    assert_eq!(legend, "label,landmark\n1,bridge\n2,base_ball\n");
    let files = files_below(&bench.path("found/exports"));
    let apart: BTreeSet<String> = files.iter().map(|f| f.to_lowercase()).collect();
    assert_eq!(
        (files.len(), apart.len()),
        (4 * 5 + 1, 4 * 5 + 1),
        "{files:?}"
    );
}

#[test]
fn results_have_the_order_in_which_scans_were_given() {
    let names = ["d", "b", "c", "a"];
    let bench = scans(&names);
    bench.succeed(&format!(
        "eval {BRIEF} --images images.txt --landmarks-files points.txt --out found \
         --results-csv r.csv --trajectories t.jsonl"
    ));
    assert_eq!(order(&bench, "found"), names);
    let rows = bench.text("r.csv");
    let scans: Vec<&str> = rows
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(1).unwrap())
        .collect();
    assert_eq!(scans, [names, names].concat(), "for each of two starts");
    let summary = json(&bench.path("found/summary.json"));
    assert_eq!(summary["scans"], serde_json::json!(names));
    let given = "c.nii.gz a.nii.gz d.nii.gz";
    let played = bench.succeed(&format!("play {BRIEF} {given} --out played"));
    assert_eq!(order(&bench, "played"), ["c", "a", "d"]);
    let words = "weights: weights.safetensors (updates: 80) | error of these weights: unknown | \
        agreement of starts is not accuracy";
    assert_contains(&played.err, words);
    assert!(!played.err.contains("warning"), "{}", played.err);
    // A folder stands for its scans, sorted.
    let played = bench.succeed(&format!("play {BRIEF} . --out folder"));
    assert_contains(&played.err, "4 scans in .");
    assert_eq!(order(&bench, "folder"), ["a", "b", "c", "d"]);
    bench.write("empty/readme.txt", "");
    let words = ["no scan", "empty", "give the folder that holds the scans"];
    bench.fail(&format!("play {BRIEF} empty"), 4, &words);
}

/// Each message names file and reason; control characters of names are escaped.
#[test]
fn control_characters_of_names_never_reach_the_terminal() {
    let bench = with_weights();
    let odd = "a\rb\u{1b}[2J.nii.gz";
    let scan = std::fs::read(bench.path("data/test/images/phantom_0001.nii.gz")).unwrap();
    bench.write(odd, scan);
    bench.write("list.txt", "s0.nii.gz\rs1.nii.gz\u{1b}[31m\n");
    bench.write("points.txt", "p.csv\n");
    let weights = "--load weights.safetensors --device cpu --starts 2";
    let run = |words: &[&str]| {
        let mut command = bench.command("");
        command.args(words);
        let done = crate::process::finish(command.output().unwrap());
        for text in [&done.out, &done.err] {
            let bad = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bad, None, "{words:?}: {text:?}");
        }
        done
    };
    let mut words = vec!["play", odd, "-o", "found"];
    words.extend(weights.split(' '));
    let done = run(&words);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_contains(&done.out, r"a\rb\u{1b}[2J");
    let mut words = vec![
        "eval",
        "--images",
        "list.txt",
        "--landmarks-files",
        "points.txt",
    ];
    words.extend(weights.split(' '));
    assert_ne!(run(&words).code, Some(0));
    let gone = run(&["play", "--load", "no\u{1b}[2J.pt", odd]);
    assert_contains(&gone.err, r"cannot read weights no\u{1b}[2J.pt");
    let usage = run(&["play", "--load", "x", "--starts", "no\r\u{1b}[2J", odd]);
    assert_eq!(usage.code, Some(2));
    assert_contains(&usage.err, r"invalid value 'no\r");
}

#[test]
fn landmarks_in_the_wrong_case_are_one_line() {
    let bench = scans(&["a", "b", "c", "d"]);
    let train = "train --run-dir runs --train-images images.txt --train-landmarks points.txt";
    let done = bench.fail(
        &format!("{train} --landmarks Bridge,Base_Ball"),
        4,
        &[
            "in none of the 4 landmark files",
            "did you mean 'bridge'? did you mean 'base_ball'?",
        ],
    );
    assert_eq!(done.err.trim_end().lines().count(), 1, "{}", done.err);
}
