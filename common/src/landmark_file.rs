//! Landmark files: where the landmarks of one scan are, in whichever space.
//!
//! Two formats are read, told apart by their content: a CSV whose header names
//! the space (`name,x_ras_mm,y_ras_mm,z_ras_mm`, or `_lps_mm`, or `_voxel`),
//! and rl-medical's text, one `x,y,z` or `x y z` voxel index of the file's own
//! grid per line, `0 0 0` or NaN where a landmark is missing.

mod error;
mod parse;
mod select;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::geometry::Geometry;

pub use error::LandmarkError;
pub use select::Selected;

/// No landmark file is anywhere near as large.
const MAX_BYTES: u64 = 16 << 20;

/// What a point's three numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Millimetres in the scan's world: right, anterior, superior.
    RasMm,
    /// Millimetres in the scan's world: left, posterior, superior.
    LpsMm,
    /// Voxel index of the scan file's own grid, counted from 0.
    Voxel,
}

/// One landmark of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its name, in files that have names.
    pub name: Option<String>,
    /// Where it is; `None` where the file says that it is missing.
    pub position: Option<[f64; 3]>,
    /// What the position's numbers mean.
    pub space: Space,
    /// The file's line, counted from 1.
    pub line: u64,
}

/// The landmarks of one scan, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct LandmarkFile {
    /// Where they were read.
    pub path: PathBuf,
    /// One entry per landmark, missing ones included.
    pub points: Vec<Point>,
}

impl LandmarkFile {
    /// Reads a file in either format.
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
                found: "a file of more than 16 MiB",
            });
        }
        Self::parse(&bytes, path)
    }

    /// The same from bytes; errors call them `path`.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, LandmarkError> {
        Ok(Self {
            path: path.to_owned(),
            points: parse::points(bytes, path)?,
        })
    }

    /// The point's voxel position in our volume, `None` where it is missing.
    ///
    /// A position outside the volume (further than half a voxel from its
    /// outermost centres) is an error that calls the scan `scan`.
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
        voxel
            .filter(|voxel| is_inside(*voxel, geometry.dims))
            .map(Some)
            .ok_or_else(|| {
                LandmarkError::Outside(Box::new(error::Outside {
                    path: self.path.clone(),
                    line: point.line,
                    scan: scan.to_owned(),
                    label: label.to_owned(),
                    position,
                    space: point.space,
                    voxel: voxel.unwrap_or([f64::NAN; 3]),
                    dims: geometry.dims,
                }))
            })
    }
}

/// Whether a position's nearest voxel is one of the volume's.
#[expect(clippy::cast_precision_loss, reason = "grid sizes are far below 2^52")]
fn is_inside(voxel: [f64; 3], dims: [usize; 3]) -> bool {
    voxel
        .iter()
        .zip(dims)
        .all(|(&v, dim)| v > -0.5 && v < dim as f64 - 0.5)
}
