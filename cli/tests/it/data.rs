//! `landmarl data` on valid and on corrupted phantoms.

use std::fs;
use std::path::{Path, PathBuf};

use common::imaging::nifti_io::{self, ImageRef, Samples, SamplesRef};

use crate::process::{Bench, errors_as_before, same_as_before};

const LANDMARKS: [&str; 5] = [
    "bridge",
    "left_horn",
    "right_horn",
    "base_ball",
    "stem_pole",
];

/// Generates sixteen phantoms in `data/train`.
fn phantoms(bench: &Bench) {
    bench.succeed("phantom --out data --train 16 --validation 1 --test 1 --size 64x72x64 --seed 5");
}

fn lines(path: &PathBuf) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Edits the landmark file of a phantom: name and RAS mm of each landmark.
fn change(bench: &Bench, number: usize, change: impl Fn(&str, [f64; 3]) -> (String, [f64; 3])) {
    let path = bench.path(&format!("data/train/landmarks/phantom_{number:04}.csv"));
    let all = lines(&path);
    let mut text = all[0].clone() + "\n";
    for line in &all[1..] {
        let cells: Vec<&str> = line.split(',').collect();
        let place = std::array::from_fn(|i| cells[i + 1].parse().unwrap());
        let (name, [x, y, z]) = change(cells[0], place);
        text += &format!("{name},{x},{y},{z}\n");
    }
    fs::write(path, text).unwrap();
}

fn only(landmark: &str, name: &str, place: [f64; 3], to: [f64; 3]) -> (String, [f64; 3]) {
    (name.to_owned(), if name == landmark { to } else { place })
}

fn check(bench: &Bench, code: i32) -> serde_json::Value {
    let line = format!(
        "data check data/train/images.txt --landmarks-files data/train/landmarks.txt \
         --landmarks {} --sheet look --json",
        LANDMARKS.join(",")
    );
    let done = bench.run(&line);
    assert_eq!(done.code, Some(code), "{}\n{}", done.out, done.err);
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn a_clean_set_has_no_problem_and_no_warning() {
    let bench = Bench::new();
    phantoms(&bench);
    let report = check(&bench, 0);
    assert_eq!(report["scans"], 16);
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(report["warnings"], serde_json::json!([]));
    let sheet = fs::read(bench.path("look/contact-sheet-01.png")).unwrap();
    assert_eq!(&sheet[..8], b"\x89PNG\r\n\x1a\n");
    let text = bench
        .succeed("data check data/train --landmarks bridge")
        .out;
    assert!(
        text.contains("16 scans read, 1 landmarks each: 0 problems, 0 warnings"),
        "{text}"
    );
    bench.fail(
        "data check",
        2,
        &["no scans are named", "data.train_images"],
    );
    errors_as_before("check");
}

/// Multiplies the spacing of a scan by 1.5.
fn coarser(path: &Path) {
    let image = nifti_io::read(path, &nifti_io::Limits::default()).unwrap();
    let Samples::U8(values) = image.samples() else {
        panic!("phantoms are bytes");
    };
    let mut affine = *image.affine();
    affine.rows = affine.rows.map(|row| row.map(|v| 1.5 * v));
    let coarser = ImageRef {
        dims: image.dims(),
        samples: SamplesRef::U8(values),
        affine: &affine,
    };
    nifti_io::write(path, &coarser).unwrap();
}

/// Corrupts scans and landmark files, each in a different way.
fn spoil(bench: &Bench) {
    let image = |n: usize| bench.path(&format!("data/train/images/phantom_{n:04}.nii.gz"));
    // 1 truncated, 2 not a scan, 3 a duplicate, 4 missing.
    let whole = fs::read(image(1)).unwrap();
    fs::write(image(1), &whole[..whole.len() / 2]).unwrap();
    fs::write(
        image(2),
        b"not a scan, and long enough to be looked at ".repeat(20),
    )
    .unwrap();
    fs::copy(image(6), image(3)).unwrap();
    fs::copy(
        bench.path("data/train/landmarks/phantom_0006.csv"),
        bench.path("data/train/landmarks/phantom_0003.csv"),
    )
    .unwrap();
    fs::remove_file(image(4)).unwrap();
    // 5 a different spacing.
    coarser(&image(5));
    change(bench, 5, |name, p| (name.to_owned(), p.map(|v| 1.5 * v)));
    // 7 an unknown name, 8 outside, 9 in the background, 10 upside down,
    // 11 axes swapped, 12 far off, 13 not landmarks.
    change(bench, 7, |name, p| (name.replace("bridge", "bride"), p));
    change(bench, 8, |name, p| {
        only("base_ball", name, p, [500.0, 0.0, 0.0])
    });
    change(bench, 9, |name, p| {
        only("stem_pole", name, p, [-30.0, -34.0, -30.0])
    });
    change(bench, 10, |name, [x, y, z]| (name.to_owned(), [x, -y, -z]));
    change(bench, 11, |name, [x, y, z]| (name.to_owned(), [y, x, z]));
    change(bench, 12, |name, [x, y, z]| {
        only("base_ball", name, [x, y, z], [x, y + 22.0, z + 20.0])
    });
    bench.write("data/train/landmarks/phantom_0013.csv", "nothing of use\n");
    // The list of landmark files lacks its last line.
    let list = bench.path("data/train/landmarks.txt");
    let mut all = lines(&list);
    all.pop();
    fs::write(&list, all.join("\n")).unwrap();
}

#[test]
fn every_planted_fault_is_found_in_one_run() {
    let bench = Bench::new();
    phantoms(&bench);
    spoil(&bench);
    let report = check(&bench, 4);
    let texts = |key: &str| -> Vec<String> {
        let all = report[key].as_array().unwrap().iter();
        all.map(|t| t.as_str().unwrap().to_owned()).collect()
    };
    let (problems, warnings) = (texts("problems"), texts("warnings"));
    let includes = |all: &[String], words: [&str; 2]| {
        let found = all.iter().any(|t| words.iter().all(|w| t.contains(w)));
        assert!(found, "{words:?} is not in\n{}", all.join("\n"));
    };
    includes(&problems, ["names 16 scans", "15 landmark files"]);
    includes(&problems, ["phantom_0001.nii.gz", "cut"]);
    includes(&problems, ["phantom_0002.nii.gz", "not a NIfTI file"]);
    includes(&problems, ["phantom_0003.nii.gz", "the same scan"]);
    includes(&problems, ["phantom_0004.nii.gz", "not there"]);
    includes(
        &problems,
        ["phantom_0005.nii.gz' has spacing", "data.resample_mm"],
    );
    includes(&problems, ["phantom_0007.csv", "bridge"]);
    includes(&problems, ["phantom_0008.csv", "base_ball"]);
    includes(&problems, ["phantom_0013.csv", ""]);
    includes(
        &warnings,
        ["phantom_0009.nii.gz", "'stem_pole' lies in the background"],
    );
    includes(&warnings, ["phantom_0010.nii.gz", "exchanged"]);
    includes(
        &warnings,
        ["phantom_0011.nii.gz", "axes x and y are swapped"],
    );
    includes(&warnings, ["phantom_0012.nii.gz", "'base_ball' is"]);
    same_as_before(
        "data-check",
        &serde_json::to_string_pretty(&report).unwrap(),
    );
    // Valid files are not mentioned.
    for sound in [
        "landmarks/phantom_0006",
        "images/phantom_0014",
        "images/phantom_0015",
    ] {
        let sound = format!("'data/train/{sound}");
        let mut all = problems.iter().chain(&warnings);
        let about = all.find(|t| t.starts_with(&sound));
        assert!(about.is_none(), "{about:?}");
    }
}

#[test]
fn statistics_count_what_is_there() {
    let bench = Bench::new();
    phantoms(&bench);
    let out = bench
        .succeed("data stats data/train --landmarks bridge,base_ball --json")
        .out;
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&stats["scans"], &stats["voxels"][0]),
        (&16.into(), &serde_json::json!([64, 72, 64]))
    );
    let bridge = &stats["landmarks"][0];
    assert_eq!(
        (&bridge["name"], &bridge["known"]),
        (&"bridge".into(), &16.into())
    );
    let guess = bridge["constant_guess_mm"].as_f64().unwrap();
    let spread: f64 = (0..3)
        .map(|i| bridge["std_ras_mm"][i].as_f64().unwrap().powi(2))
        .sum();
    assert!(
        guess > 0.5 * spread.sqrt() && guess < 2.0 * spread.sqrt(),
        "{bridge}"
    );
    let table = bench.succeed("data stats data/train").out;
    assert!(
        table.contains("constant guess mm") && table.contains("stem_pole"),
        "{table}"
    );
}

#[test]
fn a_split_is_the_same_each_time_and_can_be_used() {
    let bench = Bench::new();
    phantoms(&bench);
    let split = "data split data/train -o data/split.csv --validation 0.25 --test 0.125";
    let text = bench.succeed(split).err;
    assert!(text.contains("10 train, 4 validation, 2 test"), "{text}");
    let first = fs::read(bench.path("data/split.csv")).unwrap();
    bench.succeed(split);
    assert_eq!(fs::read(bench.path("data/split.csv")).unwrap(), first);
    let check = "data check data/split.csv --landmarks bridge,base_ball --json --split";
    for (name, count) in [("train", 10), ("validation", 4), ("test", 2)] {
        let report = bench.succeed(&format!("{check} {name}")).out;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["scans"], count, "{name}");
    }
    let counts =
        bench.succeed("data split data/train -o data/folds.csv --test 0.25 --folds 3 --json");
    let counts: serde_json::Value = serde_json::from_str(&counts.out).unwrap();
    assert_eq!((&counts["train"], &counts["test"]), (&12.into(), &4.into()));
    let folds = "data check data/folds.csv --landmarks bridge --json --set data.fold=1";
    let report = bench.succeed(&format!("{folds} --split validation")).out;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["scans"], 4);
    bench.fail(
        "data split data/split.csv -o x.csv",
        2,
        &["names splits already"],
    );
    bench.fail(
        "data split data/train -o x.csv --validation 0.6 --test 0.5",
        2,
        &["leave nothing to train on"],
    );
    errors_as_before("split");
}
