//! The content of a file, decompressed if it is gzip, with its position.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::fields::{NIFTI1_LEN, NIFTI2_LEN, Version};
use super::foreign;
use super::{Limits, ReadError};
use crate::imaging::scan::ScanWarning;

/// Deflate cannot exceed this ratio, so a header that claims more is wrong.
const MAX_GZIP_RATIO: u64 = 1032;
/// Bytes read at once; a multiple of every voxel size.
pub(super) const CHUNK: usize = 1 << 18;
/// Bytes after the voxels that are ignored without a warning. Those of a compressed file are
/// read to reach its checksum, and no more of them.
const MAX_TAIL: u64 = 1 << 24;
/// Zeros that are skipped after a gzip member: tapes and archives pad their blocks with them.
const MAX_PADDING: usize = 1 << 24;

/// A source of a scan's bytes, or of one file of a pair.
#[derive(Debug)]
pub struct Source<'a, R> {
    /// The bytes; gzip is recognised.
    pub reader: R,
    /// Their number as stored: compressed or not.
    pub len: u64,
    pub name: &'a Path,
}

/// The uncompressed content, and its position for messages.
pub(super) struct Stream<'a> {
    content: Content<'a>,
    at: u64,
    /// Bytes of the file on disk.
    len: u64,
    pub(super) path: &'a Path,
}

impl<'a> Stream<'a> {
    /// Opens a file.
    pub(super) fn open(path: &'a Path) -> Result<Self, ReadError> {
        let open = |error| ReadError::Open {
            path: path.to_owned(),
            error,
        };
        // Checked before opening: opening a pipe would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(open)?;
        if metadata.is_dir() {
            return Err(foreign::folder(path));
        }
        if !metadata.is_file() {
            let what = "it is a pipe or a device; copy its content into a file";
            return Err(open(io::Error::other(what)));
        }
        let file = File::open(path).map_err(open)?;
        Self::new(Source {
            reader: BufReader::with_capacity(CHUNK, file),
            len: metadata.len(),
            name: path,
        })
    }

    /// Wraps a source; its first bytes decide whether it is gzip.
    pub(super) fn new<R: BufRead + 'a>(mut source: Source<'a, R>) -> Result<Self, ReadError> {
        let (path, len) = (source.name, source.len);
        let start = source.reader.fill_buf().map_err(|error| ReadError::Io {
            path: path.to_owned(),
            at: 0,
            error,
        })?;
        let gzip = start.starts_with(&[0x1f, 0x8b]);
        let content = if gzip {
            Content::Gzip(Box::new(Members::new(Box::new(source.reader))))
        } else {
            Content::Plain(Box::new(source.reader))
        };
        Ok(Self {
            content,
            at: 0,
            len,
            path,
        })
    }

    /// The whole header of the version that it claims; for other files their first bytes.
    pub(super) fn start(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; NIFTI2_LEN];
        let mut got = self.fill(&mut bytes[..NIFTI1_LEN])?;
        if got == NIFTI1_LEN && matches!(Version::claimed(&bytes), Some((Version::Two, _))) {
            got += self.fill(&mut bytes[NIFTI1_LEN..])?;
        }
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Refuses content of `needed` bytes that the file cannot hold, or that expands too far.
    pub(super) fn check_length(
        &self,
        claim: &str,
        needed: u64,
        limits: &Limits,
    ) -> Result<(), ReadError> {
        let gzip = self.is_gzip();
        let possible = if gzip {
            self.len.saturating_mul(MAX_GZIP_RATIO)
        } else {
            self.len
        };
        if needed > possible {
            return Err(self.too_short(claim, needed));
        }
        if gzip && needed > limits.content_max(self.len) {
            return Err(ReadError::Expansion {
                path: self.path.to_owned(),
                claim: claim.to_owned(),
                needed,
                len: self.len,
                limit: limits.max_expansion,
            });
        }
        Ok(())
    }

    /// Reads until `buffer` is full or the content ends.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.content.read(&mut buffer[filled..]) {
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

    /// Skips to a position; `claim` needs `needed` bytes in total.
    pub(super) fn skip_to(&mut self, to: u64, claim: &str, needed: u64) -> Result<(), ReadError> {
        let mut buffer = [0; 4096];
        while self.at < to {
            let left = usize::try_from(to - self.at).unwrap_or(usize::MAX);
            let part = left.min(buffer.len());
            if self.fill(&mut buffer[..part])? < part {
                return Err(self.too_short(claim, needed));
            }
        }
        Ok(())
    }

    /// Reads to the end of a gzip stream to verify its checksum: otherwise damage goes
    /// unnoticed. Gives warnings of what follows the voxels.
    pub(super) fn check_tail(&mut self) -> Result<Vec<ScanWarning>, ReadError> {
        let mut buffer = [0; 4096];
        let mut tail = 0;
        while self.is_gzip() && tail <= MAX_TAIL {
            let got = self.fill(&mut buffer)?;
            tail += got as u64;
            if got < buffer.len() {
                break;
            }
        }
        let mut warnings = Vec::new();
        match &self.content {
            Content::Plain(_) => tail = self.len.saturating_sub(self.at),
            Content::Gzip(members) if members.trailing => warnings.push(ScanWarning::AfterGzip),
            Content::Gzip(_) => {}
        }
        if tail > MAX_TAIL {
            warnings.push(ScanWarning::AfterVoxels);
        }
        Ok(warnings)
    }

    fn is_gzip(&self) -> bool {
        matches!(self.content, Content::Gzip(_))
    }

    fn io(&self, error: io::Error) -> ReadError {
        let (path, at) = (self.path.to_owned(), self.at);
        match error.kind() {
            io::ErrorKind::UnexpectedEof if self.is_gzip() => ReadError::TruncatedGzip { path, at },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if self.is_gzip() => {
                ReadError::CorruptGzip { path, at, error }
            }
            _ => ReadError::Io { path, at, error },
        }
    }

    pub(super) fn too_short(&self, claim: &str, needed: u64) -> ReadError {
        let found = match &self.content {
            Content::Plain(_) => self.len.to_string(),
            Content::Gzip(members) => {
                let after = if members.trailing {
                    ", then come bytes that are no gzip"
                } else {
                    ""
                };
                let (len, at) = (self.len, self.at);
                format!("{len} compressed ({at} uncompressed were read{after})")
            }
        };
        ReadError::TooShort {
            path: self.path.to_owned(),
            claim: claim.to_owned(),
            needed,
            found,
        }
    }
}

/// The bytes of a file, and whether they are compressed.
enum Content<'a> {
    Plain(Box<dyn Read + 'a>),
    Gzip(Box<Members<'a>>),
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(members) => members.read(buffer),
        }
    }
}

/// Consecutive gzip members, with zeros between or after them, as in Python's gzip. What is
/// no member ends the content, as in gzip(1) and zlib.
struct Members<'a> {
    member: GzDecoder<Box<dyn BufRead + 'a>>,
    /// Whether a member was read to its end.
    past_first: bool,
    /// Zeros after members so far.
    padding: usize,
    /// Whether bytes that are no member follow the last one.
    trailing: bool,
}

impl<'a> Members<'a> {
    fn new(reader: Box<dyn BufRead + 'a>) -> Self {
        Self {
            member: GzDecoder::new(reader),
            past_first: false,
            padding: 0,
            trailing: false,
        }
    }

    /// Whether another member seems to begin after the last one.
    fn another(&mut self) -> io::Result<bool> {
        loop {
            let rest = self.member.get_mut().fill_buf()?;
            let Some(&first) = rest.first() else {
                return Ok(false);
            };
            let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
            if zeros == 0 {
                self.trailing = first != 0x1f;
                return Ok(!self.trailing);
            }
            self.padding = self.padding.saturating_add(zeros);
            if self.padding > MAX_PADDING {
                self.trailing = true;
                return Ok(false);
            }
            self.member.get_mut().consume(zeros);
        }
    }
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.trailing {
            match self.member.read(buffer) {
                Ok(0) if !buffer.is_empty() && self.another()? => {
                    self.past_first = true;
                    // The decoder keeps its reader unless it is replaced; a new one makes it
                    // start again.
                    let rest = self.member.reset(Box::new(io::empty()));
                    self.member.reset(rest);
                }
                // No header: these bytes were no member.
                Err(error)
                    if self.past_first
                        && self.member.header().is_none()
                        && error.kind() == io::ErrorKind::InvalidInput =>
                {
                    self.trailing = true;
                }
                other => return other,
            }
        }
        Ok(0)
    }
}
