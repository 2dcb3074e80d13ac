//! `landmarl train --lockstep` as a process that is killed and resumed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::process::Bench;
use crate::run::lines as lines_of;

const UPDATES: u64 = 40;

const SETTINGS: [&str; 10] = [
    "rules.window_size=12",
    "rules.max_steps=40",
    "actor.slots=4",
    "learner.batch=16",
    "learner.publish_period=7",
    "checkpoint.period=5",
    "replay.min_rows=60",
    "replay.capacity=200",
    "replay.error_buffer=200",
    "validation.period=0",
];

fn updates_of(run: &Path) -> u64 {
    let files = std::fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten();
    let number = |name: String| name.strip_prefix("update-")?.get(..8)?.parse::<u64>().ok();
    files
        .flatten()
        .filter_map(|f| number(f.file_name().into_string().ok()?))
        .max()
        .unwrap_or(0)
}

fn start(bench: &Bench, line: &str) -> Child {
    let mut command = bench.command(line);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until the run has a checkpoint beyond `updates`, then a little longer.
fn let_run(child: &mut Child, run: &Path, updates: u64, longer: Duration) {
    let begin = Instant::now();
    while updates_of(run) <= updates && child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(longer);
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("checkpoints/final.safetensors")).unwrap()
}

#[test]
fn a_run_that_is_stopped_and_killed_at_random_ends_as_one_that_never_was() {
    let bench = Bench::new();
    let made =
        bench.run("phantom --out scans --train 3 --validation 1 --test 1 --size 48x56x48 --seed 3");
    assert_eq!(made.code, Some(0), "{}", made.err);
    let mut train = format!(
        "train --lockstep --landmarks bridge,base_ball --updates {UPDATES} --run-dir runs \
         --train-images scans/train/images.txt --train-landmarks scans/train/landmarks.txt"
    );
    for setting in SETTINGS {
        train.push_str(" --set ");
        train.push_str(setting);
    }
    let whole = bench.run(&format!("{train} --name whole"));
    assert_eq!(whole.code, Some(0), "{}", whole.err);
    let reference = weights(&bench.path("runs/whole"));

    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for signal in ["TERM", "KILL"] {
        // On a busy machine a run may end before it is stopped twice.
        let stops: usize = (0..5)
            .map(|attempt| {
                let name = format!("{attempt}-stopped-by-{signal}");
                let stops = stop_at_random(&bench, &train, &name, signal, &mut rng);
                let run = bench.path(&format!("runs/{name}"));
                assert_eq!(updates_of(&run), UPDATES);
                assert!(
                    weights(&run) == reference,
                    "{name}: other weights after {stops} stops"
                );
                stops
            })
            .find(|stops| *stops >= 2)
            .unwrap_or_default();
        assert!(stops >= 2, "never stopped twice by {signal}");
    }
}

#[test]
fn an_evaluation_that_a_kill_cut_off_is_made_up_for() {
    let bench = Bench::new();
    bench.succeed("phantom --out scans --train 2 --validation 1 --test 1 --size 48x56x48 --seed 3");
    let mut train = "train --lockstep --landmarks bridge --updates 5 --run-dir runs --name one \
         --train-images scans/train/images.txt --train-landmarks scans/train/landmarks.txt \
         --validation-images scans/validation/images.txt \
         --validation-landmarks scans/validation/landmarks.txt"
        .to_owned();
    for setting in SETTINGS {
        train.push_str(" --set ");
        train.push_str(setting);
    }
    bench.succeed(&format!(
        "{train} --set validation.period=5 --set validation.starts=1"
    ));
    // Simulates a kill after the checkpoint and before the line.
    let lines = bench.path("runs/one/validation.jsonl");
    std::fs::remove_file(&lines).unwrap();
    bench.succeed("train --resume runs/one --updates 10");
    let updates = |v: serde_json::Value| v["updates"].as_u64();
    let updates: Vec<_> = lines_of(&lines).into_iter().map(updates).collect();
    assert_eq!(updates, [Some(5), Some(10)]);
}

/// Stops a run repeatedly until it ends by itself; returns the number of stops.
fn stop_at_random(
    bench: &Bench,
    train: &str,
    name: &str,
    signal: &str,
    rng: &mut ChaCha8Rng,
) -> usize {
    let run: PathBuf = bench.path(&format!("runs/{name}"));
    let mut child = start(bench, &format!("{train} --name {name}"));
    let mut stops = 0;
    loop {
        let before = updates_of(&run);
        let longer = Duration::from_millis(rng.random_range(0..60));
        let_run(&mut child, &run, before, longer);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        let id = child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status();
        assert!(sent.unwrap().success());
        child.wait().unwrap();
        stops += 1;
        child = start(bench, &format!("train --resume runs/{name}"));
    }
    assert!(child.wait().unwrap().success());
    stops
}
