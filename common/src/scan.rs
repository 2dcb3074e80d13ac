//! A scan as actors, learner and evaluators hold it.

use crate::geometry::Geometry;
use crate::volume::Volume;

/// SHA-256 of a preprocessed volume: dims and voxels (see [`crate::manifest`]).
pub type VolumeHash = [u8; 32];

/// One preprocessed scan with the landmarks that a run asks for.
#[derive(Debug, Clone)]
pub struct Scan {
    /// File name without folder and extension, for people.
    pub name: String,
    /// The preprocessed intensities.
    pub volume: Volume,
    /// Where the voxels lie.
    pub geometry: Geometry,
    /// Voxel position of each agent's landmark in our volume, in agent order;
    /// `None` where the file says it is missing. Empty where nothing is known (play).
    pub landmarks: Vec<Option<[f64; 3]>>,
    /// Content hash of the preprocessed volume.
    pub hash: VolumeHash,
}
