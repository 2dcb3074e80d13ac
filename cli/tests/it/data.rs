//! `landmarl data` on valid and on corrupted phantoms.

use std::fs;
use std::path::Path;

use common::imaging::nifti_io::{self, ImageRef, Samples, SamplesRef};
use serde_json::{Value, json};

use crate::process::{Bench, assert_contains, check_error_snapshot, check_snapshot, parse};
use crate::run::SMALL;

const LANDMARKS: &str = "bridge,left_horn,right_horn,base_ball,stem_pole";

/// Generates sixteen phantoms in `data/train`.
fn phantoms(bench: &Bench) {
    bench.succeed("phantom --out data --train 16 --validation 1 --test 1 --size 64x72x64 --seed 5");
}

/// Edits the landmark file of a phantom: name and RAS mm of each landmark.
fn change(bench: &Bench, number: usize, change: impl Fn(&str, [f64; 3]) -> (String, [f64; 3])) {
    let path = format!("data/train/landmarks/phantom_{number:04}.csv");
    let former = bench.text(&path);
    let (head, rest) = former.split_once('\n').unwrap();
    let mut text = format!("{head}\n");
    for line in rest.lines() {
        let cells: Vec<&str> = line.split(',').collect();
        let place = std::array::from_fn(|i| cells[i + 1].parse().unwrap());
        let (name, [x, y, z]) = change(cells[0], place);
        text += &format!("{name},{x},{y},{z}\n");
    }
    bench.write(&path, text);
}

fn only(landmark: &str, name: &str, place: [f64; 3], to: [f64; 3]) -> (String, [f64; 3]) {
    (name.to_owned(), if name == landmark { to } else { place })
}

fn check(bench: &Bench, code: i32) -> Value {
    let line = format!(
        "data check data/train/images.txt --landmarks-files data/train/landmarks.txt \
         --landmarks {LANDMARKS} --sheet look --json"
    );
    let done = bench.run(&line);
    assert_eq!(done.code, Some(code), "{}\n{}", done.out, done.err);
    parse(&done.out)
}

#[test]
fn a_clean_set_is_checked_described_and_split() {
    let bench = Bench::new();
    phantoms(&bench);
    let report = check(&bench, 0);
    assert_eq!(report["scans"], 16);
    assert_eq!(report["problems"], json!([]));
    assert_eq!(report["warnings"], json!([]));
    let sheet = fs::read(bench.path("look/contact-sheet-01.png")).unwrap();
    assert_eq!(&sheet[..8], b"\x89PNG\r\n\x1a\n");
    let done = bench.succeed("data check data/train --landmarks bridge");
    let words = "16 scans read, 1 landmarks each: 0 problems, 0 warnings";
    assert_contains(&done.out, words);
    let words = ["no scans given", "data.train_images"];
    bench.fail("data check", 2, &words);
    check_error_snapshot("check");
    check_statistics(&bench);
    check_splits(&bench);
}

fn check_statistics(bench: &Bench) {
    let stats = bench.json("data stats data/train --landmarks bridge,base_ball --json");
    assert_eq!(stats["scans"], 16);
    assert_eq!(stats["voxels"][0], json!([64, 72, 64]));
    let bridge = &stats["landmarks"][0];
    assert_eq!(bridge["name"], "bridge");
    assert_eq!(bridge["known"], 16);
    let baseline = bridge["baseline_error_mm"].as_f64().unwrap();
    let variances = (0..3).map(|i| bridge["std_ras_mm"][i].as_f64().unwrap().powi(2));
    let dispersion = variances.sum::<f64>().sqrt();
    let range = 0.5 * dispersion..2.0 * dispersion;
    assert!(range.contains(&baseline), "{bridge}");
    let table = bench.succeed("data stats data/train").out;
    assert_contains(&table, "baseline mm | stem_pole");
}

fn check_splits(bench: &Bench) {
    let split = "data split data/train -o data/split.csv --validation 0.25 --test 0.125";
    let text = bench.succeed(split).err;
    assert_contains(&text, "10 train, 4 validation, 2 test");
    let first = bench.text("data/split.csv");
    let words = ["split.csv exists already", "--force"];
    bench.fail(split, 1, &words);
    bench.succeed(&format!("{split} --force"));
    assert_eq!(bench.text("data/split.csv"), first);
    let check = "data check data/split.csv --landmarks bridge,base_ball --json --split";
    for (name, count) in [("train", 10), ("validation", 4), ("test", 2)] {
        let report = bench.json(&format!("{check} {name}"));
        assert_eq!(report["scans"], count, "{name}");
    }
    let split = "data split data/train -o data/folds.csv --test 0.25 --folds 3 --json";
    let counts = bench.json(split);
    assert_eq!((&counts["train"], &counts["test"]), (&12.into(), &4.into()));
    let folds = "data check data/folds.csv --landmarks bridge --json --set data.fold=1";
    let report = bench.json(&format!("{folds} --split validation"));
    assert_eq!(report["scans"], 4);
    let split = "data split data/train -o x.csv --validation 0.6 --test 0.5";
    bench.failures(&format!(
        "2 data split data/split.csv -o x.csv => already has splits
         2 {split} => leave nothing to train on"
    ));
    check_error_snapshot("split");
}

#[test]
fn check_covers_all_splits_and_names_what_is_not_used() {
    let bench = Bench::new();
    bench.phantoms();
    let check = "data check data --landmarks bridge,base_ball";
    let report = bench.json(&format!("{check} --json"));
    assert_eq!(
        report["splits"],
        json!({"train": 2, "validation": 1, "test": 1})
    );
    assert_eq!(report["unused"], json!([]));
    let done = bench.succeed(check);
    assert_contains(
        &done.out,
        "4 scans read (2 train, 1 validation, 1 test), 2 landmarks each",
    );

    // A scan without landmarks is no problem, a landmark file without a scan is one.
    let scan = fs::read(bench.path("data/test/images/phantom_0001.nii.gz")).unwrap();
    bench.write("data/more/bare.nii.gz", &scan);
    let done = bench.succeed(check);
    let line = "not used:\n  'data/more/bare.nii.gz' has no landmark file\n | , 1 file not used";
    assert_contains(&done.out, line);
    let table = bench.text("data/test/landmarks/phantom_0001.csv");
    bench.write("data/more/stray.csv", table);
    bench.write(
        "data/test/images/phantom_0001.nii.gz",
        &scan[..scan.len() / 2],
    );
    let done = bench.run(&format!("{check} --json"));
    assert_eq!(done.code, Some(4), "{}", done.err);
    let report = parse(&done.out);
    let problems = report["problems"].to_string();
    assert_contains(
        &problems,
        "stray.csv' belongs to no scan | phantom_0001.nii.gz' is cut off",
    );
    let unused: Vec<&str> = report["unused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(unused, ["data/more/bare.nii.gz", "data/more/stray.csv"]);
    // Neither prevents training, and statistics name both.
    let done = bench.succeed("data stats data --landmarks bridge");
    let words = "not used: 'data/more/bare.nii.gz' | not used: 'data/more/stray.csv'";
    assert_contains(&done.err, words);
}

#[test]
fn scans_of_one_subject_stay_together() {
    let bench = Bench::new();
    for subject in 1..=6 {
        for session in 1..=2 {
            let name = format!("sub-0{subject}_ses-0{session}_T1w");
            let folder = format!("bids/sub-0{subject}/ses-0{session}/anat");
            bench.write(&format!("{folder}/{name}.nii.gz"), "");
            bench.write(&format!("{folder}/{name}.csv"), "");
        }
    }
    let split = "data split bids -o s.csv --force --validation 0.2 --test 0.2";
    for options in ["", "--seed 2", "--seed 3", "--folds 3"] {
        let line = match options {
            "--folds 3" => "data split bids -o s.csv --force --test 0.2 --folds 3".to_owned(),
            _ => format!("{split} {options}"),
        };
        assert_contains(&bench.succeed(&line).err, "12 scans of 6 subjects");
        let text = bench.text("s.csv");
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|row| row.split(',').collect())
            .collect();
        for pair in rows.chunks(2) {
            assert_eq!(pair[0][0][..11], pair[1][0][..11], "{text}");
            assert_eq!(pair[0][2..], pair[1][2..], "{options}: {text}");
        }
    }
    assert_contains(
        &bench.succeed(&format!("{split} --group none")).err,
        "12 scans of 12 groups",
    );
    assert_contains(
        &bench.succeed(&format!("{split} --group _")).err,
        "12 scans of 6 groups",
    );
    bench.fail(
        &format!("{split} --group two"),
        2,
        &["give one character, or none"],
    );
    let too_few = "data split bids/sub-01 -o s.csv --force";
    let said = bench.succeed(&format!("{too_few} --group s")).err;
    assert_contains(&said, "no scans for | --group none");
}

#[test]
fn a_subject_in_two_splits_is_warned_of() {
    let bench = Bench::new();
    bench.phantoms();
    let mut manifest = "image,landmarks,split\n".to_owned();
    for (number, split) in [(1, "train"), (2, "test")] {
        let scan = fs::read(bench.path(&format!("data/train/images/phantom_000{number}.nii.gz")));
        bench.write(&format!("sub-1_ses-{number}.nii.gz"), scan.unwrap());
        let points = format!("data/train/landmarks/phantom_000{number}.csv");
        manifest += &format!("sub-1_ses-{number}.nii.gz,{points},{split}\n");
    }
    bench.write("m.csv", &manifest);
    let words = "subject 'sub-1' is in split test, and with 'sub-1_ses-1.nii.gz' in split train";
    // Whether the volumes are in the cache does not matter.
    for _ in 0..2 {
        let done = bench.run("data check m.csv --landmarks bridge");
        assert_eq!(done.code, Some(4), "{}", done.err);
        assert_contains(&done.out, words);
    }
    let done = bench.succeed("data stats m.csv --landmarks bridge");
    assert_contains(&done.err, &format!("warning: | {words}"));

    // Validation scans with a source of their own.
    let (header, rows) = manifest.split_once('\n').unwrap();
    for (name, row) in ["t.csv", "v.csv"].iter().zip(rows.lines()) {
        bench.write(
            name,
            format!("{header}\n{row}\n").replace(",test", ",validation"),
        );
    }
    let words = "subject 'sub-1' is in data.validation_images, and with 'sub-1_ses-1.nii.gz' in \
                 data.train_images";
    let data = "--landmarks bridge --set data.train_images=t.csv \
                --set data.validation_images=v.csv";
    let done = bench.run(&format!("data check {data}"));
    assert_eq!(done.code, Some(4), "{}", done.err);
    assert_contains(&done.out, words);
    let done = bench.succeed(&format!("train {data} --updates 4 {SMALL}"));
    assert_contains(&done.err, words);
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
    let other = "not a scan, and long enough to be looked at ".repeat(20);
    fs::write(image(2), other).unwrap();
    fs::copy(image(6), image(3)).unwrap();
    let table = bench.text("data/train/landmarks/phantom_0006.csv");
    bench.write("data/train/landmarks/phantom_0003.csv", table);
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
    let list = bench.text("data/train/landmarks.txt");
    let (all, _) = list.trim_end().rsplit_once('\n').unwrap();
    bench.write("data/train/landmarks.txt", all);
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
    let includes = |all: &[String], table: &str| {
        for case in table.trim().lines().map(str::trim) {
            let words: Vec<&str> = case.split(" | ").collect();
            let found = all.iter().any(|t| words.iter().all(|w| t.contains(w)));
            assert!(found, "{case} is not in\n{}", all.join("\n"));
        }
    };
    includes(
        &problems,
        "names 16 scans | 15 landmark files
         phantom_0001.nii.gz | cut
         phantom_0002.nii.gz | not a NIfTI file
         phantom_0003.nii.gz | the same scan
         phantom_0004.nii.gz | not there
         phantom_0005.nii.gz' has spacing | data.resample_mm
         phantom_0007.csv | bridge
         phantom_0008.csv | base_ball
         phantom_0013.csv",
    );
    includes(
        &warnings,
        "phantom_0009.nii.gz | 'stem_pole' lies in the background
         phantom_0010.nii.gz | exchanged
         phantom_0011.nii.gz | axes x and y are swapped
         phantom_0012.nii.gz | 'base_ball' is",
    );
    check_snapshot(
        "data-check",
        &serde_json::to_string_pretty(&report).unwrap(),
    );
    // Valid files are not mentioned.
    let sound = "landmarks/phantom_0006 images/phantom_0014 images/phantom_0015";
    for sound in sound.split(' ') {
        let sound = format!("'data/train/{sound}");
        let mut all = problems.iter().chain(&warnings);
        let about = all.find(|t| t.starts_with(&sound));
        assert!(about.is_none(), "{about:?}");
    }
}
