//! Tests of `recover`.

use super::*;
use crate::journal::disk::RealDisk;
use crate::journal::tests::{Rows, entries, log};
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
