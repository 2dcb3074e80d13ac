//! Signals that end a training: of a person, a closed terminal, a batch system.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::run::run_folder::RunFolder;

use crate::process::{Bench, Done, assert_contains, finish, json_lines, wait_for};
use crate::run::{DATA, SMALL};
use crate::services::{PATIENCE, signal};

/// Runs the arguments with all signals at their defaults: the tests may run where some are
/// ignored, as below `nohup`.
const DEFAULT_SIGNALS: &str = "exec env --default-signal \"$@\"";

/// A training that would not end and saves no checkpoint before a signal.
fn endless(bench: &Bench, name: &str, more: &str) -> Command {
    let never = "--set checkpoint.period=1000000000";
    let line = format!("train {DATA} --name {name} --updates 100000 {SMALL} {never} {more}");
    let mut command = bench.command(&line);
    command.stderr(Stdio::piped());
    command
}

/// The same command, started by a shell script, which gets it as its arguments.
fn by_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(command.get_current_dir().unwrap());
    shell.stderr(Stdio::piped());
    shell
}

/// Waits until the first evaluation is done.
fn trains(bench: &Bench, name: &str, child: &mut Child) {
    let file = bench.path(&format!("runs/{name}/validation.jsonl"));
    wait_for("the first evaluation", PATIENCE, || {
        assert!(child.try_wait().unwrap().is_none(), "training ended early");
        file.is_file().then_some(()).ok_or_else(String::new)
    });
}

/// The messages of a run's log with this text.
fn logged(run: &Path, message: &str) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(run.join("logs")).unwrap();
    let lines = files.flat_map(|file| json_lines(&file.unwrap().path()));
    lines.filter(|line| line["message"] == message).collect()
}

#[test]
fn every_signal_that_announces_an_end_leaves_a_checkpoint_and_is_named() {
    let bench = Bench::new();
    bench.phantoms();
    // A closed terminal sends SIGHUP, and so does the shell in it.
    for (name, more, twice) in [
        ("INT", "", false),
        ("HUP", "", true),
        ("USR1", "--lockstep", false),
        ("XCPU", "--lockstep", true),
    ] {
        let command = endless(&bench, name, more);
        let mut child = by_shell(DEFAULT_SIGNALS, &command).spawn().unwrap();
        trains(&bench, name, &mut child);
        signal(&child, name);
        if twice {
            signal(&child, name);
        }
        let done = finish(child.wait_with_output().unwrap());
        assert_eq!(done.code, Some(130), "{name}: {}", done.err);
        assert_contains(
            &done.err,
            &format!(
                "SIG{name}: saving a checkpoint | stopped by SIG{name}: | \
                 landmarl train --resume runs/{name}"
            ),
        );
        let run = bench.path(&format!("runs/{name}"));
        for file in ["last.safetensors", "final.safetensors"] {
            assert!(run.join("checkpoints").join(file).is_file(), "{name}");
        }
        let stopping = logged(&run, "stopping");
        assert_eq!(stopping.len(), 1, "{name}");
        assert_eq!(stopping[0]["signal"], format!("SIG{name}"));
    }
}

#[test]
fn a_signal_that_the_parent_process_ignores_does_not_end_the_training() {
    let bench = Bench::new();
    bench.phantoms();
    // As nohup does.
    let command = endless(&bench, "kept", "--lockstep");
    let mut child = by_shell("trap '' HUP; exec \"$@\"", &command)
        .spawn()
        .unwrap();
    trains(&bench, "kept", &mut child);
    signal(&child, "HUP");
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended it");
    signal(&child, "TERM");
    let Done { code, err, .. } = finish(child.wait_with_output().unwrap());
    assert_eq!(code, Some(130), "{err}");
    assert_contains(&err, "stopped by SIGTERM:");
}

/// The terminal takes no more output then, and nothing may fail because of that.
#[test]
fn a_training_whose_terminal_is_closed_saves_a_checkpoint() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no `script`, which runs a command in a terminal");
        return;
    }
    let bench = Bench::new();
    bench.phantoms();
    let mut command = endless(&bench, "lost", "");
    // With progress bars.
    command.env_remove("CI");
    let script = r#"exec env --default-signal script -qec "exec $*" /dev/null"#;
    let mut terminal = by_shell(script, &command);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let terminal = terminal.as_mut().unwrap();
    trains(&bench, "lost", terminal);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let folder = RunFolder::open(&bench.path("runs/lost")).unwrap();
    wait_for("the end of the training", PATIENCE, || {
        folder.lock().map(drop).map_err(|busy| busy.to_string())
    });
    assert_eq!(logged(folder.path(), "stopping")[0]["signal"], "SIGHUP");
    for file in ["last.safetensors", "final.safetensors"] {
        assert!(folder.checkpoints().join(file).is_file(), "{file}");
    }
}
