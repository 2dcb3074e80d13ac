//! NIfTI files: the only module that reads or writes them.
//!
//! It reads NIfTI-1 and NIfTI-2, as one file or as a `.hdr`/`.img` pair, in both
//! byte orders, compressed with gzip or not, and writes NIfTI-1. Whatever can be
//! wrong in damaged or hostile files (limits, compression, voxel offset, scaling,
//! orientation) is checked before memory is allocated for it.

mod affine;
mod decode;
mod error;
mod fields;
#[cfg(test)]
pub(crate) mod fixture;
mod foreign;
#[cfg(test)]
mod golden;
mod header;
mod pair;
mod placement;
mod read;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

use crate::imaging::geometry::Affine;
use crate::imaging::scan::ScanWarning;
use crate::imaging::volume::{VolumeSizeError, check_size};

pub use error::{ReadError, WriteError};
pub use pair::{bare_name, files_of};
pub use read::{read, read_from, read_pair_from};
pub use stream::Source;
pub use write::{ImageRef, SamplesRef, write, write_volume};

/// Most voxels along an axis: positions are 16-bit numbers.
pub const MAX_AXIS: usize = i16::MAX as usize;

/// Limits on the size of a scan file.
///
/// Both are checked before any memory is allocated: 1 byte per voxel for unscaled
/// `uint8`, else 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most voxels a volume may have.
    pub max_voxels: u64,
    /// Largest average ratio of content to compressed bytes.
    pub max_expansion: u64,
}

impl Limits {
    /// Bytes of content that a compressed file may always have: small scans may be
    /// arbitrarily sparse.
    pub const FREE_EXPANSION: u64 = 64 << 20;

    /// Most bytes that the content of a file of `len` bytes may take.
    #[must_use]
    pub fn content_max(&self, len: u64) -> u64 {
        Self::FREE_EXPANSION.max(len.saturating_mul(self.max_expansion))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_voxels: 1 << 31,
            max_expansion: 200,
        }
    }
}

/// Intensities in file order: the file's first axis fastest.
#[derive(Clone, PartialEq)]
pub enum Samples {
    /// From unscaled 8-bit files.
    U8(Vec<u8>),
    /// From all others, scaled; exact for integers below 2^24.
    F32(Vec<f32>),
}

impl Samples {
    /// Number of voxels.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::U8(_) => "u8",
            Self::F32(_) => "f32",
        };
        write!(f, "{} {kind} voxels", self.len())
    }
}

/// A volume as stored in its file: file axes, no preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    dims: [usize; 3],
    samples: Samples,
    affine: Affine,
    warnings: Vec<ScanWarning>,
}

impl Image {
    /// An image in memory. Fails when the number of samples does not match the dimensions.
    pub fn new(
        dims: [usize; 3],
        samples: Samples,
        affine: Affine,
    ) -> Result<Self, VolumeSizeError> {
        check_size(dims, samples.len())?;
        Ok(Self {
            dims,
            samples,
            affine,
            warnings: Vec::new(),
        })
    }

    /// Voxels per axis of the file.
    #[must_use]
    pub fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// The intensities, the first axis fastest.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// File voxel positions → RAS mm.
    #[must_use]
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// Suspicious properties of its file.
    #[must_use]
    pub fn warnings(&self) -> &[ScanWarning] {
        &self.warnings
    }

    /// Millimetres between voxel centres along each axis of the file.
    #[must_use]
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.affine.column_lengths()
    }
}
