//! Commands that need no training.

use crate::process::{Bench, json};

#[test]
fn every_command_has_help_with_examples() {
    let bench = Bench::new();
    let commands = [
        "",
        "train",
        "eval",
        "play",
        "phantom",
        "doctor",
        "data",
        "data check",
        "data split",
        "import",
        "runs",
        "config",
        "completions",
        "man",
    ];
    for command in commands {
        let text = bench.succeed(&format!("{command} --help")).out;
        let examples = text.split("Examples:").nth(1).unwrap_or_default();
        assert!(
            examples.matches("  landmarl ").count() >= 2,
            "{command}: {text}"
        );
    }
    let version = bench.succeed("--version").out;
    assert_eq!(
        version.trim(),
        format!("landmarl {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn results_come_as_json_where_asked_for() {
    let bench = Bench::new();
    let parsed = |line: &str| -> serde_json::Value {
        serde_json::from_str(&bench.succeed(line).out).unwrap()
    };
    let made = parsed("phantom --out d --train 1 --validation 1 --test 0 --size 48x56x48 --json");
    assert_eq!((&made["phantoms"], &made["kept"]), (&2.into(), &0.into()));
    let again = parsed("phantom --out d --train 1 --validation 1 --test 0 --size 48x56x48 --json");
    assert_eq!(again["kept"], 2);
    assert_eq!(parsed("config check --json")["valid"], true);
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
    let json = |line: &str| -> serde_json::Value {
        serde_json::from_str(&bench.succeed(line).out).unwrap()
    };
    let values = |v: serde_json::Value| -> Vec<(serde_json::Value, serde_json::Value)> {
        let all = v.as_array().unwrap().iter();
        all.map(|s| (s["key"].clone(), s["value"].clone()))
            .collect()
    };
    assert_eq!(
        values(json("config show --json --config shown.toml")),
        values(json(
            "config show --json --config mine.toml --set run.seed=5"
        ))
    );
    bench.succeed("config check --config mine.toml");
    bench.fail(
        "config check --set learner.bacth=2",
        3,
        &["unknown config key", "did you mean \"learner.batch\"?"],
    );
    bench.fail(
        "config show --set learner.batch=2.5",
        3,
        &["learner.batch", "a whole number"],
    );
    let schema = json("config schema");
    assert_eq!(
        schema["properties"]["replay"]["properties"]["alpha"]["type"],
        "number"
    );
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.succeed(&format!("completions {shell}")).out;
        assert!(
            script.contains("phantom") && script.contains("train-landmarks"),
            "{shell}"
        );
    }
    bench.succeed("man -o pages");
    for page in [
        "landmarl.1",
        "landmarl-train.1",
        "landmarl-eval.1",
        "landmarl-config-show.1",
    ] {
        let text = std::fs::read_to_string(bench.path("pages").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    bench.write("file", "");
    bench.fail(
        "man -o file/pages",
        1,
        &["cannot write manual pages", "--out"],
    );
}

#[test]
fn phantoms_are_written_and_kept() {
    let bench = Bench::new();
    bench.phantoms();
    for file in [
        "train/images.txt",
        "train/images/phantom_0002.nii.gz",
        "validation/landmarks.txt",
        "test/landmarks/phantom_0001.csv",
    ] {
        assert!(bench.path("data").join(file).is_file(), "{file}");
    }
    let again = bench
        .succeed("phantom --out data --train 2 --validation 1 --test 1 --size 48x56x48 --seed 3");
    assert!(again.err.contains("4 were there already"), "{}", again.err);
    assert!(
        again
            .err
            .contains("next:\n  landmarl train --train-images data/train/images.txt"),
        "{}",
        again.err
    );
    bench.fail(
        "phantom --out data --seed 4",
        4,
        &["describes another dataset"],
    );
    bench.fail(
        "phantom --out x --size huge",
        2,
        &["--size \"huge\" is not a size"],
    );
}

#[test]
fn the_doctor_says_what_to_do() {
    let bench = Bench::new();
    let good = bench.succeed("doctor --json").out;
    let checks: Vec<serde_json::Value> = serde_json::from_str(&good).unwrap();
    let names: Vec<&str> = checks.iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in [
        "libtorch",
        "CPU",
        "threads",
        "CUDA",
        "config",
        "run folder",
        "cache folder",
        "port",
        "data",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(checks[0]["verdict"], "ok");
    let cpu = checks[1]["detail"].as_str().unwrap();
    assert!(cpu.contains("libtorch computes with"), "{cpu}");
    let file = bench.write("file", "");
    let bad = bench.run(&format!(
        "doctor --run-dir {}/runs --set learner.lrr=1",
        file.display()
    ));
    assert_eq!(bad.code, Some(1));
    assert!(
        bad.out.contains("FAIL  config") && bad.out.contains("did you mean \"learner.lr\""),
        "{}",
        bad.out
    );
    let bad = bench.run(&format!(
        "doctor --run-dir {}/runs --set data.train_images=gone.txt",
        file.display()
    ));
    assert_eq!(bad.code, Some(1));
    assert!(
        bad.out.contains("FAIL  run folder") && bad.out.contains("is a file"),
        "{}",
        bad.out
    );
    assert!(
        bad.out.contains("FAIL  data") && bad.out.contains("gone.txt"),
        "{}",
        bad.out
    );
    assert!(json_is_absent(&bench));
}

/// The doctor leaves nothing behind.
fn json_is_absent(bench: &Bench) -> bool {
    let names = std::fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    names.filter(|n| n != "file").count() == 0
}

#[test]
fn a_dataset_describes_itself() {
    let bench = Bench::new();
    bench.succeed("phantom --out p --train 1 --validation 0 --test 0 --size 48x56x48");
    assert_eq!(json(&bench.path("p/dataset.json"))["counts"]["train"], 1);
}
