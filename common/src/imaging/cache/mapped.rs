//! Voxels mapped from a cache file, which other processes of the user can write to.
//!
//! A changed file would give other voxels, and reading beyond the end of a shortened one would
//! end the process. [`Voxels::check`] finds both: the file's times and size against those at its
//! opening, the content where they differ, and the reads that failed (`fault`).

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::Mmap;

use super::fault::Watch;
use crate::imaging::manifest::hash_of_bytes;
use crate::imaging::scan::VolumeHash;
use crate::imaging::volume::{VolumeChanged, VoxelBytes};

/// A mapped file.
pub(super) struct Map {
    // Ends before the map does: fields are dropped in this order.
    watch: Watch,
    map: Mmap,
    path: PathBuf,
    state: State,
}

/// What tells whether a file was written to: device, inode, bytes, times of the last change of
/// its content and of the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file: (u64, u64),
    bytes: u64,
    times: [(i64, i64); 2],
}

impl State {
    fn of(data: &Metadata) -> Self {
        Self {
            file: (data.dev(), data.ino()),
            bytes: data.len(),
            times: [
                (data.mtime(), data.mtime_nsec()),
                (data.ctime(), data.ctime_nsec()),
            ],
        }
    }
}

impl Map {
    /// Maps an open file, whose name is `path`.
    pub(super) fn new(path: &Path, file: &File) -> io::Result<Self> {
        let state = State::of(&file.metadata()?);
        let map = map(file)?;
        Ok(Self {
            watch: Watch::new(&map),
            map,
            path: path.to_owned(),
            state,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The part of the file that holds the voxels, of a volume with these dims and this hash.
    pub(super) fn into_voxels(
        self,
        place: Range<usize>,
        dims: [usize; 3],
        hash: VolumeHash,
    ) -> Voxels {
        Voxels {
            state: Mutex::new(self.state),
            map: self,
            place,
            dims,
            hash,
            changed: AtomicBool::new(false),
        }
    }
}

/// The voxels of a cached file.
pub(super) struct Voxels {
    map: Map,
    /// Where they lie in it.
    place: Range<usize>,
    dims: [usize; 3],
    hash: VolumeHash,
    /// In which the content was compared last.
    state: Mutex<State>,
    changed: AtomicBool,
}

impl AsRef<[u8]> for Voxels {
    fn as_ref(&self) -> &[u8] {
        &self.map.map[self.place.clone()]
    }
}

impl VoxelBytes for Voxels {
    fn check(&self) -> Result<(), VolumeChanged> {
        if self.is_same() {
            return Ok(());
        }
        self.changed.store(true, Ordering::Relaxed);
        let path = self.map.path.clone();
        Err(VolumeChanged { path })
    }
}

impl Voxels {
    fn is_same(&self) -> bool {
        if self.changed.load(Ordering::Relaxed) || self.map.watch.is_lost() {
            return false;
        }
        // A file without a name can no longer be opened: its content stays.
        let Ok(data) = fs::metadata(&self.map.path) else {
            return true;
        };
        let (now, before) = (State::of(&data), self.map.state);
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.file != before.file || now == *known {
            return true;
        }
        // Rights and names change the times, too.
        let same =
            now.bytes == before.bytes && hash_of_bytes(self.dims, self.as_ref()) == self.hash;
        *known = now;
        same && !self.map.watch.is_lost()
    }
}

#[expect(
    unsafe_code,
    reason = "a map is only undefined when its file changes meanwhile; cache files are written \
              under another name, renamed once, readable by their owner alone, and never written \
              again by us; what others write is found before it is used"
)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: see the reason above; deleting the file keeps the map valid.
    unsafe { Mmap::map(file) }
}
