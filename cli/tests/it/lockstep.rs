//! `landmarl train --lockstep` as a process that is killed and resumed.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::process::{Bench, json_lines, names_in};
use crate::services::signal as send;

const UPDATES: u64 = 40;

const TRAIN: &str = "train --lockstep --run-dir runs \
    --train-images data/train/images.txt --train-landmarks data/train/landmarks.txt \
    --set rules.window_size=12 --set rules.max_steps=40 --set actor.slots=4 \
    --set learner.batch=16 --set learner.publish_period=7 --set checkpoint.period=5 \
    --set replay.min_rows=60 --set replay.capacity=200 --set replay.error_buffer=200";

fn updates_of(run: &Path) -> u64 {
    let number = |name: &String| name.strip_prefix("update-")?.get(..8)?.parse::<u64>().ok();
    let names = names_in(&run.join("checkpoints"));
    names.iter().filter_map(number).max().unwrap_or(0)
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
fn a_run_that_is_stopped_and_killed_at_random_ends_like_an_uninterrupted_one() {
    let bench = Bench::new();
    bench.phantoms();
    let train = format!(
        "{TRAIN} --landmarks bridge,base_ball --updates {UPDATES} --set validation.period=0"
    );
    bench.succeed(&format!("{train} --name whole"));
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
fn an_evaluation_that_a_kill_prevented_is_made_after_the_restart() {
    let bench = Bench::new();
    bench.phantoms();
    bench.succeed(&format!(
        "{TRAIN} --landmarks bridge --updates 5 --name one --set validation.period=5 \
         --set validation.starts=1 --validation-images data/validation/images.txt \
         --validation-landmarks data/validation/landmarks.txt"
    ));
    // Simulates a kill after the checkpoint and before the line.
    let lines = bench.path("runs/one/validation.jsonl");
    std::fs::remove_file(&lines).unwrap();
    bench.succeed("train --resume runs/one --updates 10");
    let updates = |v: serde_json::Value| v["updates"].as_u64();
    let updates: Vec<_> = json_lines(&lines).into_iter().map(updates).collect();
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
    let run = bench.path(&format!("runs/{name}"));
    let mut child = start(bench, &format!("{train} --name {name}"));
    let mut stops = 0;
    loop {
        let before = updates_of(&run);
        let longer = Duration::from_millis(rng.random_range(0..60));
        let_run(&mut child, &run, before, longer);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        send(&child, signal);
        child.wait().unwrap();
        stops += 1;
        child = start(bench, &format!("train --resume runs/{name}"));
    }
    assert!(child.wait().unwrap().success());
    stops
}
