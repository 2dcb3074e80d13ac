//! Runs every command of the README, in order, as a new user would type it.
//!
//! An unknown command fails the test. Additional settings at the end of the line
//! shorten the trainings.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Bench, assert_contains, finish, names_in};
use crate::python_env;
use crate::run::SMALL;
use crate::services::{CONFIG, Service, ask, free_address};

/// What CI itself runs (`.ci/run` is `cargo xtask ci`): of the demo, the short one.
const BY_CI: [&str; 5] = [
    "cargo xtask demo --seed 1 --out demo-s1",
    "cargo xtask demo",
    "cargo xtask demo --ci",
    "cargo xtask test",
    "cargo build --release && export PATH=\"$PWD/target/release:$PATH\"",
];
const PROGRAMS: [&str; 6] = [
    "cargo",
    "landmarl",
    "replay-server",
    "learner",
    "actor",
    "tensorboard",
];
/// Shortens a training with the flags of the original programs.
const SMALL_BY_ENVIRONMENT: &[(&str, &str)] = &[
    ("LANDMARL__RULES__WINDOW_SIZE", "12"),
    ("LANDMARL__REPLAY__MIN_ROWS", "200"),
    ("LANDMARL__REPLAY__ERROR_BUFFER", "2000"),
    ("LANDMARL__LEARNER__UPDATES", "2"),
    ("LANDMARL__LEARNER__BATCH", "16"),
    ("LANDMARL__ACTOR__SLOTS", "4"),
    ("LANDMARL__LEARNER__DEVICE", "cpu"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of the indented blocks, without comments.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let text = text.replace("\\\n", " ");
    let blocks = text.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = blocks.map(|line| line.split("  #").next().unwrap_or(line).trim());
    let commands = commands.filter(|line| {
        let first = line.split_whitespace().next();
        first.is_some_and(|word| PROGRAMS.contains(&word))
    });
    commands
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Phantoms as a user's scans: `scans/images`, `scans/landmarks` with AC and PC.
fn scans(bench: &Bench) {
    bench.succeed("phantom --out data --train 10 --validation 0 --test 1 --size 48x56x48 --seed 3");
    fs::create_dir_all(bench.path("scans")).unwrap();
    for kind in ["images", "landmarks"] {
        let scans = bench.path(&format!("scans/{kind}"));
        fs::rename(bench.path(&format!("data/train/{kind}")), scans).unwrap();
    }
    for name in names_in(&bench.path("scans/landmarks")) {
        let file = format!("scans/landmarks/{name}");
        let text = bench.text(&file).replace("bridge", "AC");
        bench.write(&file, text.replace("base_ball", "PC"));
    }
    let scan = bench.path("data/test/images/phantom_0001.nii.gz");
    fs::rename(scan, bench.path("new-scan.nii.gz")).unwrap();
    brain(bench);
    fs::create_dir_all(bench.path("configs")).unwrap();
    for entry in fs::read_dir(root().join("configs")).unwrap() {
        let entry = entry.unwrap();
        // Studies are for the clone's own tasks.
        if entry.path().is_file() {
            fs::copy(entry.path(), bench.path("configs").join(entry.file_name())).unwrap();
        }
    }
}

/// The published weights and scans, if they are beside the clone.
fn brain(bench: &Bench) {
    let shared = root().join("../shared");
    let weights = shared.join("reference/rl-medical-single-agent-ac.pt");
    if fs::copy(weights, bench.path("SingleAgent.pt")).is_err() {
        return;
    }
    let Ok(folder) = shared.join("data/brain").canonicalize() else {
        return;
    };
    // One scan is enough to see the commands work.
    for (list, ending) in [("images", "nii.gz"), ("landmarks", "txt")] {
        let scan = folder.join(format!("{list}/MNI152NLin2009aSym.{ending}"));
        bench.write(
            &format!("brain/{list}.txt"),
            format!("{}\n", scan.display()),
        );
    }
}

/// Services that run until the test ends, on free ports.
struct Running {
    /// The README's addresses, and those used here.
    ports: Vec<(&'static str, String)>,
    services: Vec<Service>,
}

impl Running {
    fn new(bench: &Bench) -> Self {
        let here = ["127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7411"];
        let ports: Vec<_> = here.into_iter().map(|a| (a, free_address())).collect();
        let [learner, first, second] = [0, 1, 2].map(|i: usize| &ports[i].1);
        let services = format!(
            "cluster.learner = \"{learner}\"\ncluster.shards = [\"{first}\", \"{second}\"]\n"
        );
        let config = CONFIG.replace("data/train/images.txt", "scans.csv");
        let config = config.replace("\"0\", \"base_ball\"", "\"AC\", \"PC\"");
        // The landmarks and the splits are those of scans.csv.
        let listed = ["data.train_landmarks", "data.validation_"];
        let lines = config.lines();
        let lines = lines.filter(|line| !listed.iter().any(|key| line.starts_with(key)));
        let config = lines.collect::<Vec<_>>().join("\n");
        bench.write("my.toml", format!("{config}\n{services}"));
        Self {
            ports,
            services: Vec::new(),
        }
    }

    fn line(&self, line: &str) -> String {
        let replaced = |line: String, (from, to): &(&str, String)| line.replace(from, to);
        self.ports.iter().fold(line.to_owned(), replaced)
    }

    fn start(&mut self, bench: &Bench, program: &str, line: &str) {
        let words = match program {
            "replay-server" => "replay shard listens",
            _ => "dataset loaded",
        };
        let name = format!("readme-{}", self.services.len());
        let mut service = Service::start(bench, program, &name, &self.line(line));
        assert!(service.listens(words), "{}", service.log());
        self.services.push(service);
    }
}

/// Runs a command on the skulls beside the clone; false if they are missing.
fn on_skulls(bench: &Bench, arguments: &str) -> bool {
    let Ok(skulls) = root().join("../shared/data/mouse").canonicalize() else {
        return false;
    };
    let skulls = skulls.display().to_string();
    let line = arguments.replace("../shared/data/mouse", &skulls);
    let line = line.replace("--starts 8", "").replace("--protocol 19", "");
    // `--updates` would override `learner.updates`.
    let (before, after) = line.split_once("--updates ").unwrap_or((&line, " "));
    let after = after.split_once(' ').map_or("", |(_, rest)| rest);
    let line = format!("{before} {after}");
    let shorter = if line.starts_with("train") {
        format!(
            "--set data.train_images={skulls}/train/images.txt --set data.train_landmarks={skulls}/train/landmarks.txt \
             --set replay.min_rows=200 --set replay.error_buffer=1000 --set learner.updates=2 \
             --set learner.batch=16 --set actor.slots=4 --set actor.count=1"
        )
    } else {
        "--starts 1 --max-steps 30 --no-pictures".to_owned()
    };
    bench.succeed(&format!("{line} {shorter}"));
    true
}

/// Reads the event files with TensorBoard itself.
fn tensorboard(bench: &Bench, arguments: &str) {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/tensorboard.txt");
    let Some(python) = python_env::python("tensorboard reads the curves", &requirements) else {
        return;
    };
    let mut command = std::process::Command::new(python);
    command
        .args(["-m", "tensorboard.main", "--inspect"])
        .args(arguments.split_whitespace());
    let done = finish(command.current_dir(bench.dir.path()).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_contains(&done.out, "train/loss | validation/mean_error_mm");
}

#[expect(
    clippy::print_stdout,
    reason = "cargo xtask test looks for skipped tests there"
)]
fn run(bench: &Bench, running: &mut Running, command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    let first = arguments.split_whitespace().next().unwrap_or_default();
    match (program, first) {
        ("cargo", _) => assert!(BY_CI.contains(&command), "no test runs `{command}`"),
        ("tensorboard", _) => tensorboard(bench, arguments),
        ("landmarl", _) if arguments.contains("brain/") || arguments.contains("SingleAgent") => {
            if bench.path("brain/images.txt").is_file() {
                let small = match arguments.contains("--task train") {
                    true => SMALL_BY_ENVIRONMENT,
                    false => &[],
                };
                let mut typed = bench.command(arguments);
                typed.envs(small.iter().copied());
                let done = finish(typed.output().unwrap());
                assert_eq!(done.code, Some(0), "{command}\n{}", done.err);
            } else {
                println!("skipped: `{command}` of the README: ../shared is absent");
            }
        }
        ("landmarl", _) if arguments.contains("mouse") => {
            if !on_skulls(bench, arguments) {
                println!("skipped: `{command}` of the README: ../shared/data is absent");
            }
        }
        ("landmarl", "train") if arguments.contains("--resume") => {
            let line = arguments.replace("--updates 20000", "--updates 20");
            bench.succeed(&format!(
                "{line} --train-images scans.csv --landmarks AC,PC {SMALL}"
            ));
        }
        ("landmarl", "train") => {
            for name in ["first", "second"] {
                let line = arguments.replace("--name first", &format!("--name {name}"));
                bench.succeed(&format!("{line} --updates 10 {SMALL}"));
            }
        }
        ("landmarl", "doctor") => {
            // The doctor fails if the ports are taken: check its output, not the exit code.
            assert_contains(&bench.run(arguments).out, "libtorch");
        }
        ("landmarl", _) => {
            bench.succeed(&running.line(arguments));
        }
        ("learner" | "replay-server", "status" | "snapshot" | "verify") => {
            let (code, output) = ask(bench, program, &running.line(arguments));
            assert_eq!(code, Some(0), "{output}");
        }
        _ => running.start(bench, program, arguments),
    }
}

#[test]
fn every_command_of_the_readme_works() {
    let bench = Bench::new();
    scans(&bench);
    let all = commands();
    assert!(all.len() >= 20, "{all:#?}");
    let mut running = Running::new(&bench);
    for command in &all {
        run(&bench, &mut running, command);
    }
    let played = bench.path("found/exports/new-scan.mrk.json");
    assert!(played.is_file(), "play left no markups");
}
