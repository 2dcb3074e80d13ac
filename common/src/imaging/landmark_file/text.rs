//! rl-medical's text: one voxel index of the file's own grid per line.

use std::path::Path;

use super::points::{Points, shortened};
use super::{LandmarkError, Place, Point, Space};
use crate::imaging::delimited::content_lines;

/// Brain files separate the numbers by commas, fetal ones by spaces. In both,
/// `0 0 0` marks a missing landmark: nobody marks the corner voxel.
pub(super) fn points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let mut points = Points::new(path);
    for (line, content) in content_lines(text) {
        let place = Place::Line(line);
        let values = numbers(content).map_err(|piece| {
            points.bad(place, format!("'{}' is not a number", shortened(piece)))
        })?;
        let position = <[f64; 3]>::try_from(values.as_slice()).map_err(|_| {
            let found = values.len();
            points.bad(
                place,
                format!("expected three numbers x,y,z, found {found}"),
            )
        })?;
        let missing = position == [0.0; 3];
        let position = if missing { [f64::NAN; 3] } else { position };
        points.push(None, position, Space::Voxel, place)?;
    }
    Ok(points.into_vec())
}

/// Parses the numbers of one line; an error holds the invalid part.
pub(super) fn numbers(line: &str) -> Result<Vec<f64>, &str> {
    let by_comma = line.contains(',');
    let pieces = line.split(move |c: char| {
        if by_comma {
            c == ','
        } else {
            c.is_whitespace()
        }
    });
    pieces
        .map(str::trim)
        .filter(|piece| by_comma || !piece.is_empty())
        .map(|piece| piece.parse().map_err(|_| piece))
        .collect()
}
