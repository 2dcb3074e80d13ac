//! Errors of reading and writing NIfTI files.

use std::io;
use std::path::PathBuf;

use crate::imaging::volume::VolumeSizeError;
use crate::run::durable::DurableError;

/// A file that cannot be read as a scan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot open scan '{}': {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    /// A read error of the system.
    #[error("cannot read scan '{}' after {at} bytes: {error}", path.display())]
    Io {
        path: PathBuf,
        /// Bytes of content read so far.
        at: u64,
        error: io::Error,
    },
    /// The compressed file is truncated.
    #[error(
        "scan '{}' is cut off: its gzip stream ends after {at} uncompressed bytes; \
         copy or download it again", path.display()
    )]
    TruncatedGzip { path: PathBuf, at: u64 },
    /// The compressed file is damaged.
    #[error(
        "scan '{}' is damaged: its gzip stream is corrupt after {at} uncompressed bytes \
         ({error}); copy or download it again", path.display()
    )]
    CorruptGzip {
        path: PathBuf,
        at: u64,
        /// The decompressor's error.
        error: io::Error,
    },
    /// The file holds fewer bytes than its header claims.
    #[error(
        "scan '{}' is too short: {claim} needs {needed} bytes, the file has {found}; \
         copy or download it again", path.display()
    )]
    TooShort {
        path: PathBuf,
        /// The content that needs the bytes.
        claim: String,
        /// Bytes needed, uncompressed.
        needed: u64,
        /// A description of what is there.
        found: String,
    },
    /// A file that is not NIfTI, or is only one part of it.
    #[error(
        "'{}' is {found}, not a NIfTI file (.nii, .nii.gz, or .hdr with .img); {advice}",
        path.display()
    )]
    WrongMagic {
        path: PathBuf,
        /// The detected content.
        found: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// One file of a pair without the other.
    #[error(
        "scan '{}' is half of a NIfTI pair: its {what} is missing (looked for {tried} in the same \
         folder); put it there, or write both as one .nii.gz", path.display()
    )]
    NoPartner {
        path: PathBuf,
        /// The missing file.
        what: &'static str,
        /// The names that were tried.
        tried: String,
    },
    /// A compressed file that claims to hold an implausible amount of data.
    #[error(
        "scan '{}' has {len} bytes and claims to hold {needed} ({claim}), more than {limit} times \
         as many; if it is really so empty, unpack it with gunzip or raise data.max_expansion",
        path.display()
    )]
    Expansion {
        path: PathBuf,
        /// The content that needs the bytes.
        claim: String,
        /// Uncompressed bytes that it claims.
        needed: u64,
        len: u64,
        /// Largest allowed ratio of the two.
        limit: u64,
    },
    /// An invalid header field.
    #[error(
        "scan '{}' has a bad header: {field} {problem}; write it again with the tool that made it",
        path.display()
    )]
    BadHeader {
        path: PathBuf,
        /// The field's name in the standard.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Voxels that are not single integers or floats.
    #[error(
        "scan '{}' has voxels of type {name} (code {code}), which cannot be read; \
         convert it to an integer or float type of up to 64 bits", path.display()
    )]
    UnsupportedDatatype {
        path: PathBuf,
        /// The type's name in the standard.
        name: &'static str,
        /// The type's code in the header.
        code: i16,
    },
    /// An axis without voxels.
    #[error("scan '{}' has dimensions {dims:?}; each must be at least 1", path.display())]
    ZeroDims { path: PathBuf, dims: Vec<i64> },
    /// Two dimensions, a time series, or several channels.
    #[error(
        "scan '{}' has shape {shape:?}; only 3D scans can be used: extract one volume first \
         (e.g. with fslroi or nibabel)", path.display()
    )]
    NotThreeD { path: PathBuf, shape: Vec<i64> },
    /// An axis longer than a position can index.
    #[error(
        "scan '{}' has shape {shape:?}; an axis may have 32767 voxels: crop or resample it",
        path.display()
    )]
    AxisTooLong { path: PathBuf, shape: Vec<i64> },
    /// More voxels than the limit.
    #[error(
        "scan '{}' claims {dims:?} = {voxels} voxels, the limit is {limit}; \
         crop or resample it, or raise data.max_voxels", path.display()
    )]
    TooManyVoxels {
        path: PathBuf,
        dims: [usize; 3],
        voxels: u64,
        /// The most allowed.
        limit: u64,
    },
    /// Not enough memory for the voxels.
    #[error("no memory for the {bytes} bytes of scan '{}'", path.display())]
    OutOfMemory { path: PathBuf, bytes: u64 },
    /// Not one voxel is finite.
    #[error(
        "scan '{}' has no voxel that is a finite number ({voxels} are NaN or infinite); \
         write it again with the tool that made it", path.display()
    )]
    NotFinite { path: PathBuf, voxels: u64 },
    /// The header's orientation is not an invertible map.
    #[error(
        "scan '{}' has a {which} that maps voxels nowhere (singular or not finite): {detail}; \
         set its orientation again (e.g. with nibabel)", path.display()
    )]
    BadAffine {
        path: PathBuf,
        /// `sform`, `qform` or `pixdim`.
        which: &'static str,
        /// The numbers.
        detail: String,
    },
}

/// An image that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file could not be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The number of voxels does not match the dimensions.
    #[error(transparent)]
    Size(#[from] VolumeSizeError),
    /// NIfTI-1 holds 1 to 32767 voxels per axis.
    #[error("cannot write '{}': {dims:?} does not fit NIfTI-1 (1 to 32767 voxels per axis)", path.display())]
    Dims { path: PathBuf, dims: [usize; 3] },
    /// The name does not end in a known format.
    #[error("cannot write '{}': the name must end in .nii or .nii.gz", path.display())]
    Name { path: PathBuf },
    /// The affine is not finite or singular.
    #[error("cannot write '{}': its affine is singular or not finite: {rows:?}", path.display())]
    Affine {
        path: PathBuf,
        rows: Box<[[f64; 4]; 3]>,
    },
}
