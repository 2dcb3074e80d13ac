//! The voxels of a preprocessed scan.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::environment::pose::Pose;

/// Bytes that are owned or mapped from the cache.
pub trait VoxelBytes: AsRef<[u8]> + Send + Sync {
    /// Whether they are still those of the volume.
    ///
    /// # Errors
    /// When the file that they are mapped from changed.
    fn check(&self) -> Result<(), VolumeChanged> {
        Ok(())
    }
}

/// Bytes that nobody else can change.
struct Owned<T>(T);

impl<T: AsRef<[u8]>> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl<T: AsRef<[u8]> + Send + Sync> VoxelBytes for Owned<T> {}

/// The file of a mapped volume was written to, shortened, or lost to a failing disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cached volume {} changed while it was in use: what was computed from it is not used; \
     find out what writes to the folder or whether its disk fails, and start again: the volume is \
     then made anew from its scan", path.display()
)]
pub struct VolumeChanged {
    /// In the cache.
    pub path: PathBuf,
}

/// The intensities of a [`Volume`], z fastest.
#[derive(Clone)]
pub enum Voxels {
    /// 0..=255, the default, shared by windows, actors and the learner.
    U8(Arc<dyn VoxelBytes>),
    /// 0.0..=255.0 without rounding, for the `reference` rules.
    F32(Arc<Vec<f32>>),
}

/// A 3D grid of intensities in 0..=255, index `(x · ny + y) · nz + z`.
///
/// z is fastest so that a window `[x][y][z]` is the tensor that the
/// convolutions of the published networks expect, row by row.
#[derive(Clone)]
pub struct Volume {
    dims: [usize; 3],
    voxels: Voxels,
    pose: Option<Pose>,
}

/// The number of voxels does not match the dimensions.
#[derive(Debug, thiserror::Error)]
#[error("a volume of {dims:?} voxels needs {expected} values, got {found}")]
pub struct VolumeSizeError {
    pub dims: [usize; 3],
    /// Their product.
    pub expected: usize,
    pub found: usize,
}

impl Volume {
    /// A volume of bytes. Fails when their number is not `dims[0]·dims[1]·dims[2]`.
    pub fn from_u8(
        dims: [usize; 3],
        voxels: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self, VolumeSizeError> {
        Self::from_bytes(dims, Owned(voxels))
    }

    /// A volume of bytes that may change. Fails as [`Volume::from_u8`].
    pub(crate) fn from_bytes(
        dims: [usize; 3],
        voxels: impl VoxelBytes + 'static,
    ) -> Result<Self, VolumeSizeError> {
        check_size(dims, voxels.as_ref().len())?;
        Ok(Self {
            dims,
            voxels: Voxels::U8(Arc::new(voxels)),
            pose: None,
        })
    }

    /// A volume of floats in 0..=255, for the `reference` rules.
    pub fn from_f32(dims: [usize; 3], voxels: Vec<f32>) -> Result<Self, VolumeSizeError> {
        check_size(dims, voxels.len())?;
        Ok(Self {
            dims,
            voxels: Voxels::F32(Arc::new(voxels)),
            pose: None,
        })
    }

    /// Whether the voxels that were read until now are those of the volume. Called after
    /// windows were rendered, before anything computed from them is used.
    ///
    /// # Errors
    /// When the cache file that they are mapped from changed.
    pub fn check(&self) -> Result<(), VolumeChanged> {
        match &self.voxels {
            Voxels::U8(bytes) => (**bytes).check(),
            Voxels::F32(_) => Ok(()),
        }
    }

    /// Voxels per axis (x, y, z).
    #[must_use]
    pub fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// The same voxels in a pose: a view that shares them.
    #[must_use]
    pub fn posed(&self, pose: Pose) -> Self {
        Self {
            pose: Some(pose),
            ..self.clone()
        }
    }

    /// The pose of this view.
    #[must_use]
    pub fn pose(&self) -> Option<&Pose> {
        self.pose.as_ref()
    }

    /// The intensities as stored, whatever the pose.
    #[must_use]
    pub fn voxels(&self) -> &Voxels {
        &self.voxels
    }

    /// The intensity at a voxel, 0 outside; in a pose, at the scan's voxel that
    /// appears there.
    #[must_use]
    pub fn at(&self, p: [i32; 3]) -> f32 {
        let mut index = self.index(p.map(i64::from));
        if let (Some(_), Some(pose)) = (index, &self.pose) {
            index = self.index(pose.voxel(p));
        }
        let Some(index) = index else { return 0.0 };
        match &self.voxels {
            Voxels::U8(bytes) => f32::from((**bytes).as_ref()[index]),
            Voxels::F32(values) => values[index],
        }
    }

    fn index(&self, p: [i64; 3]) -> Option<usize> {
        let mut index = 0_usize;
        for (&v, &dim) in p.iter().zip(&self.dims) {
            let v = usize::try_from(v).ok().filter(|v| *v < dim)?;
            index = index * dim + v;
        }
        Some(index)
    }

    /// The bytes as stored, where the volume holds bytes.
    #[must_use]
    pub fn as_u8(&self) -> Option<&[u8]> {
        match &self.voxels {
            Voxels::U8(bytes) => Some((**bytes).as_ref()),
            Voxels::F32(_) => None,
        }
    }
}

/// Fails when `found` is not the number of voxels of `dims`.
pub(crate) fn check_size(dims: [usize; 3], found: usize) -> Result<(), VolumeSizeError> {
    let expected = dims.iter().product();
    if expected == found {
        Ok(())
    } else {
        Err(VolumeSizeError {
            dims,
            expected,
            found,
        })
    }
}

impl fmt::Debug for Voxels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8(_) => "u8",
            Self::F32(_) => "f32",
        })
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volume({:?} {:?})", self.dims, self.voxels)
    }
}
