//! Merging, damaged lines, and rotation while a reader is active.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;

fn text(second: u64, message: &str) -> String {
    format!(
        "{{\"time\":\"2026-11-26T08:00:{second:02}.000000Z\",\"level\":\"info\",\"message\":\"{message}\"}}\n"
    )
}

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn read(files: &mut Files) -> Vec<String> {
    let mut all = Vec::new();
    let take = |line: Line| {
        all.push(line.message);
        true
    };
    files.merged(&Filter::default(), take).unwrap();
    all
}

#[test]
fn lines_are_merged_by_time_and_damaged_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["actor-a.jsonl", "learner-b.jsonl"].map(|name| dir.path().join(name));
    append(&numbered(&a, 2), &(text(1, "a1") + "{\"time\":\"2026"));
    append(&numbered(&a, 1), &text(4, "a4"));
    append(&a, &(text(6, "a6") + "\n" + "panicked\n" + &text(9, "a9")));
    let truncated = "{\"half";
    append(
        &b,
        &(text(2, "b2") + &text(5, "b5") + &text(7, "b7") + truncated),
    );
    append(&dir.path().join("notes.txt"), "not a log\n");
    let mut files = Files::open(dir.path(), None).unwrap();
    assert_eq!(read(&mut files), ["a1", "b2", "a4", "b5", "a6", "b7", "a9"]);
    assert_eq!(files.damaged, 2, "the truncated line of a.2, and the panic");
    files.finish();
    assert_eq!(files.damaged, 3, "and the truncated last line of b");
}

#[test]
fn a_line_is_read_when_its_end_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor-a.jsonl");
    let whole = text(1, "late");
    append(&path, &whole[..30]);
    let mut files = Files::open(dir.path(), None).unwrap();
    assert!(read(&mut files).is_empty());
    append(&path, &whole[30..]);
    assert_eq!(read(&mut files), ["late"]);
    assert_eq!(files.damaged, 0);
}

#[test]
fn rotations_between_two_reads_neither_lose_nor_repeat_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor-a.jsonl");
    append(&path, &text(0, "0"));
    let mut files = Files::open(dir.path(), None).unwrap();
    let mut got = read(&mut files);
    for round in 1..=12_u64 {
        append(&path, &text(round, &format!("{round}a")));
        // Up to three rotations between two reads.
        for turn in 0..round % 4 {
            for number in (1..5).rev() {
                let _ = fs::rename(numbered(&path, number), numbered(&path, number + 1));
            }
            fs::rename(&path, numbered(&path, 1)).unwrap();
            append(&path, &text(round, &format!("{round}b{turn}")));
        }
        files.refresh().unwrap();
        got.extend(read(&mut files));
    }
    append(&dir.path().join("actor-new.jsonl"), &text(50, "new"));
    files.refresh().unwrap();
    got.extend(read(&mut files));
    let mut expected = vec!["0".to_owned()];
    for round in 1..=12_u64 {
        expected.push(format!("{round}a"));
        expected.extend((0..round % 4).map(|turn| format!("{round}b{turn}")));
    }
    expected.push("new".to_owned());
    assert_eq!(got, expected);
}

#[test]
fn rotated_files_older_than_since_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("actor-a.jsonl");
    append(&numbered(&path, 1), "this would count as damage\n");
    append(&path, &text(1, "x"));
    let later = UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(3600);
    let since = u64::try_from(later.as_nanos()).unwrap();
    let mut files = Files::open(dir.path(), Some(since)).unwrap();
    assert_eq!(read(&mut files), ["x"], "the filter decides about lines");
    assert_eq!(files.damaged, 0);
}
