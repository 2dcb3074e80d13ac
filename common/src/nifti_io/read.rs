//! A file → an [`Image`], or the reason why not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::decode::Decoder;
use super::header::{self, HEADER_LEN, Layout};
use super::{Image, Limits, ReadError, affine};

/// Deflate cannot shrink further than this, so a header that claims more is lying.
const MAX_GZIP_RATIO: u64 = 1032;
/// A multiple of every voxel size.
const CHUNK: usize = 1 << 18;
/// Bytes allowed after the voxels of a compressed file, read only to reach its checksum.
const MAX_TAIL: u64 = 1 << 24;

/// Reads a `.nii` or `.nii.gz`; its content decides, not its name.
///
/// Voxels come as the file holds them, scaled by its slope and intercept. The
/// affine is the sform, else the qform, else made from the voxel sizes.
pub fn read(path: &Path, limits: &Limits) -> Result<Image, ReadError> {
    let open = |error| ReadError::Open {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    if metadata.is_dir() {
        return Err(open(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a folder",
        )));
    }
    read_from(
        BufReader::with_capacity(CHUNK, file),
        metadata.len(),
        path,
        limits,
    )
}

/// The same from any source of `len` bytes; errors call it `name`.
pub fn read_from<R: BufRead>(
    mut source: R,
    len: u64,
    name: &Path,
    limits: &Limits,
) -> Result<Image, ReadError> {
    let start = source.fill_buf().map_err(|error| ReadError::Io {
        path: name.to_owned(),
        at: 0,
        error,
    })?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let inner = MultiGzDecoder::new(source);
        Stream {
            inner,
            gzip: true,
            at: 0,
            len,
            path: name,
        }
        .read(limits)
    } else {
        Stream {
            inner: source,
            gzip: false,
            at: 0,
            len,
            path: name,
        }
        .read(limits)
    }
}

/// The uncompressed content, with its position for messages.
struct Stream<'a, R> {
    inner: R,
    gzip: bool,
    at: u64,
    /// Bytes of the file as it is on disk.
    len: u64,
    path: &'a Path,
}

impl<R: Read> Stream<'_, R> {
    fn read(mut self, limits: &Limits) -> Result<Image, ReadError> {
        let mut bytes = [0; HEADER_LEN];
        let got = self.fill(&mut bytes)?;
        if got < HEADER_LEN {
            let claim = || "a NIfTI-1 header".to_owned();
            return Err(header::foreign(&bytes[..got], self.path)
                .unwrap_or_else(|| self.too_short(claim(), HEADER_LEN as u64)));
        }
        let (header, layout) = header::parse(&bytes, self.path, limits)?;
        let claim = || {
            format!(
                "a grid of {:?} at {} B per voxel",
                layout.dims,
                layout.datatype.bytes()
            )
        };
        let needed = layout.offset + layout.voxels() as u64 * layout.datatype.bytes() as u64;
        let largest = if self.gzip {
            self.len.saturating_mul(MAX_GZIP_RATIO)
        } else {
            self.len
        };
        if needed > largest {
            return Err(self.too_short(claim(), needed));
        }
        let affine = affine::from_header(&header, layout.dims, self.path)?;
        self.skip(layout.offset - self.at, &claim, needed)?;
        let samples = self.voxels(&layout, &claim, needed)?;
        self.check_tail()?;
        Image::new(layout.dims, samples, affine).map_err(|error| self.io(io::Error::other(error)))
    }

    fn voxels(
        &mut self,
        layout: &Layout,
        claim: &dyn Fn() -> String,
        needed: u64,
    ) -> Result<super::Samples, ReadError> {
        let mut decoder = Decoder::new(layout).map_err(|bytes| ReadError::OutOfMemory {
            path: self.path.to_owned(),
            bytes,
        })?;
        let mut left = layout.voxels() * layout.datatype.bytes();
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let part = CHUNK.min(left);
            if self.fill(&mut buffer[..part])? < part {
                return Err(self.too_short(claim(), needed));
            }
            decoder.push(&buffer[..part]);
            left -= part;
        }
        decoder.finish().map_err(|(count, index)| {
            let [nx, ny, _] = layout.dims;
            let first = [index % nx, index / nx % ny, index / (nx * ny)];
            ReadError::NonFinite {
                path: self.path.to_owned(),
                count,
                first,
            }
        })
    }

    /// Reads on until `buffer` is full or the content ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => {
                    filled += n;
                    self.at += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(filled)
    }

    fn skip(
        &mut self,
        mut bytes: u64,
        claim: &dyn Fn() -> String,
        needed: u64,
    ) -> Result<(), ReadError> {
        let mut buffer = [0; 4096];
        while bytes > 0 {
            let part = usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            if self.fill(&mut buffer[..part])? < part {
                return Err(self.too_short(claim(), needed));
            }
            bytes -= part as u64;
        }
        Ok(())
    }

    /// The checksum of a gzip stream stands at its end: without it, damage goes unseen.
    fn check_tail(&mut self) -> Result<(), ReadError> {
        let mut buffer = [0; 4096];
        let mut tail = 0;
        while self.gzip && tail <= MAX_TAIL {
            let got = self.fill(&mut buffer)?;
            tail += got as u64;
            if got < buffer.len() {
                return Ok(());
            }
        }
        if self.gzip {
            tracing::warn!(scan = %self.path.display(), "much data after the voxels; ignored");
        }
        Ok(())
    }

    fn io(&self, error: io::Error) -> ReadError {
        let (path, at) = (self.path.to_owned(), self.at);
        match error.kind() {
            io::ErrorKind::UnexpectedEof if self.gzip => ReadError::TruncatedGzip { path, at },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if self.gzip => {
                ReadError::CorruptGzip { path, at, error }
            }
            _ => ReadError::Io { path, at, error },
        }
    }

    fn too_short(&self, claim: String, needed: u64) -> ReadError {
        let found = if self.gzip {
            format!(
                "{} compressed ({} uncompressed were read)",
                self.len, self.at
            )
        } else {
            self.len.to_string()
        };
        ReadError::TooShort {
            path: self.path.to_owned(),
            claim,
            needed,
            found,
        }
    }
}
