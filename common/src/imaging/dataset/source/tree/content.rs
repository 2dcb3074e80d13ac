//! Whether a table, text or JSON file holds landmarks, by its beginning.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::imaging::landmark_file::LandmarkFile;

/// Bytes that are read of each file: about a hundred landmarks of 3D Slicer, and
/// a thousand lines of a table.
const PROBED: usize = 64 << 10;

/// What a file begins with.
#[derive(Debug)]
pub(super) struct Content {
    /// The number of landmarks in its beginning, if it reads as a landmark file.
    pub(super) points: Option<usize>,
    /// Whether it is JSON with markups, whose errors are worth showing.
    markups: bool,
    /// Why it does not read as a landmark file.
    pub(super) problem: String,
}

impl Content {
    /// Reads the beginning of a file.
    pub(super) fn of(path: &Path) -> Self {
        let not = |problem: String| Self {
            points: None,
            markups: false,
            problem,
        };
        let bytes = match beginning(path) {
            Ok(bytes) => bytes,
            Err(error) => return not(format!("cannot be read: {error}")),
        };
        // Without the zeros of UTF-16.
        let start: Vec<u8> = bytes.iter().copied().filter(|&b| b != 0).collect();
        let markups = start.windows(9).any(|word| word == b"\"markups\"");
        let is_whole = bytes.len() <= PROBED;
        if markups && !is_whole {
            return Self {
                points: Some(usize::MAX),
                markups,
                problem: String::new(),
            };
        }
        let end = match is_whole {
            true => bytes.len(),
            false => bytes.iter().rposition(|&b| b == b'\n').unwrap_or(0),
        };
        match LandmarkFile::parse(&bytes[..end], path) {
            Ok(file) => Self {
                points: Some(file.points.len()),
                markups,
                problem: String::new(),
            },
            Err(error) => Self {
                markups,
                ..not(error.to_string())
            },
        }
    }

    /// Whether it holds landmarks or was meant to.
    pub(super) fn is_landmarks(&self) -> bool {
        self.points.is_some() || self.markups
    }
}

/// One byte more than [`PROBED`] where the file is longer.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(PROBED).unwrap_or(u64::MAX);
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
