//! Event files for TensorBoard: `tensorboard --logdir runs` shows the curves.
//!
//! A file is a chain of records (TensorFlow's `tfrecord`: length, its masked
//! CRC-32C, data, its masked CRC-32C), each an `Event` message of
//! `tensorflow/core/util/event.proto`. Few of its fields are needed, so they are
//! encoded by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::records::RecordFile;

/// The content of a file's first event.
const FILE_VERSION: &str = "brain.Event:2";

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: RecordFile,
    path: PathBuf,
}

impl EventFile {
    /// Creates a file in a folder. `writer` distinguishes several writers of one run;
    /// TensorBoard reads all files of a folder together.
    /// Fails when it cannot be created or written.
    pub fn create(folder: &Path, writer: &str, now: SystemTime) -> io::Result<Self> {
        let seconds = since_epoch(now);
        let name = format!("events.out.tfevents.{seconds:.0}.{writer}");
        let path = folder.join(name);
        let mut file = Self {
            file: RecordFile::open(&path)?,
            path,
        };
        let mut event = event(seconds, 0);
        text(&mut event, 3, FILE_VERSION.as_bytes());
        let begun = file.record(&event);
        // On a full disk each attempt would leave an empty file.
        if begun.is_err() && file.file.storage().metadata().is_ok_and(|m| m.len() == 0) {
            let _ = fs::remove_file(&file.path);
        }
        begun.map(|()| file)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one point to each curve; values that are not finite are omitted.
    /// Fails when the file cannot be written.
    pub fn scalars(
        &mut self,
        step: u64,
        now: SystemTime,
        values: &[(&str, f64)],
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values.iter().filter(|(_, v)| v.is_finite()) {
            let mut point = Vec::new();
            text(&mut point, 1, tag.as_bytes());
            point.push(0x15); // field 2, four bytes
            point.extend((*value as f32).to_le_bytes());
            text(&mut summary, 1, &point);
        }
        let mut event = event(since_epoch(now), step);
        text(&mut event, 5, &summary);
        self.record(&event)
    }

    /// A single write call, so that concurrent readers see whole records or a truncated last one;
    /// one that does not fit on the disk is removed again.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.append(&record)
    }
}

fn since_epoch(now: SystemTime) -> f64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

/// An event's time (field 1, eight bytes) and step (field 2, a varint).
fn event(seconds: f64, step: u64) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend(seconds.to_le_bytes());
    bytes.push(0x10);
    varint(&mut bytes, step);
    bytes
}

fn text(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

/// The CRC of data that contains CRCs would be weak, so it is stored rotated and offset.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_of_any_size_are_varints() {
        let of = |value| {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            bytes
        };
        assert_eq!(of(0), [0]);
        assert_eq!(of(127), [127]);
        assert_eq!(of(300), [0xac, 0x02]);
        assert_eq!(of(u64::MAX).len(), 10);
    }

    #[test]
    fn the_crc_is_castagnolis_turned_and_shifted() {
        // RFC 3720, B.4: the CRC-32C of 32 zeros is 8a9136aa.
        let expected = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), expected);
    }

    /// The data of each record, after verifying its checksums.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (crc, rest) = rest.split_at(4);
            assert_eq!(crc, masked_crc(length).to_le_bytes());
            let length = u64::from_le_bytes(length.try_into().unwrap());
            let (data, rest) = rest.split_at(usize::try_from(length).unwrap());
            let (crc, rest) = rest.split_at(4);
            assert_eq!(crc, masked_crc(data).to_le_bytes());
            all.push(data.to_vec());
            bytes = rest;
        }
        all
    }

    #[test]
    fn events_have_their_golden_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(1500);
        let mut file = EventFile::create(dir.path(), "test", now).unwrap();
        let values = [("a", 0.5), ("none", f64::NAN)];
        file.scalars(300, now, &values).unwrap();
        assert!(file.path().ends_with("events.out.tfevents.2.test"));
        let found = records(&std::fs::read(file.path()).unwrap());
        let time = 1.5_f64.to_le_bytes();
        let first = [b"\x09".as_slice(), &time, b"\x10\x00\x1a\x0dbrain.Event:2"].concat();
        let point = b"\x2a\x0a\x0a\x08\x0a\x01a\x15\x00\x00\x00\x3f";
        let second = [b"\x09".as_slice(), &time, b"\x10\xac\x02", point].concat();
        assert_eq!(found, [first, second]);
    }
}
