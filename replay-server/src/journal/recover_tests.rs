//! Tests of `recover`.

use super::*;
use crate::journal::disk::RealDisk;
use crate::journal::segment::Item;
use crate::journal::tests::{Rows, SHAPE, entries, log, numbers, read};
use std::cell::RefCell;
use std::io;

/// Records the sync requests with the file lengths, and may refuse them.
#[derive(Default)]
struct RecordingDisk {
    asked: RefCell<Vec<(PathBuf, Option<u64>)>>,
    refuses: bool,
}

impl RecordingDisk {
    fn note(&self, path: &Path, length: Option<u64>) -> io::Result<()> {
        self.asked.borrow_mut().push((path.to_owned(), length));
        let error = self.refuses.then(|| io::Error::from_raw_os_error(5));
        error.map_or(Ok(()), Err)
    }
}

impl Disk for RecordingDisk {
    fn settle(&self, path: &Path, length: u64) -> io::Result<()> {
        self.note(path, Some(length))?;
        RealDisk.settle(path, length)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.note(folder, None)?;
        RealDisk.sync_folder(folder)
    }
}

/// An incarnation killed between a write and its sync leaves rows only in the page cache.
#[test]
fn recovered_rows_are_synced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut log = log(folder, 500, 1000);
    for entry in entries(30) {
        log.commit(&[entry]).unwrap();
    }
    drop(log);
    let recovered = |disk: &RecordingDisk, mode| {
        let mut rows = Rows::default();
        recover(disk, folder, Some(2), mode, 100, &mut rows)
    };
    let read_only = RecordingDisk::default();
    let found = recovered(&read_only, Mode::ReadOnly).unwrap();
    assert!(read_only.asked.into_inner().is_empty() && found.segments.len() > 2);
    let last = found.segments.last().unwrap();
    let expected = [
        (last.path.clone(), Some(last.bytes)),
        (folder.to_owned(), None),
    ];
    let whole = fs::read(&last.path).unwrap();
    for end in [b"".as_slice(), b"torn"] {
        fs::write(&last.path, [&whole[..], end].concat()).unwrap();
        let disk = RecordingDisk::default();
        let found = recovered(&disk, Mode::Repair).unwrap();
        assert_eq!((found.next_row, found.torn_bytes), (60, end.len() as u64));
        assert_eq!(disk.asked.into_inner(), expected);
        assert_eq!(fs::read(&last.path).unwrap(), whole);
    }
    // Rows that may not be durable are not served.
    let disk = RecordingDisk {
        refuses: true,
        ..RecordingDisk::default()
    };
    let error = recovered(&disk, Mode::Repair).unwrap_err().to_string();
    assert!(error.contains("sync the end of"), "{error}");
}

/// The segment's bytes and the offset of the mark behind each group of three batches.
fn three_groups(folder: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let mut log = log(folder, 1 << 20, 1000);
    for group in entries(9).chunks(3) {
        log.commit(group).unwrap();
    }
    let path = segment::path(folder, 0);
    let bytes = fs::read(&path).unwrap();
    let is_mark = |&at: &usize| segment::mark(&bytes, at, 0).is_some();
    let marks: Vec<usize> = (0..bytes.len()).filter(is_mark).collect();
    assert_eq!(marks.len(), 3);
    (path, bytes, marks)
}

/// The offset of a byte in the second batch of the group that begins at `at`.
fn second_batch(bytes: &[u8], at: usize) -> usize {
    let Item::Batch(_, end) = segment::batch(bytes, at, SHAPE.bytes()) else {
        panic!("no batch at byte {at}");
    };
    end + 20
}

/// A group is six rows: one, two and three.
#[test]
fn damage_costs_its_batch_before_a_mark_and_all_that_follows_behind_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes, marks) = three_groups(folder.path());
    let mark = bytes.len() - marks[2];
    let damaged = |at: usize, length: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        bytes.truncate(length);
        fs::write(&path, bytes).unwrap();
        let (rows, found) = read(folder.path(), Mode::Repair);
        assert_eq!(rows.0.len() as u64, found.next_row);
        (rows.0, found)
    };
    let (second, third) = (marks[0] + mark, marks[1] + mark);
    let (all, without_last) = (bytes.len(), marks[2]);
    for (at, length, lost) in [
        (second_batch(&bytes, second), all, 7..9),
        (second_batch(&bytes, second), without_last, 7..9),
        (second_batch(&bytes, third), all, 13..15),
        // The last batch before the last mark: the mark says how many rows there were.
        (marks[2] - 1, all, 15..18),
    ] {
        let (rows, found) = damaged(at, length);
        let hole = lost.clone().map(|_| None);
        let expected = [
            numbers(0..lost.start),
            hole.collect(),
            numbers(lost.end..18),
        ];
        assert_eq!(rows, expected.concat(), "{at} of {length}");
        let count = lost.end - lost.start;
        assert_eq!((found.lost_rows, found.torn_bytes), (count, 0));
        assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
    }
    // Without its mark the last group may be a crash's: its end is cut at the hole.
    let (rows, found) = damaged(second_batch(&bytes, third), without_last);
    assert_eq!(rows, numbers(0..13));
    assert_eq!((found.lost_rows, found.damage.len()), (0, 0));
    assert!(found.torn_bytes > 0);
    let (rows, found) = read(folder.path(), Mode::ReadOnly);
    assert_eq!((rows.0, found.torn_bytes), (numbers(0..13), 0));
}

#[test]
fn the_lost_head_of_a_group_that_was_never_synced_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 1 << 20, 1000)
        .commit(&entries(9))
        .unwrap();
    let path = segment::path(folder.path(), 0);
    let bytes = fs::read(&path).unwrap();
    let mark = segment::last_mark(&bytes, 0).unwrap();
    let lost = [&[0; 64][..], &bytes[64..]].concat();
    fs::write(&path, &lost[..mark]).unwrap();
    let (rows, found) = read(folder.path(), Mode::Repair);
    assert_eq!((rows.0.len(), found.damage.len()), (0, 0));
    assert_eq!(found.torn_bytes, mark as u64);
    assert!(!path.exists() && path.with_extension("damaged").exists());
    // The mark proves that the group was on the disk.
    fs::write(&path, &lost).unwrap();
    let (_, found) = read(folder.path(), Mode::Repair);
    assert_eq!(found.damage.len(), 1);
}

/// Format 1 cannot say what was synced: nothing that is readable is given up.
#[test]
fn a_segment_without_marks_loses_the_damaged_batch_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes, marks) = three_groups(folder.path());
    let mark = bytes.len() - marks[2];
    for place in marks.iter().rev() {
        bytes.drain(*place..place + mark);
    }
    bytes[..8].copy_from_slice(&segment::MAGIC_WITHOUT_MARKS);
    fs::write(&path, &bytes).unwrap();
    let (rows, found) = read(folder.path(), Mode::ReadOnly);
    assert_eq!(rows.0, numbers(0..18));
    assert_eq!((found.torn_bytes, found.damage.len()), (0, 0));
    let third = second_batch(&bytes, marks[1] - mark);
    bytes[third] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (rows, found) = read(folder.path(), Mode::Repair);
    let expected = [numbers(0..13), vec![None; 2], numbers(15..18)].concat();
    assert_eq!(rows.0, expected);
    assert_eq!((found.lost_rows, found.damage.len()), (2, 1));
}

#[test]
fn a_mark_counts_in_its_own_place_alone() {
    let own = segment::Mark {
        segment: 30,
        place: 7,
        end: 33,
    };
    for (mark, is_one) in [
        (own, true),
        (segment::Mark { segment: 31, ..own }, false),
        (segment::Mark { place: 8, ..own }, false),
        (segment::Mark { end: 29, ..own }, false),
    ] {
        let mut bytes = vec![3; 7];
        segment::append_mark(&mut bytes, mark);
        let end = bytes.len();
        bytes.extend([3; 7]);
        let found = is_one.then_some((mark, end));
        assert_eq!(segment::mark(&bytes, 7, 30), found);
        assert_eq!(segment::last_mark(&bytes, 30), found.map(|_| 7));
        assert_eq!(segment::resume(&bytes, 0, None, 30), found.map(|_| 7));
    }
}
