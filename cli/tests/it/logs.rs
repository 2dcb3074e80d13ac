//! `landmarl logs` on files and on a fake Loki.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::loki_stand_in::FakeLoki;
use crate::process::{Bench, Done, assert_contains, check_error_snapshot, finish, parse, wait_for};
use crate::services::PATIENCE;

/// A line in the services' format.
fn line(time: &str, service: &str, instance: &str, level: &str, rest: &str) -> String {
    format!(
        "{{\"time\":\"2026-11-26T{time}Z\",\"level\":\"{level}\",\"target\":\"t\",\"service\":\"{service}\",\"instance\":\"{instance}\",\"run\":\"first\",{rest}}}"
    )
}

fn message(text: &str) -> String {
    format!("\"message\":\"{text}\"")
}

/// Two services, a rotated file, an incomplete line and an invalid one.
fn write_logs(bench: &Bench) {
    let learner = |time: &str, level: &str, rest: &str| line(time, "learner", "box", level, rest);
    let actor = |time: &str, level: &str, rest: &str| line(time, "actor", "box-2", level, rest);
    let lost_actor = "\"message\":\"actor lost\",\"actor\":3";
    let lost_shard = "\"message\":\"lost shard\",\"shard\":1,\"span\":{\"actor\":3}";
    let learner = [
        learner("08:00:00.000000", "info", &message("dataset loaded")),
        learner("08:00:03.000000", "warn", lost_actor),
        "thread panicked at somewhere".to_owned(),
        learner("08:00:09.000000", "error", &message("loss is NaN")),
    ];
    let rotated = [actor("08:00:01.000000", "info", &message("joined the run"))];
    let actor = [
        actor("08:00:02.000000", "debug", &message("shard is away")),
        actor("08:00:04.500000", "warn", lost_shard),
    ];
    for (name, lines) in [
        ("learner-box.jsonl", &learner[..]),
        ("actor-box-2.jsonl.1", &rotated),
        ("actor-box-2.jsonl", &actor),
    ] {
        let mut text = lines.join("\n") + "\n";
        if name.ends_with("2.jsonl") {
            text += "{\"time\":\"2026-11-26T08:00:0";
        }
        bench.write(&format!("runs/first/logs/{name}"), text);
    }
}

/// The printed messages.
fn shown(bench: &Bench, options: &str) -> Vec<String> {
    let done = bench.succeed(&format!("logs --json {options}"));
    let message = |line| parse(line)["message"].as_str().unwrap().to_owned();
    done.out.lines().map(message).collect()
}

#[test]
fn files_are_merged_and_every_condition_counts() {
    let bench = Bench::new();
    write_logs(&bench);
    let all = [
        "dataset loaded",
        "joined the run",
        "shard is away",
        "actor lost",
        "lost shard",
        "loss is NaN",
    ];
    assert_eq!(shown(&bench, "runs/first"), all);
    assert_eq!(shown(&bench, "runs/first/logs"), all);
    assert_eq!(shown(&bench, ""), all, "the newest run");
    let folder = "--set log.folder=runs/first/logs --set run.dir=elsewhere";
    assert_eq!(shown(&bench, folder), all);
    for case in "\
        --service actor => joined the run, shard is away, lost shard
        --service actor,learner --level WARN => actor lost, lost shard, loss is NaN
        --instance box => dataset loaded, actor lost, loss is NaN
        --instance 3 => actor lost, lost shard
        --service actor --instance 3 => lost shard
        --grep nan =>
        --grep (?i)nan|shard=1 => lost shard, loss is NaN
        --since 2026-11-26T08:00:04.5Z => lost shard, loss is NaN
        --until 2026-11-26T08:00:01Z => dataset loaded
        --tail 2 => lost shard, loss is NaN
        --tail 1 --service actor => lost shard
        --run-name first --tail 1 => loss is NaN
        --run-name second =>
        --since 1s =>"
        .lines()
    {
        let (options, expected) = case.split_once(" =>").unwrap();
        assert_eq!(shown(&bench, options).join(", "), expected.trim(), "{case}");
    }
}

#[test]
fn text_is_readable_and_damaged_lines_are_noted() {
    let bench = Bench::new();
    write_logs(&bench);
    let done = bench.succeed("logs runs/first --level warn");
    assert_eq!(
        done.out,
        "2026-11-26 08:00:03.000 WARN  learner/box actor lost actor=3\n\
         2026-11-26 08:00:04.500 WARN  actor/box-2 lost shard shard=1 actor=3\n\
         2026-11-26 08:00:09.000 ERROR learner/box loss is NaN\n"
    );
    assert_eq!(done.err, "note: skipped 2 damaged lines\n");
}

#[test]
fn lines_on_standard_input_are_filtered() {
    let bench = Bench::new();
    let actor = |time: &str, level: &str, rest: &str| line(time, "actor", "box", level, rest);
    let third = actor("08:00:01", "info", &message("third"));
    let input = [
        actor("08:00:00.5", "warn", &message("first")),
        // In the format of `kubectl logs --prefix` and `docker compose logs`.
        "[pod/actor-0/actor] ".to_owned() + &actor("08:00:02", "error", &message("second")),
        "actor-1  | ".to_owned() + &third,
        "thread panicked at somewhere".to_owned(),
        String::new(),
        actor("08:00:03", "warn", "\"message\":\"fourth\",\"shard\":1"),
    ];
    let filtered = |options: &str| -> Done {
        let mut command = bench.command(&format!("logs - {options}"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.join("\n").as_bytes()).unwrap();
        drop(stdin);
        finish(child.wait_with_output().unwrap())
    };
    let done = filtered("--level warn");
    assert_eq!(
        done.out,
        "2026-11-26 08:00:00.500 WARN  actor/box first\n\
         2026-11-26 08:00:02.000 ERROR actor/box second\n\
         2026-11-26 08:00:03.000 WARN  actor/box fourth shard=1\n"
    );
    assert_eq!(done.err, "note: skipped 1 damaged line\n");
    assert_eq!(done.code, Some(0));
    let done = filtered("--json --tail 1 --until 2026-11-26T08:00:03Z");
    assert_eq!(done.out, third + "\n");
    assert_eq!(filtered("--level warn --grep nothing").out, "");
}

#[test]
fn what_cannot_be_shown_is_an_error() {
    let bench = Bench::new();
    write_logs(&bench);
    bench.write("empty/notes.txt", "");
    bench.failures(
        "2 logs --since yesterday => --since \"yesterday\" | 10m
         2 logs --grep ( => --grep | unclosed group
         4 logs nowhere => no run nowhere in runs
         4 logs empty => there are no logs in empty
         4 logs --set run.dir=none => there are no logs in none
         2 logs --loki 127.0.0.1:3100 => is not a URL
         5 logs --loki http://127.0.0.1:9 => Loki at http://127.0.0.1:9",
    );
    check_error_snapshot("logs");
}

/// A command that keeps running; killed when dropped.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(bench: &Bench, options: &str) -> Self {
        Self::of(bench.command(&format!("logs -f {options}")))
    }

    fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line; fails after the timeout.
    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn new_lines_files_and_rotations_are_followed() {
    let bench = Bench::new();
    write_logs(&bench);
    let logs = bench.path("runs/first/logs");
    let following = Following::start(&bench, "runs/first --service actor --tail 1");
    assert!(following.next().ends_with("lost shard shard=1 actor=3"));
    // The incomplete line is completed and is damaged; the next one is valid.
    let actor = logs.join("actor-box-2.jsonl");
    let new = |text: &str| line("08:01:00.000000", "actor", "x", "info", &message(text)) + "\n";
    append(&actor, &format!("\n{}", new("one")));
    assert!(following.next().ends_with("one"));
    let rotated = logs.join("actor-box-2.jsonl.1");
    std::fs::rename(&rotated, logs.join("actor-box-2.jsonl.2")).unwrap();
    append(&actor, &new("two"));
    std::fs::rename(&actor, &rotated).unwrap();
    append(&actor, &new("three"));
    append(&logs.join("actor-new.jsonl"), &new("four"));
    let other = new("not of an actor").replace("\"actor\"", "\"learner\"");
    append(&logs.join("learner-new.jsonl"), &other);
    let three = [following.next(), following.next(), following.next()];
    for word in ["two", "three", "four"] {
        assert!(three.iter().any(|l| l.ends_with(word)), "{three:?}");
    }
    append(&actor, &new("five"));
    assert!(following.next().ends_with("five"));
}

/// As in the learner's container of deploy/compose.yaml, where all services write to one volume.
#[test]
fn without_a_run_the_folder_of_the_environment_is_followed() {
    let bench = Bench::new();
    write_logs(&bench);
    let logs = bench.path("volume/first");
    std::fs::create_dir_all(&logs).unwrap();
    let mut command = bench.command("logs -f --service actor");
    command.env("LANDMARL__LOG__FOLDER", &logs);
    let following = Following::of(command);
    let new = |text: &str| line("08:01:00.000000", "actor", "x", "info", &message(text)) + "\n";
    append(&logs.join("actor-x.jsonl"), &new("of the volume"));
    assert!(following.next().ends_with("of the volume"));
}

#[test]
fn logs_end_when_the_reader_closes_the_pipe() {
    let bench = Bench::new();
    write_logs(&bench);
    let mut following = Following::start(&bench, "runs/first");
    drop(std::mem::replace(&mut following.lines, channel().1));
    let actor = bench.path("runs/first/logs/actor-box-2.jsonl");
    let more = line("08:02:00.000000", "actor", "x", "info", &message("more")) + "\n";
    let status = wait_for("the end without a reader", PATIENCE, || {
        append(&actor, &more);
        let status = following.child.try_wait().unwrap();
        status.ok_or_else(String::new)
    });
    assert!(status.success(), "{status}");
}

#[test]
fn loki_results_are_read_page_by_page() {
    let bench = Bench::new();
    let loki = FakeLoki::start();
    // More than two pages, and more lines with the same time than a page holds.
    let mut expected = Vec::new();
    for n in 0..2600_u32 {
        let together = (700..1900).contains(&n);
        let second = if together { 700 } else { n };
        let time = format!("07:{:02}:{:02}.000000", second / 60, second % 60);
        let text = format!("number {n}");
        expected.push(text.clone());
        // Lines with the same time are ordered only within one stream.
        let even = together || n % 2 == 0;
        let level = if even { "info" } else { "warn" };
        loki.push(&line(&time, "actor", "box", level, &message(&text)));
    }
    let other = message("not asked for");
    loki.push(&line("07:50:00.000000", "learner", "box", "info", &other));
    let window = "--since 2026-11-26T07:00:00Z --until 2026-11-26T08:00:00Z";
    let url = format!("--loki {} {window}", loki.address);
    assert_eq!(shown(&bench, &format!("{url} --service actor")), expected);
    assert!(loki.requests() >= 3, "{}", loki.requests());
    let last = shown(&bench, &format!("{url} --service actor --tail 1500"));
    assert_eq!(last, expected[1100..]);
    let warnings = shown(&bench, &format!("{url} --level warn --grep number"));
    assert_eq!(warnings.len(), 700);
    let found = shown(&bench, &format!("{url} --query |=\"2599\""));
    assert_eq!(found, ["number 2599"]);
    assert_eq!(loki.last_query(), "{service=~\".+\"} |=\"2599\"");
    let last = shown(&bench, &format!("{url} --instance box --tail 1"));
    assert_eq!(last, ["not asked for"]);
    assert!(shown(&bench, &format!("{url} --instance other")).is_empty());
}

#[test]
fn loki_is_followed_and_its_errors_are_reported() {
    let bench = Bench::new();
    let loki = FakeLoki::start();
    let push = |ago: u64, text: &str| {
        let at = std::time::SystemTime::now() - Duration::from_secs(ago);
        let whole = line("00:00:00", "actor", "box", "info", &message(text));
        let time = common::run::run_folder::rfc3339(at);
        loki.push(&whole.replace("2026-11-26T00:00:00Z", &time));
    };
    push(20, "before");
    push(9, "old");
    let following = Following::start(&bench, &format!("--loki {} --tail 1", loki.address));
    assert!(following.next().ends_with("old"));
    push(0, "new");
    assert!(following.next().ends_with("new"));
    push(4, "late");
    let late = following.next();
    assert!(late.ends_with("late"), "lines that reach Loki late");
    loki.fail(true);
    std::thread::sleep(Duration::from_secs(2));
    loki.fail(false);
    push(0, "after");
    assert!(following.next().ends_with("after"), "and none twice");
    drop(following);
    let url = format!("--loki {}", loki.address);
    let done = bench.run(&format!("logs {url} --query |=bad"));
    assert_eq!(done.code, Some(5), "{}", done.err);
    let parse_error = "400: parse error at line 1, col 21: syntax error";
    assert_contains(&done.err, parse_error);
    assert_contains(&done.err, "{service=~\".+\"} |=bad");
    loki.ask_for_tenant();
    let refused = bench.run(&format!("logs {url}"));
    assert_contains(&refused.err, "401: no org id");
    let lines = shown(&bench, &format!("{url} --header X-Scope-OrgID:skulls"));
    assert_eq!(lines.len(), 5);
}
