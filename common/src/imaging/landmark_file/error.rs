//! Errors in landmark files.

use std::path::PathBuf;

use super::{Place, Space};

/// Landmarks that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandmarkError {
    /// The file cannot be read, or is no text.
    #[error("landmark file '{}' {problem}", path.display())]
    Read { path: PathBuf, problem: String },
    /// An unsupported format.
    #[error(
        "landmark file '{}' is {found}; give a CSV with the header name,x_ras_mm,y_ras_mm,z_ras_mm \
         (or _lps_mm, or _voxel), lines of x,y,z voxel indices, elastix's points, 3D Slicer's \
         .mrk.json or .fcsv, or an ASCII VTK PolyData file", path.display()
    )]
    NotLandmarks {
        path: PathBuf,
        /// The detected format.
        found: &'static str,
    },
    /// A header that does not name a space.
    #[error(
        "{}:{line}: {problem}; accepted are \
         name,x_ras_mm,y_ras_mm,z_ras_mm and name,x_lps_mm,y_lps_mm,z_lps_mm and \
         name,x_voxel,y_voxel,z_voxel (or label,r,a,s or label,l,p,s)", path.display()
    )]
    Header {
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        problem: String,
    },
    /// A line or point that cannot be parsed.
    #[error("{}{place}: {problem}", path.display())]
    Entry {
        path: PathBuf,
        place: Place,
        problem: String,
    },
    /// An id that the file does not have.
    #[error("landmark '{id}' is not in '{}', which has {valid}{suggestion}", path.display())]
    UnknownId {
        path: PathBuf,
        id: String,
        /// The valid ids.
        valid: String,
        /// The nearest name, if there is a similar one.
        suggestion: String,
    },
    /// A landmark outside its scan.
    #[error(transparent)]
    Outside(Box<Outside>),
}

/// A landmark outside its scan.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}{place}: landmark '{label}' at {position:?} ({space}) is outside scan '{scan}': \
     voxel [{:.1}, {:.1}, {:.1}] of {dims:?}; check that file and scan belong together and that \
     the space is right", path.display(), voxel[0], voxel[1], voxel[2]
)]
pub struct Outside {
    pub path: PathBuf,
    pub place: Place,
    /// The scan's name.
    pub scan: String,
    /// The landmark's name or number.
    pub label: String,
    pub position: [f64; 3],
    pub space: Space,
    /// Its position along our axes, in units of the file's voxels.
    pub voxel: [f64; 3],
    /// Voxels per axis of the file, in the order of our axes.
    pub dims: [usize; 3],
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RasMm => "RAS mm",
            Self::LpsMm => "LPS mm",
            Self::Voxel => "voxel of the file",
        })
    }
}
