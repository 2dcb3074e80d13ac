//! Disks that fill up, and file systems without locks.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::process::{Bench, assert_contains, files_below, json_lines, wait_for};
use crate::run::{DATA, SMALL};
use crate::services::{PATIENCE, signal};

/// Sets how large a file of this process may become, in bytes: a write beyond it fails as on a
/// full disk.
fn limit_files(child: &Child, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let pid = child.id().to_string();
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(set.unwrap().success());
}

/// The learner's file with this in its name.
fn file(run: &Path, part: &str) -> Option<PathBuf> {
    let names = files_below(run).into_iter();
    let mut names = names.filter(|name| !name.ends_with("validation"));
    Some(run.join(names.find(|name| name.contains(part))?))
}

fn size(run: &Path, part: &str) -> u64 {
    let file = file(run, part).and_then(|file| std::fs::metadata(file).ok());
    file.map_or(0, |data| data.len())
}

/// The number of events in the learner's file for TensorBoard, all of which must be whole.
fn whole_events(run: &Path) -> usize {
    let bytes = std::fs::read(file(run, "tfevents").unwrap()).unwrap();
    let (mut rest, mut count) = (bytes.as_slice(), 0);
    while let Some((length, _)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        // Length, its checksum, data, their checksum.
        rest = rest.get(8 + 4 + length + 4..).expect("a truncated event");
        count += 1;
    }
    assert!(rest.is_empty(), "a truncated event");
    count
}

/// Collects the standard error of a process; a file would be limited too.
fn standard_error(child: &mut Child) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let (sink, lines) = (Arc::clone(&text), child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            *sink.lock().unwrap() += &(line + "\n");
        }
    });
    text
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_only_what_was_written_meanwhile() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        println!("skipped: there is no `prlimit`, which limits the size of files");
        return;
    }
    let bench = Bench::new();
    bench.phantoms();
    let line = format!("train {DATA} --name full --updates 1000000 {SMALL}");
    let mut command = bench.command(&line);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let errors = standard_error(&mut child);
    let says = |words: &str| {
        wait_for(words, PATIENCE, || {
            let text = errors.lock().unwrap().clone();
            text.contains(words).then_some(()).ok_or(text)
        });
    };
    let run = bench.path("runs/full");
    let grows_beyond = |name: &str, bytes: u64| {
        wait_for(&format!("a longer {name}"), PATIENCE, || {
            let size = size(&run, name);
            (size > bytes).then_some(size).ok_or_else(String::new)
        })
    };
    let reports = grows_beyond("metrics.jsonl", 0);
    // Its first event, of the version, takes less.
    let events = grows_beyond("tfevents", 100);
    // Some bytes of the next event fit.
    limit_files(&child, &(events + 10).to_string());
    says("cannot write metrics.jsonl: File too large");
    says("cannot write TensorBoard's event file: File too large");
    says("checkpoint not written");
    let left = [size(&run, "metrics.jsonl"), size(&run, "tfevents")];
    assert_eq!(left, [reports, events], "a truncated report is removed");
    let temporary = |name: &String| name.ends_with(".tmp");
    assert!(!files_below(&run).iter().any(temporary));

    let last = run.join("checkpoints/last.safetensors");
    let _ = std::fs::remove_file(&last);
    limit_files(&child, "unlimited");
    grows_beyond("metrics.jsonl", reports);
    grows_beyond("tfevents", events);
    grows_beyond("checkpoints/last.safetensors", 0);
    says("metrics.jsonl is written again");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let text = errors.lock().unwrap().clone();
    assert_contains(&text, "checkpoints/update- | entries are missing");
    for wrong in ["corrupt", "damaged", "does not continue"] {
        assert!(!text.contains(wrong), "{text}");
    }
    let reports = json_lines(&run.join("metrics.jsonl"));
    assert_eq!(reports.last().unwrap()["over"], true);
    // The first event of a file names its version.
    assert_eq!(whole_events(&run), reports.len() + 1);
}

/// `data/nolock.c` refuses every lock, as NFS without its lock service does.
#[test]
fn a_file_system_without_locks_is_used_with_one_warning() {
    let bench = Bench::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nolock.c");
    let library = bench.path("nolock.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: there is no C compiler `cc` to build nolock.c");
        return;
    }
    bench.phantoms();
    let line = format!("train {DATA} --name nfs --updates 5 {SMALL}");
    let mut command = bench.command(&line);
    let output = command.env("LD_PRELOAD", &library).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let warnings = errors.lines().filter(|line| line.contains("lock"));
    let warnings: Vec<&str> = warnings.collect();
    assert_eq!(warnings.len(), 1, "{errors}");
    assert_contains(
        warnings[0],
        "WARN | file locks do not work in runs/nfs | No locks available | \
         give each process a folder of its own",
    );
}
