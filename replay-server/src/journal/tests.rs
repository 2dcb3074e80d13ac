//! Journals against truncation, flipped bits and disks that fail.

use super::disk::{Disk, RealDisk};
use super::log::{Entry, Log, Start};
use super::recover::{Mode, Recovered, Sink, recover};
use super::segment::{self, Head, Stored};
use super::sweep::Sweeper;
use super::thread::Journal;
use super::{JournalConfig, JournalError};
use crate::service::writers::Writers;
use crate::shard::CheckedBatch;
use common::transition::row::RowShape;
use proptest::prelude::*;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const SHAPE: RowShape = RowShape {
    agents: 1,
    history: 1,
};

pub(super) fn hello() -> Hello {
    Hello {
        run_id: "journal".into(),
        manifest: [3; 32],
        config_digest: [4; 32],
        shape: SHAPE,
    }
}

pub(super) fn start(capacity: u64) -> Start {
    Start {
        shard: 2,
        incarnation: 7,
        capacity,
        next_row: 0,
        segments: Vec::new(),
        stale: Vec::new(),
        writers: Writers::new(100),
    }
}

fn writer(actor: u16) -> Writer {
    let incarnation = 1;
    Writer { actor, incarnation }
}

/// Batch number `n` of writer `n % 2`; its rows hold their own numbers.
fn entry(n: u64, first_row: u64, rows: usize) -> Entry {
    let numbers = (first_row..).take(rows);
    let packed = numbers.clone().flat_map(|row| {
        let mut bytes = vec![0; SHAPE.bytes()];
        bytes[..8].copy_from_slice(&row.to_le_bytes());
        bytes
    });
    let batch = CheckedBatch {
        writer: writer(u16::from(n % 2 == 1)),
        sequence: n / 2 + 1,
        packed: packed.collect(),
        td_errors: numbers.map(|row| row as f32).collect(),
    };
    let batch = Arc::new(batch);
    Entry { first_row, batch }
}

/// Batches of 1, 2, 3, 1, 2, 3, … rows.
pub(super) fn entries(count: u64) -> Vec<Entry> {
    let mut row = 0;
    let one = |n: u64| {
        let entry = entry(n, row, (n % 3) as usize + 1);
        row = entry.end();
        entry
    };
    (0..count).map(one).collect()
}

pub(super) fn config(folder: &Path, segment_bytes: u64) -> JournalConfig {
    JournalConfig {
        segment_bytes,
        ..JournalConfig::new(folder)
    }
}

pub(super) fn log(folder: &Path, segment_bytes: u64, capacity: u64) -> Log<RealDisk> {
    let config = config(folder, segment_bytes);
    Log::new(RealDisk, config, start(capacity), Some(hello()))
}

/// Numbers of the recovered rows; `None` for a lost row.
#[derive(Default)]
pub(super) struct Rows(pub(super) Vec<Option<u64>>);

impl Sink for Rows {
    fn open(&mut self, head: &Head) -> Result<(), JournalError> {
        assert_eq!((head.shard, head.incarnation), (2, 7));
        assert_eq!(head.hello, hello());
        Ok(())
    }

    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError> {
        let rows = batch.packed.chunks_exact(SHAPE.bytes());
        for ((row, number), error) in rows.zip(batch.first_row..).zip(batch.td_errors()) {
            assert_eq!(row[..8], number.to_le_bytes(), "a row is what it was");
            assert_eq!(error, number as f32);
            self.0.push(Some(number));
        }
        Ok(())
    }

    fn hole(&mut self, rows: u64) -> Result<(), JournalError> {
        self.0.extend((0..rows).map(|_| None));
        Ok(())
    }
}

pub(super) fn read(folder: &Path, mode: Mode) -> (Rows, Recovered) {
    let mut rows = Rows::default();
    let found = recover(&RealDisk, folder, Some(2), mode, 100, &mut rows).unwrap();
    (rows, found)
}

pub(super) fn numbers(rows: std::ops::Range<u64>) -> Vec<Option<u64>> {
    rows.map(Some).collect()
}

#[test]
fn committed_rows_are_recovered_over_segments_and_incarnations() {
    let folder = tempfile::tempdir().unwrap();
    let all = entries(60);
    let mut log = log(folder.path(), 2000, 1000);
    for group in all[..40].chunks(3) {
        log.commit(group).unwrap();
    }
    assert_eq!(log.durable(), 79);
    drop(log);
    let (rows, found) = read(folder.path(), Mode::ReadOnly);
    assert_eq!(rows.0, numbers(0..79));
    assert!(found.segments.len() > 2 && found.damage.is_empty());
    assert_eq!((found.torn_bytes, found.lost_rows), (0, 0));
    assert_eq!([0, 1].map(|a| found.writers.last(writer(a))), [20, 20]);
    // The next incarnation continues in a segment of its own.
    let next = Start {
        next_row: found.next_row,
        segments: found.segments,
        writers: found.writers,
        ..start(1000)
    };
    let settings = config(folder.path(), 2000);
    let mut log = Log::new(RealDisk, settings, next, Some(hello()));
    log.commit(&all[40..]).unwrap();
    let (rows, found) = read(folder.path(), Mode::ReadOnly);
    assert_eq!(rows.0, numbers(0..120));
    assert_eq!(found.writers.last(writer(1)), 30);
}

#[test]
fn segments_are_evicted_with_their_rows_and_repeats_are_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 1000, 30);
    for entry in entries(200) {
        log.commit(&[entry]).unwrap();
        Sweeper::new(RealDisk).sweep(log.take_stale());
        let on_disk: u64 = fs::read_dir(folder.path())
            .unwrap()
            .map(|f| f.unwrap().metadata().unwrap().len())
            .sum();
        // 30 rows of 60 bytes with heads of batches and segments, and two segments' overhang.
        assert!(on_disk < 30 * 100 + 2 * 1500, "{on_disk} bytes");
    }
    let (rows, found) = read(folder.path(), Mode::ReadOnly);
    let first = rows.0[0].unwrap();
    assert!(first <= 399 - 30 && first > 399 - 100, "{first}");
    assert_eq!(rows.0, numbers(first..399));
    assert_eq!(found.first_row, first);
    // The segment of this batch has been removed.
    assert!(found.writers.is_duplicate(writer(0), 1));
}

/// A crash during a write: whatever remains of the last group, exactly the batches
/// committed before it are recovered.
#[test]
fn every_truncation_leaves_whole_batches() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 1 << 20, 1000);
    log.commit(&entries(6)).unwrap();
    drop(log);
    let path = segment::path(folder.path(), 0);
    let bytes = fs::read(&path).unwrap();
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let (rows, found) = read(folder.path(), Mode::Repair);
        let expected = [0, 1, 3, 6, 7, 9, 12];
        assert!(expected.contains(&rows.0.len()), "{length}: {:?}", rows.0);
        assert_eq!(rows.0, numbers(0..rows.0.len() as u64));
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(found.lost_rows, 0);
        // Repaired: a second read finds nothing torn.
        let (again, found) = read(folder.path(), Mode::ReadOnly);
        assert_eq!((again.0, found.torn_bytes), (rows.0, 0));
        fs::remove_file(&path).ok();
    }
}

#[test]
fn foreign_folders_and_formats_are_refused_or_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let all = entries(30);
    let mut log = log(folder.path(), 500, 1000);
    for entry in &all {
        log.commit(std::slice::from_ref(entry)).unwrap();
    }
    let mut rows = Rows::default();
    let (path, shard, mode) = (folder.path(), Some(3), Mode::Repair);
    let found = recover(&RealDisk, path, shard, mode, 9, &mut rows);
    let error = found.unwrap_err().to_string();
    let expected = "is that of shard 2, not of shard 3";
    assert!(error.contains(expected), "{error}");
    // A segment of a future format in the middle: the rest is recovered, and the damage is reported.
    let (_, found) = read(folder.path(), Mode::ReadOnly);
    let victim = &found.segments[1].path;
    let mut bytes = fs::read(victim).unwrap();
    bytes[6] = 9;
    fs::write(victim, bytes).unwrap();
    let (rows, found) = read(folder.path(), Mode::Repair);
    let damage = &found.damage[0];
    assert!(damage.contains("has format 9"), "{damage}");
    let lost = rows.0.iter().filter(|r| r.is_none()).count() as u64;
    assert!(lost > 0 && lost == found.lost_rows);
    assert_eq!(found.next_row, 60);
    assert!(victim.with_extension("damaged").exists() && !victim.exists());
}

/// A segment whose removal failed, while those behind it went.
#[test]
fn a_stale_segment_is_distinguished_from_a_lost_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 1000, 30);
    let first = segment::path(folder.path(), 0);
    for entry in entries(200) {
        log.commit(&[entry]).unwrap();
        let stale = log.take_stale().into_iter().filter(|path| *path != first);
        Sweeper::new(RealDisk).sweep(stale.collect());
    }
    let (_, mut found) = read(folder.path(), Mode::ReadOnly);
    assert!(found.lost_rows > 0 && found.damage.is_empty());
    let gap = found.gaps[0];
    assert_eq!((found.gaps.len(), gap.behind), (1, 1));
    // Nobody needs rows below 399 - 30: the table has no room for them.
    let segments = found.segments.len();
    assert_eq!(found.settle(369), std::slice::from_ref(&first));
    assert_eq!((found.lost_rows, found.damage.len()), (0, 0));
    assert_eq!(found.first_row, gap.end);
    assert_eq!(found.segments.len(), segments - 1);
    let next = segment::path(folder.path(), gap.end);
    assert_eq!(found.segments[0].path, next);
    // A larger table would need the missing rows.
    let (_, mut found) = read(folder.path(), Mode::ReadOnly);
    assert!(found.settle(gap.end - 1).is_empty());
    assert_eq!(found.lost_rows, gap.end - gap.first_row);
    let expected = format!("rows {} to {} are missing", gap.first_row, gap.end - 1);
    assert!(found.damage[0].starts_with(&expected), "{:?}", found.damage);
    assert_eq!(found.segments.len(), segments);
}

#[test]
fn failed_removals_are_retried() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("b"), b"").unwrap();
    let mut sweeper = Sweeper::new(RealDisk);
    sweeper.sweep(vec![path("a"), path("b")]);
    assert!(!path("b").exists());
    fs::write(path("a"), b"").unwrap();
    sweeper.sweep(Vec::new());
    assert!(!path("a").exists());
}

/// Batches that waited in memory while the disk failed are written piece by piece.
#[test]
fn a_large_group_takes_no_more_memory_than_a_piece() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 1 << 30, 1 << 30);
    let group: Vec<Entry> = (0..40).map(|n| entry(n, 4000 * n, 4000)).collect();
    log.commit(&group).unwrap();
    let file = fs::metadata(segment::path(folder.path(), 0)).unwrap();
    assert_eq!(log.size(), (1, file.len()));
    assert!(log.size().1 > 9 << 20 && log.buffer_bytes() <= 2 << 20);
    let (rows, _) = read(folder.path(), Mode::ReadOnly);
    assert!(rows.0 == numbers(0..160_000), "{} rows", rows.0.len());
}

/// Fails each of the first operations of a kind, then works; a failed write
/// leaves half of its bytes.
#[derive(Default)]
struct FailingDisk {
    writes: AtomicU32,
    syncs: AtomicU32,
    truncates: bool,
}

impl FailingDisk {
    fn fails(left: &AtomicU32) -> bool {
        let less = |n: u32| n.checked_sub(1);
        let fails = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        fails.is_ok()
    }
}

impl Disk for FailingDisk {
    fn write(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        if Self::fails(&self.writes) {
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        if Self::fails(&self.syncs) {
            return Err(io::Error::from_raw_os_error(5));
        }
        RealDisk.sync(file)
    }

    fn truncate(&self, file: &fs::File, length: u64) -> io::Result<()> {
        if self.truncates {
            RealDisk.truncate(file, length)
        } else {
            Err(io::Error::from_raw_os_error(5))
        }
    }
}

#[test]
fn a_disk_that_fails_loses_nothing_once_it_works_again() {
    for (writes, syncs, truncates) in [
        (1, 0, true),
        (3, 0, false),
        (0, 1, true),
        (0, 4, false),
        (2, 2, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let disk = FailingDisk {
            truncates,
            ..FailingDisk::default()
        };
        let settings = config(folder.path(), 900);
        let mut log = Log::new(disk, settings, start(1000), Some(hello()));
        let mut failed = 0;
        for (i, group) in entries(60).chunks(4).enumerate() {
            if i % 3 == 1 {
                log.disk().writes.store(writes, Ordering::Relaxed);
                log.disk().syncs.store(syncs, Ordering::Relaxed);
            }
            while let Err(error) = log.commit(group) {
                failed += 1;
                assert!(matches!(error, JournalError::Disk { .. }), "{error}");
                // As if the machine crashed here: durable rows are recovered.
                let (rows, found) = read(folder.path(), Mode::ReadOnly);
                let (durable, rows) = (log.durable(), rows.0);
                assert!(rows.len() as u64 >= durable, "{} of {durable}", rows.len());
                assert_eq!(rows[..durable as usize], numbers(0..durable));
                assert_eq!((found.lost_rows, found.damage.len()), (0, 0));
            }
        }
        assert!(failed >= 5, "{failed} failures");
        let (rows, found) = read(folder.path(), Mode::Repair);
        assert_eq!(rows.0, numbers(0..120), "{writes} {syncs} {truncates}");
        assert_eq!((found.lost_rows, found.damage), (0, Vec::new()));
    }
}

#[tokio::test]
async fn durable_rows_have_released_their_queue_space() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1 << 20);
    let log = Log::new(RealDisk, config.clone(), start(5000), Some(hello()));
    let journal = Journal::start(log, RealDisk, &config).unwrap();
    for entries in entries(800).chunks(4) {
        for entry in entries {
            let room = journal.room(entry.batch.packed.len()).await.unwrap();
            journal.append(entry.clone(), false, room).unwrap();
        }
        journal.durable(entries[3].end()).await.unwrap();
        assert_eq!(journal.status().queued_bytes, 0);
    }
    journal.stop().unwrap();
}

/// Its thread panics at the first row.
struct PanickingDisk;

impl Disk for PanickingDisk {
    fn write(&self, _: &mut fs::File, _: &[u8]) -> io::Result<()> {
        panic!("a fault of the program");
    }
}

#[tokio::test]
async fn a_journal_without_its_thread_is_not_alive() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1 << 20);
    let log = Log::new(PanickingDisk, config.clone(), start(5000), Some(hello()));
    let journal = Journal::start(log, PanickingDisk, &config).unwrap();
    assert!(journal.is_alive());
    let entry = entries(1).remove(0);
    let room = journal.room(entry.batch.packed.len()).await.unwrap();
    let end = entry.end();
    journal.append(entry, true, room).unwrap();
    let lost = journal.durable(end).await.unwrap_err();
    assert!(matches!(lost, JournalError::Gone), "{lost}");
    // The thread is about to end.
    while journal.is_alive() {
        tokio::task::yield_now().await;
    }
}

fn flipped(place: f64, bit: u8) -> (Rows, Recovered, bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 900, 1000);
    for group in entries(40).chunks(3) {
        log.commit(group).unwrap();
    }
    drop(log);
    let files = fs::read_dir(folder.path()).unwrap();
    let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut contents: Vec<_> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    let bytes: usize = contents.iter().map(Vec::len).sum();
    let mut at = ((bytes - 1) as f64 * place) as usize;
    let mut file = 0;
    while at >= contents[file].len() {
        at -= contents[file].len();
        file += 1;
    }
    contents[file][at] ^= 1 << bit;
    fs::write(&files[file], &contents[file]).unwrap();
    let (rows, found) = read(folder.path(), Mode::Repair);
    (rows, found, file + 1 == files.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A flipped bit costs the batch that it hit, or its segment's head; no other
    /// row is changed or moved.
    #[test]
    fn a_flipped_bit_costs_little_and_is_reported(place in 0.0..1.0_f64, bit in 0..8_u8) {
        let (rows, found, last) = flipped(place, bit);
        for (number, row) in (found.first_row..).zip(&rows.0) {
            prop_assert!(row.is_none_or(|row| row == number));
        }
        let lost = 79 - rows.0.iter().flatten().count();
        prop_assert!(lost <= 16, "{} rows lost", lost);
        let reported = !found.damage.is_empty() || found.torn_bytes > 0;
        prop_assert!(reported || (lost == 0 && last));
    }

    /// Whatever a folder holds, reading it ends, and without a panic.
    #[test]
    fn arbitrary_bytes_cause_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        magic in 0..3_usize,
        at in 0_usize..300,
    ) {
        let magics = [&[][..], &segment::MAGIC, &segment::MAGIC_WITHOUT_MARKS];
        let file = [magics[magic], &bytes].concat();
        let _ = segment::head(&file);
        let _ = segment::batch(&file, at, SHAPE.bytes());
        let _ = segment::resume(&file, at, None, 0);
        let _ = segment::last_mark(&file, 0);
        let _ = super::snapshot::Snapshot::from_bytes(&file);
        let folder = tempfile::tempdir().unwrap();
        fs::write(segment::path(folder.path(), 0), &file).unwrap();
        let (rows, _) = read(folder.path(), Mode::Repair);
        prop_assert!(rows.0.is_empty());
    }
}
