//! Power cuts: what was synced stays, and of what was written since then the disk keeps
//! any pages, in any order.

use super::disk::Disk;
use super::log::{Entry, Log, Start};
use super::recover::{Mode, Recovered, Sink, recover};
use super::segment::Stored;
use super::tests::{SHAPE, config, hello, start};
use super::{JournalError, segment};
use crate::service::writers::Writers;
use crate::shard::CheckedBatch;
use proto::messages::insert::Writer;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const WRITERS: usize = 3;
const SEEDS: u64 = 1000;
const CUTS: usize = 3;

/// What a power cut leaves alone, and what it does next.
#[derive(Debug, Default)]
struct State {
    /// Synced bytes of each file.
    synced: BTreeMap<PathBuf, u64>,
    /// The file that was created last.
    current: PathBuf,
    /// Syncs and truncations fail.
    fails: bool,
    /// Writes that succeed before one fails.
    writes: Option<u32>,
}

#[derive(Debug, Clone, Default)]
struct Cuttable(Arc<Mutex<State>>);

impl Cuttable {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn works(&self) -> io::Result<()> {
        let error = self.state().fails.then(|| io::Error::from_raw_os_error(5));
        error.map_or(Ok(()), Err)
    }
}

impl Disk for Cuttable {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.state();
        state.synced.insert(path.to_owned(), 0);
        state.current = path.to_owned();
        File::create(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        use io::Write as _;
        let mut state = self.state();
        let fails = state.writes == Some(0);
        state.writes = state.writes.and_then(|left| left.checked_sub(1));
        if fails {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.works()?;
        let mut state = self.state();
        let path = state.current.clone();
        state.synced.insert(path, file.metadata()?.len());
        Ok(())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.works()?;
        file.set_len(length)
    }

    fn settle(&self, path: &Path, length: u64) -> io::Result<()> {
        self.state().synced.insert(path.to_owned(), length);
        OpenOptions::new().write(true).open(path)?.set_len(length)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.works()
    }
}

/// Cuts the power: pages that were not synced are kept, lost, or replaced by others.
fn cut(disk: &Cuttable, rng: &mut ChaCha8Rng) {
    let page = 1_usize << rng.random_range(6..=12);
    for (path, synced) in &disk.state().synced {
        let Ok(written) = fs::read(path) else {
            continue;
        };
        let synced = usize::try_from(*synced).unwrap().min(written.len());
        if synced == 0 && rng.random_range(0..4) == 0 {
            fs::remove_file(path).unwrap();
            continue;
        }
        let mut kept = written.clone();
        for from in (synced / page * page..written.len()).step_by(page) {
            let own = from.max(synced)..(from + page).min(written.len());
            match rng.random_range(0..4) {
                0 => kept[own].fill(0),
                // A segment's first page holds its magic bytes or nothing.
                1 if from > 0 => {
                    let other = rng.random_range(0..=written.len() - own.len());
                    let length = own.len();
                    kept[own].copy_from_slice(&written[other..other + length]);
                }
                _ => {}
            }
        }
        if rng.random() {
            kept.truncate(rng.random_range(synced..=written.len()));
        }
        fs::write(path, kept).unwrap();
    }
}

fn writer(number: usize) -> Writer {
    Writer {
        actor: u16::try_from(number).unwrap(),
        incarnation: 1,
    }
}

fn packed(writer: Writer, sequence: u64, rows: usize) -> Vec<u8> {
    let row = |number: usize| {
        let mut row = vec![number as u8; SHAPE.bytes()];
        row[..2].copy_from_slice(&writer.actor.to_le_bytes());
        row[2..10].copy_from_slice(&sequence.to_le_bytes());
        row
    };
    (0..rows).flat_map(row).collect()
}

fn batch(writer: Writer, sequence: u64, rows: usize) -> Arc<CheckedBatch> {
    Arc::new(CheckedBatch {
        writer,
        sequence,
        packed: packed(writer, sequence, rows).into(),
        td_errors: vec![1.0; rows],
    })
}

/// The sequence numbers of each writer's recovered batches.
#[derive(Default)]
struct Batches([Vec<u64>; WRITERS]);

impl Sink for Batches {
    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError> {
        let rows = usize::try_from(batch.rows()).unwrap();
        assert_eq!(batch.packed, packed(batch.writer, batch.sequence, rows));
        self.0[usize::from(batch.writer.actor)].push(batch.sequence);
        Ok(())
    }
}

/// One writer over all incarnations of the shard.
#[derive(Default)]
struct Writing {
    sequence: u64,
    /// Not acknowledged.
    kept: VecDeque<Arc<CheckedBatch>>,
    /// How many of them were sent to this incarnation.
    sent: usize,
    /// Batches up to this one were acknowledged as durable.
    acked: u64,
}

impl Writing {
    fn next(&mut self, writer: Writer, rng: &mut ChaCha8Rng) -> Arc<CheckedBatch> {
        if self.sent == self.kept.len() {
            self.sequence += 1;
            let rows = rng.random_range(1..8);
            self.kept.push_back(batch(writer, self.sequence, rows));
        }
        self.sent += 1;
        self.kept[self.sent - 1].clone()
    }

    fn acknowledged(&mut self, sequence: u64) {
        self.acked = self.acked.max(sequence);
        while self.kept.pop_front_if(|b| b.sequence <= sequence).is_some() {
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

/// One run of the shard, until the power is cut.
fn run(log: &mut Log<Cuttable>, disk: &Cuttable, all: &mut [Writing], rng: &mut ChaCha8Rng) {
    let groups = rng.random_range(1..7);
    let dies_in_a_group = rng.random_range(0..4) > 0;
    for i in 0..groups {
        let mut next_row = log.durable();
        let mut group = Vec::new();
        for _ in 0..rng.random_range(1..10) {
            let number = rng.random_range(0..WRITERS);
            let batch = all[number].next(writer(number), rng);
            let entry = Entry {
                first_row: next_row,
                batch,
            };
            next_row = entry.end();
            group.push(entry);
        }
        let dies = dies_in_a_group && i + 1 == groups;
        if dies || rng.random_range(0..6) == 0 {
            disk.state().fails = true;
            log.commit(&group).unwrap_err();
        }
        if dies {
            return;
        }
        disk.state().fails = false;
        log.commit(&group).unwrap();
        for entry in group {
            let number = usize::from(entry.batch.writer.actor);
            all[number].acknowledged(entry.batch.sequence);
        }
    }
}

/// Reads the journal and checks it against the acknowledgements.
fn recovered(folder: &Path, disk: &Cuttable, all: &mut [Writing], seed: u64) -> Recovered {
    disk.state().fails = false;
    let mut batches = Batches::default();
    let read = |mode, sink: &mut Batches| recover(disk, folder, Some(2), mode, 100, sink).unwrap();
    let before = read(Mode::ReadOnly, &mut Batches::default());
    let found = read(Mode::Repair, &mut batches);
    assert_eq!(before.next_row, found.next_row, "seed {seed}");
    assert_eq!(found.lost_rows, 0, "seed {seed}: {:?}", found.damage);
    assert!(found.damage.is_empty(), "seed {seed}: {:?}", found.damage);
    for (number, (writing, stored)) in all.iter_mut().zip(batches.0).enumerate() {
        let last = found.writers.last(writer(number));
        let expected: Vec<u64> = (1..=last).collect();
        assert_eq!(stored, expected, "seed {seed}, writer {number}");
        assert!(last >= writing.acked, "seed {seed}, writer {number}");
        // The first reply of a new stream acknowledges what is there; the rest is sent again.
        writing.acknowledged(last);
        writing.sent = 0;
    }
    found
}

#[test]
fn power_cuts_lose_nothing_durable_and_acknowledge_nothing_that_is_lost() {
    let mut torn = 0;
    for seed in 0..SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let disk = Cuttable::default();
        let mut all: [Writing; WRITERS] = Default::default();
        let segment_bytes = rng.random_range(500..6000);
        let mut found = Recovered {
            writers: Writers::new(100),
            ..Recovered::default()
        };
        for _ in 0..CUTS {
            let next = Start {
                next_row: found.next_row,
                segments: found.segments,
                writers: found.writers,
                ..start(1 << 30)
            };
            let settings = config(folder.path(), segment_bytes);
            let mut log = Log::new(disk.clone(), settings, next, Some(hello()));
            run(&mut log, &disk, &mut all, &mut rng);
            cut(&disk, &mut rng);
            found = recovered(folder.path(), &disk, &mut all, seed);
            torn += u32::from(found.torn_bytes > 0);
        }
    }
    assert!(torn > 500, "{torn} torn ends: the cuts are too gentle");
}

#[test]
fn a_mark_that_cannot_be_written_is_replaced_by_a_new_segment() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Cuttable::default();
    let settings = config(folder.path(), 1 << 20);
    let mut log = Log::new(disk.clone(), settings, start(1000), Some(hello()));
    let entry = |sequence: u64| Entry {
        first_row: sequence - 1,
        batch: batch(writer(0), sequence, 1),
    };
    log.commit(&[entry(1)]).unwrap();
    disk.state().writes = Some(1);
    log.commit(&[entry(2)]).unwrap();
    assert_eq!(log.durable(), 2);
    log.commit(&[entry(3)]).unwrap();
    assert!(segment::path(folder.path(), 2).exists());
    let mut batches = Batches::default();
    let found = recover(&disk, folder.path(), None, Mode::ReadOnly, 9, &mut batches).unwrap();
    assert_eq!(batches.0[0], [1, 2, 3]);
    assert_eq!((found.segments.len(), found.torn_bytes), (2, 0));
    assert_eq!((found.lost_rows, found.damage.len()), (0, 0));
    let on_disk = found.segments.iter().map(|s| s.bytes).sum::<u64>();
    assert_eq!(log.size(), (2, on_disk));
}
