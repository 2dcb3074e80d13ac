//! Rotation, processes of one name, and disks that refuse writes.

use std::sync::Mutex;

use super::*;

fn name(folder: &Path) -> Name {
    Name {
        folder: folder.to_owned(),
        service: "actor".into(),
        instance: "host".into(),
    }
}

/// A log file, its warnings, and its count of dropped lines.
fn log(folder: &Path, bounds: Bounds) -> (LogFile, Arc<Mutex<Vec<String>>>, Arc<AtomicU64>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let (sink, dropped) = (Arc::clone(&warnings), Arc::new(AtomicU64::new(0)));
    let log = LogFile::new(
        name(folder),
        name(folder).claim().unwrap(),
        bounds,
        Box::new(move |text| sink.lock().unwrap().push(text.to_owned())),
        Arc::new(Labels::new("actor", "host", "")),
        Arc::clone(&dropped),
    );
    (log, warnings, dropped)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn files_are_rotated_and_the_oldest_removed() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes: 40, kept: 2 };
    let (mut log, warnings, _) = log(dir.path(), bounds);
    for n in 0..20 {
        let line = format!("line {n:02} ......\n");
        log.write_all(line.as_bytes()).unwrap();
    }
    let path = dir.path().join("actor-host.jsonl");
    // Two lines of 15 bytes fit into 40, a third does not.
    let first = |path: &Path| read(path).lines().next().unwrap_or_default().to_owned();
    assert_eq!(first(&path), "line 18 ......");
    assert_eq!(first(&numbered(&path, 1)), "line 16 ......");
    assert_eq!(first(&numbered(&path, 2)), "line 14 ......");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    assert!(warnings.lock().unwrap().is_empty());
}

#[test]
fn processes_of_one_name_get_separate_files_and_a_free_name_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = name(dir.path()).claim().unwrap();
    let second = name(dir.path()).claim().unwrap();
    let instances = [&first, &second].map(|claim| claim.instance.as_str());
    assert_eq!(instances, ["host", "host-2"]);
    assert_eq!(second.path, dir.path().join("actor-host-2.jsonl"));
    drop(first);
    assert_eq!(name(dir.path()).claim().unwrap().instance, "host");
}

#[test]
fn a_line_truncated_by_a_kill_stays_separate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor-host.jsonl");
    fs::write(&path, "whole\nhal").unwrap();
    let (mut log, ..) = log(dir.path(), BOUNDS);
    log.write_all(b"next\n").unwrap();
    assert_eq!(read(&path), "whole\nhal\nnext\n");
}

#[test]
fn a_removed_folder_loses_its_lines_and_is_used_again_once_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    fs::create_dir(&folder).unwrap();
    let (mut log, warnings, dropped) = log(&folder, BOUNDS);
    let begin = Instant::now();
    let mut line = |text: &str, after: u64| {
        log.write_line(text.as_bytes(), begin + Duration::from_secs(after));
    };
    line("a\n", 0);
    fs::remove_dir_all(&folder).unwrap();
    // Written to a file without a name; the next check counts it.
    line("b\n", 1);
    line("c\n", 10);
    line("d\n", 11);
    assert_eq!(dropped.load(Ordering::Relaxed), 4, "a to d");
    fs::create_dir(&folder).unwrap();
    line("e\n", 20);
    let text = read(&folder.join("actor-host.jsonl"));
    let (first, report) = text.split_once('\n').unwrap();
    assert_eq!(first, "e");
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    let message = "4 log lines were dropped here: the file could not be written";
    assert_eq!(report["level"], "warn");
    assert_eq!(report["message"], message);
    let warnings = warnings.lock().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("training goes on"), "{warnings:?}");
}

/// Writing to `/dev/full` fails, opening it does not.
#[test]
fn a_full_disk_loses_lines_and_warns_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor-host.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (mut log, warnings, dropped) = log(dir.path(), BOUNDS);
    let begin = Instant::now();
    for second in 0..100 {
        log.write_line(b"x\n", begin + Duration::from_secs(second));
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 100);
    let warnings = warnings.lock().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("No space left"), "{warnings:?}");
    assert!(warnings[1].contains("61 dropped so far"), "{warnings:?}");
}
