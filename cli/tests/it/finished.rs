//! `eval` and `play` with untrained weights: everything except the accuracy.

use common::imaging::landmark_file::LandmarkFile;
use common::imaging::nifti_io::{Limits, Samples, read};

use crate::fixtures::{random_weights, rules};
use crate::process::{Bench, errors_as_before, json};

const EVAL: &str = "eval --load weights.safetensors --images data/test/images.txt \
    --landmarks-files data/test/landmarks.txt --device cpu --starts 2";

#[test]
fn an_evaluation_leaves_tables_and_pictures() {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    let guess = "--train-images data/train/images.txt --train-landmarks data/train/landmarks.txt";
    let done = bench.succeed(&format!("{EVAL} {guess} --out eval --json"));
    let summary: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(summary, json(&bench.path("eval/summary.json")));
    let number = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN);
    assert!(
        number("mean_error_mm") > 0.0 && number("constant_guess_mm") > 0.0,
        "{summary}"
    );
    assert_eq!(
        (
            &summary["weights"]["updates"],
            &summary["weights"]["weights_version"]
        ),
        (&80.into(), &4.into())
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

    let page = std::fs::read_to_string(bench.path("eval/report.html")).unwrap();
    for part in [
        "<table>",
        "base_ball",
        "<svg ",
        "Worst answers",
        "data:image/png;base64,",
        "not a medical device",
    ] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    assert!(bench.path("eval/cumulative.svg").is_file());
    exports_say_what_the_table_says(&bench, "eval");
    let truth = landmarks(&bench, "eval/exports/phantom_0001_truth.mrk.json");
    let given = landmarks(&bench, "data/test/landmarks/phantom_0001.csv");
    let [x, y, z] = given.find("base_ball").unwrap().point.position.unwrap();
    let found = truth.find("base_ball").unwrap().point.position.unwrap();
    for (found, expected) in found.into_iter().zip([-x, -y, z]) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }

    // The same episodes again give the same predictions.
    bench.succeed(&format!("{EVAL} --out again --no-pictures --train-images data/train/images.txt --train-landmarks data/train/landmarks.txt"));
    assert_eq!(
        std::fs::read_to_string(bench.path("again/predictions.csv")).unwrap(),
        csv
    );
    assert!(!bench.path("again/pictures").exists());
}

#[test]
fn films_of_walks_are_written_where_asked_for() {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    bench.succeed(&format!("{EVAL} --out eval --no-pictures"));
    assert_eq!(
        std::fs::read_dir(bench.path("eval/films")).map_or(0, Iterator::count),
        0
    );
    let rendered = bench.succeed(&format!("{EVAL} --out eval --no-pictures --render worst:1"));
    assert_eq!(
        rendered
            .err
            .matches("film: eval/films/phantom_0001_")
            .count(),
        2,
        "{}",
        rendered.err
    );
    bench.succeed(&format!(
        "{EVAL} --out all --no-pictures --render all --film gif"
    ));
    for landmark in ["bridge", "base_ball"] {
        let film =
            std::fs::read(bench.path(&format!("all/films/phantom_0001_{landmark}.gif"))).unwrap();
        assert_eq!(&film[..6], b"GIF89a");
    }
    bench.fail(
        &format!("{EVAL} --render best"),
        2,
        &["give all, or worst:5"],
    );
}

fn landmarks(bench: &Bench, file: &str) -> LandmarkFile {
    LandmarkFile::read(&bench.path(file)).unwrap()
}

/// Compares every export of the first phantom with predictions.json.
fn exports_say_what_the_table_says(bench: &Bench, out: &str) {
    let exports = |ending: &str| format!("{out}/exports/phantom_0001{ending}");
    let predictions = json(&bench.path(&format!("{out}/predictions.json")));
    let labels = read(&bench.path(&exports("_label.nii.gz")), &Limits::default()).unwrap();
    let scan = bench.path("data/test/images/phantom_0001.nii.gz");
    let scan = read(&scan, &Limits::default()).unwrap();
    assert_eq!(
        (labels.dims(), labels.affine()),
        (scan.dims(), scan.affine())
    );
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
        let at: Vec<usize> = numbers("file_voxel")
            .into_iter()
            .map(|v| v.round() as usize)
            .collect();
        let found = voxels[at[0] + nx * (at[1] + ny * at[2])];
        assert_eq!(found, label, "{name} at {at:?}");
    }
    let legend = std::fs::read_to_string(bench.path(&format!("{out}/exports/labels.csv"))).unwrap();
    assert_eq!(legend, "label,landmark\n1,bridge\n2,base_ball\n");
}

#[test]
fn tables_say_when_there_is_no_constant_guess() {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    let line = EVAL.replace("--starts 2", "--protocol 19");
    let done = bench.succeed(&format!("{line} --failure-mm 0.01"));
    assert!(
        done.out.contains("constant guess mm") && done.out.contains("bridge"),
        "{}",
        done.out
    );
    assert!(
        done.out.contains("farther off than 0.01 mm (2)"),
        "{}",
        done.out
    );
    assert!(
        done.err
            .contains("constant guess: unknown; give --train-images"),
        "{}",
        done.err
    );
    assert!(
        done.err.contains("starts: nineteen") && done.err.contains("not a medical device"),
        "{}",
        done.err
    );
    assert_eq!(
        std::fs::read_dir(bench.path("evaluations"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_folder_or_a_manifest_serves_as_well_as_lists() {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    bench.succeed(&format!("{EVAL} --out lists --no-pictures"));
    let image = |set: &str| {
        format!("data/{set}/images/phantom_0001.nii.gz,data/{set}/landmarks/phantom_0001.csv,{set}")
    };
    let rows = format!(
        "image,landmarks,split\n{}\n{}\n",
        image("train"),
        image("test")
    );
    bench.write("scans.csv", rows);
    let by = "eval --load weights.safetensors --device cpu --starts 2 --no-pictures";
    bench.succeed(&format!("{by} --images data --out folder"));
    bench.succeed(&format!(
        "{by} --images scans.csv --train-images scans.csv --out manifest"
    ));
    let table = |out: &str| {
        let text = std::fs::read_to_string(bench.path(&format!("{out}/predictions.csv"))).unwrap();
        let columns = text
            .lines()
            .map(|l| l.split(',').take(20).collect::<Vec<_>>().join(","));
        columns.collect::<Vec<_>>()
    };
    assert_eq!(table("folder"), table("lists"));
    assert_eq!(table("manifest"), table("lists"));
    let guess = json(&bench.path("manifest/summary.json"))["constant_guess_mm"].as_f64();
    assert!(guess.unwrap() > 0.0);
    bench.fail(
        &format!("{by} --images scans.csv --split validation"),
        4,
        &["scans.csv' names no validation scans; it has 1 train, 0 validation, 1 test"],
    );
    bench.fail(
        &format!("{by} --images data/test/images.txt"),
        2,
        &["a list of scans alone", "--landmarks-files"],
    );
    errors_as_before("evaluation");
}

#[test]
fn play_needs_no_landmarks() {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    let done = bench.succeed(
        "play --load weights.safetensors data/test/images/phantom_0001.nii.gz -o found --starts 2 --json --device cpu",
    );
    let printed: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(printed, json(&bench.path("found/predictions.json")));
    let first = &printed["predictions"][0];
    let (ras, lps) = (&first["predicted"]["ras_mm"], &first["predicted"]["lps_mm"]);
    assert_eq!(ras[0].as_f64().unwrap(), -lps[0].as_f64().unwrap());
    assert_eq!(first["truth"], serde_json::Value::Null);
    assert!(bench.path("found/pictures/phantom_0001.png").is_file());
    exports_say_what_the_table_says(&bench, "found");
    assert!(
        !bench
            .path("found/exports/phantom_0001_truth.mrk.json")
            .exists()
    );
    bench.fail(
        "play --load weights.safetensors x.nii --label-radius-mm=-1",
        2,
        &["--label-radius-mm", "0 or more"],
    );
    bench.fail(
        "play --load weights.safetensors gone.nii.gz",
        4,
        &["gone.nii.gz"],
    );
    errors_as_before("play");
}

#[test]
fn weights_that_do_not_fit() {
    let bench = Bench::new();
    bench.phantoms();
    let bytes = random_weights(&bench, &rules(16));
    bench.fail(EVAL, 4, &["window is 12 in the network and 16"]);
    bench.write("weights.safetensors", &bytes[..bytes.len() - 10]);
    bench.fail(
        EVAL,
        4,
        &[
            "weights.safetensors is corrupt",
            "not a complete safetensors file",
        ],
    );
    random_weights(&bench, "{");
    bench.fail(EVAL, 4, &["metadata landmarl.rules"]);
    random_weights(&bench, &rules(12));
    bench.write(
        "data/test/landmarks/phantom_0001.csv",
        "name,x_ras_mm,y_ras_mm,z_ras_mm\nother,1,2,3\n",
    );
    bench.fail(EVAL, 4, &["bridge", "phantom_0001.csv"]);
    bench.fail(
        &EVAL.replace("--starts 2", "--starts 0"),
        2,
        &["--starts 0 walks nowhere"],
    );
    errors_as_before("weights-that-do-not-fit");
}
