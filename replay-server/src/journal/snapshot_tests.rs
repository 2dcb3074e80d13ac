//! Tests of `snapshot`.

use super::*;

fn outline(rows: usize) -> Outline {
    Outline {
        selector: Selector::Prioritised {
            alpha: 0.6,
            epsilon: 0.01,
            max: 10.0,
        },
        end: 1000 + rows as u64,
        random: 1 << 70,
        rows: rows as u64,
    }
}

fn weight(row: u64) -> f64 {
    row as f64 / 7.0
}

fn weigh(rows: Range<u64>, out: &mut Vec<f64>) -> Result<(), JournalError> {
    out.extend(rows.map(weight));
    Ok(())
}

fn bytes(rows: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let mut pieces = Pieces::default();
    let written = write(folder.path(), &outline(rows), &mut pieces, weigh);
    let bytes = fs::read(path(folder.path())).unwrap();
    assert_eq!(written.unwrap(), bytes.len() as u64);
    bytes
}

#[test]
fn snapshots_come_back_and_replace_each_other() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Snapshot::read(folder.path()).unwrap(), None);
    let mut pieces = Pieces::default();
    for rows in [0, 1, CHUNK, CHUNK + 1] {
        let outline = outline(rows);
        write(folder.path(), &outline, &mut pieces, weigh).unwrap();
        let found = Snapshot::read(folder.path()).unwrap().unwrap();
        assert_eq!(found.outline, outline);
        let expected = (1000..outline.end).map(weight);
        assert!(found.weights.into_iter().eq(expected));
    }
    fs::write(path(folder.path()), b"lmprio\x02\n").unwrap();
    assert_eq!(Snapshot::read(folder.path()).unwrap(), None);
}

/// Rewriting a snapshot of the first version gives the same bytes.
#[test]
fn format_1_is_written_unchanged() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-v1");
    let Snapshot { outline, weights } = Snapshot::read(&kept).unwrap().unwrap();
    let first = outline.end - outline.rows;
    let folder = tempfile::tempdir().unwrap();
    let weigh = |rows: Range<u64>, out: &mut Vec<f64>| {
        out.extend(rows.map(|row| weights[(row - first) as usize]));
        Ok::<_, JournalError>(())
    };
    write(folder.path(), &outline, &mut Pieces::default(), weigh).unwrap();
    let read = |folder: &Path| fs::read(path(folder)).unwrap();
    assert_eq!(read(folder.path()), read(&kept));
}

/// A large snapshot has the same frames as in the first version.
#[test]
fn frames_hold_65536_weights() {
    let bytes = bytes(2 * CHUNK + 5);
    let (mut at, mut found) = (MAGIC.len(), Vec::new());
    while let Next::Frame { kind, payload, end } = frame::next(&bytes, at) {
        found.push((kind, payload.len()));
        at = end;
    }
    assert_eq!(at, bytes.len());
    let full = (WEIGHTS, 8 * 65_536);
    assert_eq!(found, [(HEAD, 57), full, full, (WEIGHTS, 40), (END, 0)]);
}

/// Snapshots of any size use the same memory, allocated once.
#[test]
fn memory_is_bounded_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut pieces = Pieces::default();
    let mut sizes = Vec::new();
    for rows in [20 * CHUNK + 3, CHUNK, 3, 40 * CHUNK] {
        write(folder.path(), &outline(rows), &mut pieces, weigh).unwrap();
        sizes.push(pieces.bytes());
    }
    assert!(sizes.iter().all(|&s| s == sizes[0]), "{sizes:?}");
    assert!(sizes[0] < 17 * CHUNK, "{sizes:?}");
}

#[test]
fn a_failed_snapshot_leaves_the_previous_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut pieces = Pieces::default();
    write(folder.path(), &outline(3), &mut pieces, weigh).unwrap();
    let before = Snapshot::read(folder.path()).unwrap();
    let fail = |_: Range<u64>, _: &mut Vec<f64>| Err(JournalError::Gone);
    assert!(write(folder.path(), &outline(9), &mut pieces, fail).is_err());
    assert_eq!(Snapshot::read(folder.path()).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    write(folder.path(), &outline(9), &mut pieces, weigh).unwrap();
    let after = Snapshot::read(folder.path()).unwrap().unwrap();
    assert_eq!(after.outline, outline(9));
}

#[test]
fn a_truncated_snapshot_is_refused() {
    let bytes = bytes(3);
    for length in 0..bytes.len() {
        assert!(Snapshot::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_changed_bit_is_detected() {
    let bytes = bytes(20);
    for (place, bit) in (0..bytes.len()).flat_map(|place| (0..8_u8).map(move |bit| (place, bit))) {
        let mut changed = bytes.clone();
        changed[place] ^= 1_u8 << bit;
        assert!(Snapshot::from_bytes(&changed).is_err(), "{place} {bit}");
    }
}
