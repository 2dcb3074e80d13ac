//! Commands that need no training.

use serde_json::Value;

use crate::process::{Bench, PHANTOMS, assert_contains, json, names_in};

#[test]
fn results_come_as_json_where_asked_for() {
    let bench = Bench::new();
    let line = "phantom --out d --train 1 --validation 1 --test 0 --size 48x56x48 --json";
    let made = bench.json(line);
    assert_eq!((&made["phantoms"], &made["kept"]), (&2.into(), &0.into()));
    assert_eq!(bench.json(line)["kept"], 2);
    let dataset = json(&bench.path("d/dataset.json"));
    assert_eq!(dataset["counts"]["train"], 1);
    assert_eq!(bench.json("config check --json")["valid"], true);
}

#[test]
fn settings_are_shown_with_their_origin_and_checked() {
    let bench = Bench::new();
    bench.write("mine.toml", "[learner]\nbatch = 31\n");
    let line = "config show --origin --config mine.toml --set run.seed=5";
    let shown = bench.succeed(line).out;
    let origin = |key: &str| {
        let line = shown.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_once('#')
            .map(|(v, from)| (v.trim().to_owned(), from.trim().to_owned()))
    };
    let pair = |value: &str, from: &str| Some((value.to_owned(), from.to_owned()));
    assert_eq!(origin("batch ="), pair("batch = 31", "mine.toml"));
    assert_eq!(origin("seed ="), pair("seed = 5", "--set run.seed=5"));
    assert_eq!(origin("n_step ="), pair("n_step = 1", "default"));
    // The output is a configuration file with the same settings.
    bench.write("shown.toml", &shown);
    let values = |line: &str| -> Vec<(Value, Value)> {
        let all = bench.json(&format!("config show --json {line}"));
        let all = all.as_array().unwrap().iter();
        all.map(|s| (s["key"].clone(), s["value"].clone()))
            .collect()
    };
    assert_eq!(
        values("--config shown.toml"),
        values("--config mine.toml --set run.seed=5")
    );
    bench.succeed("config check --config mine.toml");
    bench.failures(
        r#"3 config check --set learner.bacth=2 => unknown config key | did you mean "learner.batch"?
           3 config show --set learner.batch=2.5 => learner.batch | a whole number"#,
    );
    let schema = bench.json("config schema");
    let alpha = &schema["properties"]["replay"]["properties"]["alpha"];
    assert_eq!(alpha["type"], "number");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.succeed(&format!("completions {shell}")).out;
        assert_contains(&script, "phantom | train-landmarks");
    }
    bench.succeed("man -o pages");
    for page in [
        "landmarl",
        "landmarl-train",
        "landmarl-eval",
        "landmarl-config-show",
    ] {
        let text = bench.text(&format!("pages/{page}.1"));
        assert!(text.contains(".TH"), "{page}");
    }
    bench.write("file", "");
    let words = ["cannot write manual pages", "--out"];
    bench.fail("man -o file/pages", 1, &words);
}

#[test]
fn phantoms_are_written_and_kept() {
    let bench = Bench::new();
    bench.succeed(PHANTOMS);
    for file in [
        "train/images.txt",
        "train/images/phantom_0002.nii.gz",
        "validation/landmarks.txt",
        "test/landmarks/phantom_0001.csv",
    ] {
        assert!(bench.path("data").join(file).is_file(), "{file}");
    }
    let again = bench.succeed(PHANTOMS).err;
    assert_contains(&again, "(4 existed already)");
    let next = "next:\n  landmarl train --train-images data/train/images.txt";
    assert_contains(&again, next);
    bench.failures(
        r#"4 phantom --out data --seed 4 => describes another dataset
           2 phantom --out x --size huge => --size "huge" is not a size"#,
    );
}

#[test]
fn the_doctor_names_each_problem() {
    let bench = Bench::new();
    let good = bench.json("doctor --json");
    let checks = good.as_array().unwrap();
    let names = "libtorch,CPU,threads,CUDA,config,run folder,cache folder,port,data";
    for name in names.split(',') {
        assert!(checks.iter().any(|c| c["name"] == name), "{name}: {good}");
    }
    assert_eq!(checks[0]["verdict"], "ok");
    let cpu = checks[1]["detail"].as_str().unwrap();
    assert_contains(cpu, "libtorch computes with");
    let folder = bench.write("file", "").join("runs").display().to_string();
    let bad = |setting: &str, words: &str| {
        let done = bench.run(&format!("doctor --run-dir {folder} --set {setting}"));
        assert_eq!(done.code, Some(1));
        assert_contains(&done.out, words);
    };
    let words = "FAIL  config | did you mean \"learner.lr\"";
    bad("learner.lrr=1", words);
    let words = "FAIL  run folder | is a file | FAIL  data | gone.txt";
    bad("data.train_images=gone.txt", words);
    assert_eq!(
        names_in(bench.dir.path()),
        ["file"],
        "the doctor left files"
    );
}
