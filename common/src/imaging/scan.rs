//! A scan in the memory of actors, learner and evaluators.

mod warning;

use crate::environment::pose::Pose;
use crate::imaging::geometry::Geometry;
use crate::imaging::volume::Volume;

pub use warning::{LengthUnit, ScanWarning};

/// SHA-256 of a preprocessed volume: dims and voxels (see [`crate::imaging::manifest`]).
pub type VolumeHash = [u8; 32];

/// One preprocessed scan with the requested landmarks.
#[derive(Debug, Clone)]
pub struct Scan {
    /// File name without folder and extension, for messages.
    pub name: String,
    /// The preprocessed intensities.
    pub volume: Volume,
    /// Where the voxels lie.
    pub geometry: Geometry,
    /// Voxel position of each agent's landmark in our volume, in agent order;
    /// `None` where the file marks it as missing. Empty without landmarks (play).
    pub landmarks: Vec<Option<[f64; 3]>>,
    /// Content hash of the preprocessed volume.
    pub hash: VolumeHash,
}

impl Scan {
    /// The scan in a pose: volume and landmarks follow it, the grid stays. A
    /// landmark that leaves the volume becomes `None`.
    #[must_use]
    pub fn posed(&self, pose: Pose) -> Self {
        Self {
            name: self.name.clone(),
            volume: self.volume.posed(pose),
            geometry: self.geometry.clone(),
            landmarks: self.posed_landmarks(pose),
            hash: self.hash,
        }
    }

    /// The landmarks of [`Scan::posed`].
    #[must_use]
    pub fn posed_landmarks(&self, pose: Pose) -> Vec<Option<[f64; 3]>> {
        let inside = |p: &[f64; 3]| {
            let within = |(&v, &n): (&f64, &usize)| v > -0.5 && v < n as f64 - 0.5;
            p.iter().zip(&self.geometry.dims).all(within)
        };
        let place = |p: &Option<[f64; 3]>| pose.position((*p)?).filter(inside);
        self.landmarks.iter().map(place).collect()
    }
}

#[cfg(test)]
impl Scan {
    /// A scan whose voxels are all 1.
    pub(crate) fn uniform(geometry: Geometry, landmarks: Vec<Option<[f64; 3]>>) -> Self {
        let voxels = vec![1_u8; geometry.dims.iter().product()];
        Self {
            name: "made".into(),
            volume: Volume::from_u8(geometry.dims, voxels).unwrap(),
            geometry,
            landmarks,
            hash: [0; 32],
        }
    }
}
