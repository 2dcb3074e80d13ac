//! Files that grow by records, such as lines, while the disk may be full for a while.

use std::fmt::{self, Debug};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::throttle::Throttle;

/// Interval between two warnings about a file that cannot be written.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The operations of a [`RecordFile`], behind a trait so that tests can inject failures.
pub trait Storage: Write + Debug {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Removes all bytes from `length` on.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// A file to which only whole records are added: one that does not fit on the disk is removed
/// again, so that the next one can follow when there is space.
#[derive(Debug)]
pub struct RecordFile<S = File> {
    storage: S,
    /// The lengths without and with the begun record that could not be removed yet.
    begun: Option<(u64, u64)>,
}

impl RecordFile {
    /// Opens a file for appending; it is created if missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(path)?;
        Ok(Self::new(file))
    }

    /// As [`RecordFile::open`], for a file of lines. A line that a killed process did not finish
    /// is terminated, so that it does not damage the next one.
    pub fn open_lines(path: &Path) -> io::Result<Self> {
        let mut file = Self::open(path)?;
        if !ends_a_line(&file.storage) {
            file.append(b"\n")?;
        }
        Ok(file)
    }
}

impl<S: Storage> RecordFile<S> {
    /// Appends to `storage`, which writes at its end.
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            begun: None,
        }
    }

    #[must_use]
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Adds a whole record, or nothing.
    /// Fails when it cannot be written; later records may succeed.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let mut before = self.storage.length()?;
        if let Some((whole, with_rest)) = self.begun {
            // Another length means that another process has changed the file.
            if before == with_rest {
                self.storage.cut(whole)?;
                before = whole;
            }
            self.begun = None;
        }
        let written = self.storage.write_all(record);
        if written.is_err()
            && let Ok(after) = self.storage.length()
            && after != before
            && self.storage.cut(before).is_err()
        {
            self.begun = Some((before, after));
        }
        written
    }
}

/// Whether the next byte of this file begins a line; false where that is unknown,
/// because an extra empty line does no harm.
pub(crate) fn ends_a_line(mut file: &File) -> bool {
    let mut last = [0];
    let end = file.seek(SeekFrom::End(0));
    if matches!(end, Ok(0)) {
        return true;
    }
    let read = file
        .seek(SeekFrom::End(-1))
        .and_then(|_| file.read_exact(&mut last));
    read.is_ok() && last == *b"\n"
}

/// A file that a run does not depend on: what cannot be written is lost and counted, warnings are
/// throttled, and every record is a new attempt.
pub struct OptionalFile<T> {
    /// Its name in warnings.
    name: &'static str,
    /// `None` while it cannot be opened.
    file: Option<T>,
    /// Records lost since the last one that was written.
    lost: u64,
    failures: Throttle,
}

impl<T> Debug for OptionalFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, lost, .. } = self;
        write!(f, "OptionalFile({name}, {lost} lost)")
    }
}

impl<T> OptionalFile<T> {
    /// A file that is opened with the first record.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            file: None,
            lost: 0,
            failures: Throttle::new(WARN_EVERY),
        }
    }

    /// A file that is open already.
    #[must_use]
    pub fn opened(name: &'static str, file: T) -> Self {
        let mut new = Self::new(name);
        new.file = Some(file);
        new
    }

    /// Adds a record with `add`, after opening the file with `open` if it is not open.
    pub fn write(
        &mut self,
        open: impl FnOnce() -> io::Result<T>,
        add: impl FnOnce(&mut T) -> io::Result<()>,
    ) {
        let file = match &mut self.file {
            Some(file) => Ok(file),
            None => open().map(|file| self.file.insert(file)),
        };
        match file.and_then(add) {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error, Instant::now()),
        }
    }

    fn succeeded(&mut self) {
        if self.lost > 0 {
            let (file, lost) = (self.name, self.lost);
            tracing::warn!(
                file,
                lost,
                "{file} is written again; {lost} entries are missing"
            );
            self.lost = 0;
            self.failures.reset();
        }
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        self.lost += 1;
        // Another cause, such as a network disk that was away, may need a new handle.
        if !matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            self.file = None;
        }
        if self.failures.warning(now).is_some() {
            let (file, lost) = (self.name, self.lost);
            tracing::warn!(
                file,
                lost,
                %error,
                "cannot write {file}: {error}; training goes on, and so do the attempts to write"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with little space.
    #[derive(Debug, Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        /// Whether bytes can be removed.
        cuts: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room - self.bytes.len());
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Storage for Disk {
        fn length(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.truncate(usize::try_from(length).unwrap());
            Ok(())
        }
    }

    #[test]
    fn what_another_process_wrote_after_a_begun_record_stays() {
        let mut file = RecordFile::new(Disk {
            room: 4,
            ..Disk::default()
        });
        file.append(b"too long").unwrap_err();
        assert_eq!(file.storage.bytes, b"too ");
        (file.storage.room, file.storage.cuts) = (100, true);
        file.storage.bytes.extend(b"other\n");
        file.append(b"next\n").unwrap();
        assert_eq!(file.storage.bytes, b"too other\nnext\n");
    }

    #[test]
    fn a_full_disk_leaves_whole_records_and_later_ones_follow() {
        for cuts in [true, false] {
            let mut file = RecordFile::new(Disk {
                room: 8,
                cuts,
                ..Disk::default()
            });
            file.append(b"one\n").unwrap();
            for _ in 0..2 {
                let error = file.append(b"second\n").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            }
            let left: &[u8] = if cuts { b"one\n" } else { b"one\nseco" };
            assert_eq!(file.storage.bytes, left);
            (file.storage.room, file.storage.cuts) = (100, true);
            file.append(b"third\n").unwrap();
            assert_eq!(file.storage.bytes, b"one\nthird\n");
        }
    }

    #[test]
    fn a_file_that_fails_for_a_while_goes_on_and_counts_what_it_lost() {
        let disk = || {
            let mut disk = Disk::default();
            (disk.room, disk.cuts) = (4, true);
            Ok(RecordFile::new(disk))
        };
        let mut file = OptionalFile::new("metrics.jsonl");
        let write = |file: &mut OptionalFile<RecordFile<Disk>>, line: &'static [u8]| {
            file.write(disk, |records| records.append(line));
        };
        write(&mut file, b"one\n");
        write(&mut file, b"two\n");
        write(&mut file, b"three\n");
        assert_eq!(file.lost, 2);
        file.file.as_mut().unwrap().storage.room = 100;
        write(&mut file, b"four\n");
        assert_eq!(file.lost, 0);
        assert_eq!(file.file.unwrap().storage.bytes, b"one\nfour\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again_with_each_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("away/lines");
        let mut file = OptionalFile::new("lines");
        let mut write = || file.write(|| RecordFile::open(&path), |f| f.append(b"x\n"));
        write();
        std::fs::create_dir(dir.path().join("away")).unwrap();
        write();
        assert_eq!(std::fs::read(&path).unwrap(), b"x\n");
    }
}
