//! Landmark files: the landmark positions of one scan, in one of several spaces.
//!
//! The content of a file decides its format; [`mod@write`] writes the formats
//! of other programs.
//!
//! - A table (CSV, TSV or `;`) whose header names the space:
//!   `name,x_ras_mm,y_ras_mm,z_ras_mm`, or `_lps_mm`, or `_voxel`, or 3D
//!   Slicer's `label,r,a,s` and `label,l,p,s`.
//! - rl-medical's text: one `x,y,z` (brain) or `x y z` (fetal) voxel index of
//!   the file's own grid per line, `0 0 0` or NaN where a landmark is missing.
//! - Legacy ASCII VTK polygonal data (cardiac): its `POINTS`, RAS mm, or LPS
//!   if the title contains 3D Slicer's `SPACE=LPS`.
//! - 3D Slicer's `.mrk.json` and `.fcsv`: LPS or RAS mm, as declared in the file.

mod error;
mod fcsv;
mod format;
mod markups;
mod points;
mod select;
mod table;
mod text;
mod vtk;
pub mod write;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::imaging::geometry::Geometry;
use crate::imaging::orientation::mapped_dims;

pub use error::LandmarkError;
pub use select::{MatchedBy, Selected};

/// Far more than any landmark file needs: 3D Slicer takes 700 bytes per point.
const MAX_BYTES: u64 = 4 << 20;

/// The space of a point's coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Millimetres in the scan's world: right, anterior, superior.
    RasMm,
    /// Millimetres in the scan's world: left, posterior, superior.
    LpsMm,
    /// Voxel index of the scan file's own grid, counted from 0.
    Voxel,
}

/// The location of a point in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The line, from 1.
    Line(u64),
    /// The markup and its control point, from 1, in formats without meaningful lines.
    ControlPoint(usize, usize),
}

/// Appended to a path: `:12`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, ":{line}"),
            Self::ControlPoint(markup, point) => {
                write!(f, ": markup {markup}, control point {point}")
            }
        }
    }
}

/// One landmark of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its name, in formats with names.
    pub name: Option<String>,
    /// Its position; `None` where the file marks it as missing.
    pub position: Option<[f64; 3]>,
    pub space: Space,
    pub place: Place,
}

/// The landmarks of one scan, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct LandmarkFile {
    /// The file they were read from.
    pub path: PathBuf,
    /// One entry per landmark, missing ones included.
    pub points: Vec<Point>,
    /// Likely mistakes in the file: sentences without its name.
    pub warnings: Vec<String>,
}

impl LandmarkFile {
    /// Reads a file in any of the formats.
    pub fn read(path: &Path) -> Result<Self, LandmarkError> {
        let failed = |error| LandmarkError::Read {
            path: path.to_owned(),
            error,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(LandmarkError::NotLandmarks {
                path: path.to_owned(),
                found: "a file of more than 4 MiB",
            });
        }
        Self::parse(&bytes, path)
    }

    /// Parses bytes; errors refer to them as `path`.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, LandmarkError> {
        Ok(Self {
            path: path.to_owned(),
            points: format::points(bytes, path)?,
            warnings: Vec::new(),
        })
    }

    /// The point's voxel position in our volume, `None` where it is missing.
    ///
    /// A position outside the file's grid (further than half a voxel from its
    /// outermost centres) is an error that names the scan `scan`.
    pub fn locate(
        &self,
        point: &Point,
        label: &str,
        scan: &str,
        geometry: &Geometry,
    ) -> Result<Option<[f64; 3]>, LandmarkError> {
        let Some(position) = point.position else {
            return Ok(None);
        };
        let [x, y, z] = position;
        let voxel = match point.space {
            Space::Voxel => Some(geometry.axis_map.from_file(position)),
            Space::RasMm => geometry.affine.to_voxel(position),
            Space::LpsMm => geometry.affine.to_voxel([-x, -y, z]),
        };
        // A resampled grid may cover a fraction of a voxel less at its ends, so the file's grid
        // decides whether a position is inside.
        let file_dims = mapped_dims(&geometry.axis_map);
        let in_file = voxel.map(|voxel| geometry.axis_map.in_file_voxels(voxel));
        voxel
            .filter(|_| in_file.is_some_and(|voxel| is_inside(voxel, file_dims)))
            .map(|voxel| Some(brought_inside(voxel, geometry.dims)))
            .ok_or_else(|| {
                LandmarkError::Outside(Box::new(error::Outside {
                    path: self.path.clone(),
                    place: point.place,
                    scan: scan.to_owned(),
                    label: label.to_owned(),
                    position,
                    space: point.space,
                    voxel: in_file.unwrap_or([f64::NAN; 3]),
                    dims: file_dims,
                }))
            })
    }
}

/// Whether a position's nearest voxel is one of the volume's.
fn is_inside(voxel: [f64; 3], dims: [usize; 3]) -> bool {
    voxel
        .iter()
        .zip(dims)
        .all(|(&v, dim)| v > -0.5 && v < dim as f64 - 0.5)
}

/// The position, clamped to the nearest one that [`is_inside`].
fn brought_inside(voxel: [f64; 3], dims: [usize; 3]) -> [f64; 3] {
    let first = (-0.5_f64).next_up();
    [0, 1, 2].map(|i| voxel[i].clamp(first, (dims[i] as f64 - 0.5).next_down()))
}
