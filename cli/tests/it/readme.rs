//! Runs every command of the README, in order, as a new user would type it.
//!
//! An unknown command fails the test. Additional settings at the end of the line
//! shorten the trainings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Bench;
use crate::python_env;
use crate::run::SMALL;
use crate::services::{CONFIG, Service, free_address};

/// What CI itself runs (`.ci/run` is `cargo xtask ci`): of the demo, the short one.
const BY_CI: [&str; 5] = [
    "cargo xtask demo --seed 1 --out demo/s1",
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
    ("LANDMARL__LEARNER__DEVICE", "cpu"),
];
const START: Duration = Duration::from_secs(60);

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
        fs::rename(
            bench.path(&format!("data/train/{kind}")),
            bench.path(&format!("scans/{kind}")),
        )
        .unwrap();
    }
    for entry in fs::read_dir(bench.path("scans/landmarks")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            text.replace("bridge", "AC").replace("base_ball", "PC"),
        )
        .unwrap();
    }
    fs::rename(
        bench.path("data/test/images/phantom_0001.nii.gz"),
        bench.path("new-scan.nii.gz"),
    )
    .unwrap();
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
    for (list, file) in [
        ("images", "images/MNI152NLin2009aSym.nii.gz"),
        ("landmarks", "landmarks/MNI152NLin2009aSym.txt"),
    ] {
        bench.write(
            &format!("brain/{list}.txt"),
            format!("{}\n", folder.join(file).display()),
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
        bench.write(
            "my.toml",
            CONFIG.replace("data/train/images.txt", "scans.csv").replace("data.train_landmarks = \"data/train/landmarks.txt\"\n", "")
                // The splits of scans.csv hold.
                .replace("data.validation_images = \"data/validation/images.txt\"\n", "")
                .replace("data.validation_landmarks = \"data/validation/landmarks.txt\"\n", "")
                .replace("\"0\", \"base_ball\"", "\"AC\", \"PC\"")
                + &format!("cluster.learner = \"{learner}\"\ncluster.shards = [\"{first}\", \"{second}\"]\n"),
        );
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
            "learner" => "dataset loaded",
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
    let shared = root().join("../shared/data");
    let Ok(shared) = shared.canonicalize() else {
        return false;
    };
    let skulls = format!("{}/mouse", shared.display());
    let line = arguments.replace("../shared/data/mouse", &skulls);
    let cut = if line.starts_with("train") {
        format!(
            "--set data.train_images={skulls}/train/images.txt --set data.train_landmarks={skulls}/train/landmarks.txt \
             --set replay.min_rows=200 --set replay.error_buffer=1000 --set learner.updates=2"
        )
    } else {
        "--starts 1 --no-pictures".to_owned()
    };
    bench.succeed(&format!(
        "{} {cut}",
        line.replace("--starts 8", "").replace("--protocol 19", "")
    ));
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
    let done = command.current_dir(bench.dir.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for tag in ["train/loss", "validation/mean_error_mm"] {
        assert!(printed.contains(tag), "{tag} is not in\n{printed}");
    }
}

#[expect(
    clippy::print_stdout,
    reason = "cargo xtask test looks for skipped tests there"
)]
fn run(bench: &Bench, running: &mut Running, command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    match (
        program,
        arguments.split_whitespace().next().unwrap_or_default(),
    ) {
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
                let done = typed.output().unwrap();
                let errors = String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "{command}\n{errors}");
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
            let checked = bench.run(arguments);
            assert!(
                checked.out.contains("libtorch"),
                "{}{}",
                checked.out,
                checked.err
            );
        }
        ("landmarl", _) => {
            bench.succeed(&running.line(arguments));
        }
        ("learner" | "replay-server", "status" | "snapshot" | "verify") => {
            let mut asked = Service::start(bench, program, "asked", &running.line(arguments));
            assert_eq!(asked.ended(START), Some(0), "{}", asked.log());
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
