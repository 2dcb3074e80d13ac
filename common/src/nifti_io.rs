//! NIfTI-1 files: the only place that reads or writes them.
//!
//! The `nifti` crate parses the header's fields. Everything that can go wrong
//! in odd or hostile files (limits, compression, voxel offset, scaling,
//! orientation) is checked here before the crate's structs are trusted.

mod affine;
mod decode;
mod error;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;
mod header;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

use crate::geometry::Affine;
use crate::volume::VolumeSizeError;

pub use error::{ReadError, WriteError};
pub use read::{read, read_from};
pub use write::{ImageRef, SamplesRef, write, write_volume};

/// What a file may ask for before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most voxels a volume may have; checked before any memory is taken.
    pub max_voxels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_voxels: 1 << 31,
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
    /// How many voxels there are.
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
        let kind = if matches!(self, Self::U8(_)) {
            "u8"
        } else {
            "f32"
        };
        write!(f, "{} {kind} voxels", self.len())
    }
}

/// A volume as its file holds it: file axes, no preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    dims: [usize; 3],
    samples: Samples,
    affine: Affine,
}

impl Image {
    /// An image in memory. Fails when the samples are not as many as the dims say.
    pub fn new(
        dims: [usize; 3],
        samples: Samples,
        affine: Affine,
    ) -> Result<Self, VolumeSizeError> {
        let expected = dims.iter().product();
        let found = samples.len();
        if expected == found {
            Ok(Self {
                dims,
                samples,
                affine,
            })
        } else {
            Err(VolumeSizeError {
                dims,
                expected,
                found,
            })
        }
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

    /// Millimetres between voxel centres along each axis of the file.
    #[must_use]
    pub fn spacing_mm(&self) -> [f64; 3] {
        affine::spacing_mm(&self.affine)
    }
}
