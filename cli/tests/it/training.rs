//! `landmarl train` as its user meets it: what it prints, how it is found while it runs, and
//! how it is continued.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{Bench, assert_contains, finish, json, json_lines, names_in, wait_for};
use crate::run::{DATA, SMALL};
use crate::services::{PATIENCE, signal};

/// All lines of the logs in a run folder.
fn log_lines(run: &Path) -> Vec<serde_json::Value> {
    let logs = run.join("logs");
    let files = names_in(&logs).into_iter();
    files
        .flat_map(|name| json_lines(&logs.join(name)))
        .collect()
}

#[test]
fn a_healthy_training_warns_of_nothing_and_its_suggested_commands_run_as_they_are() {
    let bench = Bench::new();
    bench.phantoms();
    // A shell takes this name apart unless it is quoted.
    fs::rename(bench.path("data"), bench.path("my data")).unwrap();
    let data = DATA.replace("data/", "my*data/");
    // On a busy machine a heartbeat may be late for the short lease of `SMALL`.
    let line = format!("train {data} --name one --updates 30 {SMALL} --set cluster.lease_s=60");
    let mut command = bench.command("");
    let words = line.split_whitespace().map(|word| word.replace('*', " "));
    let done = finish(command.args(words).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(!done.err.contains("WARN"), "{}", done.err);
    // The limiter holds both sides back now and then, as it should.
    assert!(!done.err.contains("sampling waits"), "{}", done.err);
    let run = bench.path("runs/one");
    for line in log_lines(&run) {
        let level = line["level"].as_str().unwrap();
        assert!(level != "warn" && level != "error", "{line}");
    }
    let suggested = done.err.lines();
    let suggested = suggested.filter_map(|line| line.strip_prefix("  landmarl "));
    let suggested: Vec<&str> = suggested.collect();
    assert_eq!(suggested.len(), 2, "{}", done.err);
    for line in suggested {
        let settings = if line.starts_with("eval") {
            "--starts 1 --no-pictures --device cpu"
        } else {
            ""
        };
        let script = format!("{} {line} {settings}", env!("CARGO_BIN_EXE_landmarl"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(bench.dir.path());
        for (name, value) in bench.command("").get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let done = finish(shell.output().unwrap());
        assert_eq!(done.code, Some(0), "{script}\n{}", done.err);
    }
    let validations = json_lines(&run.join("validation.jsonl"));
    assert_eq!(validations.last().unwrap()["updates"], 60, "twice as many");
}

/// Starts a training that goes on until it is stopped, and waits until it announces itself.
fn start(bench: &Bench, line: &str) -> Child {
    let line = format!("train {line} --updates 100000 {SMALL}");
    let mut command = bench.command(&line);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = bench.path("runs/two/endpoints.json");
    wait_for("the endpoints", PATIENCE, || {
        assert!(child.try_wait().unwrap().is_none(), "training ended early");
        let pid = fs::read(&file).ok().and_then(|text| {
            let endpoints: serde_json::Value = serde_json::from_slice(&text).ok()?;
            endpoints["pid"].as_u64()
        });
        let ours = pid == Some(u64::from(child.id()));
        ours.then_some(()).ok_or_else(String::new)
    });
    child
}

#[test]
fn a_running_training_is_found_without_its_address_and_a_killed_one_says_so() {
    let bench = Bench::new();
    bench.phantoms();
    let mut child = start(&bench, &format!("{DATA} --name two"));
    for line in [
        "status --json",
        "status two --json",
        "status runs/two --json",
    ] {
        let status = bench.json(line);
        assert_eq!(status["run"], "two", "{line}");
        assert_eq!(status["updates_total"], 100_000);
    }
    let text = bench.succeed("status two").out;
    assert_contains(&text, "run two: ");
    assert!(!text.contains("insert, limiter"), "{text}");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let gone = "is not training now: no endpoints.json";
    bench.fail("status two", 5, &[gone]);

    let mut child = start(&bench, "--resume two");
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = format!("run two is not training now: its process {pid} was killed or crashed");
    for line in ["status", "status two"] {
        bench.fail(line, 5, &[&killed, "landmarl train --resume"]);
    }
}

/// Copies the folder of the run and resumes there, while the first data is away.
fn a_copy_of_the_run_uses_the_copy_of_its_data(bench: &Bench) {
    let copy = bench.path("copy");
    fs::create_dir(&copy).unwrap();
    for folder in ["data", "runs"] {
        let from = bench.path(folder);
        let copied = Command::new("cp").arg("-r").arg(from).arg(&copy).status();
        assert!(copied.unwrap().success());
    }
    let (data, away) = (bench.path("data"), bench.path("away"));
    fs::rename(&data, &away).unwrap();
    let mut command = bench.command("train --resume one --updates 12");
    let done = finish(command.current_dir(&copy).output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
    fs::rename(&away, &data).unwrap();
}

#[test]
fn a_run_is_resumed_by_name_or_folder_from_another_working_directory() {
    let bench = Bench::new();
    bench.phantoms();
    bench.succeed(&format!("train {DATA} --name one --updates 10 {SMALL}"));
    let here = bench.dir.path().canonicalize().unwrap();
    let info = |bench: &Bench| json(&bench.path("runs/one/run.json"));
    assert_eq!(info(&bench)["cwd"], here.to_str().unwrap());
    a_copy_of_the_run_uses_the_copy_of_its_data(&bench);
    let elsewhere = bench.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for (folder, line) in [
        (&elsewhere, "train --resume ../runs/one --updates 12"),
        (
            &elsewhere,
            "train --resume one --run-dir ../runs --updates 14",
        ),
        (&here, "train --resume one --updates 16"),
    ] {
        let mut command = bench.command(line);
        let done = finish(command.current_dir(folder).output().unwrap());
        assert_eq!(done.code, Some(0), "{line}\n{}", done.err);
    }
    assert!(names_in(&elsewhere).is_empty(), "nothing is written there");
    let config = bench.text("runs/one/config.toml");
    let placed = here.join("data/train/images.txt");
    assert_contains(&config, placed.to_str().unwrap());
    assert_eq!(info(&bench)["resumed"].as_array().unwrap().len(), 3);
    let found = bench.json("runs compare one runs/one --json");
    assert_eq!(found["runs"][0]["updates"], 16);
    assert_eq!(found["runs"][0]["name"], "one");
    let logs = bench.succeed("logs one --tail 1").out;
    assert_eq!(logs.lines().count(), 1, "{logs}");
}
