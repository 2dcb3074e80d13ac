//! Tables: CSV, TSV or `;`-separated, with a header that names the space.

use std::path::Path;

use super::points::{Points, number, shortened};
use super::{LandmarkError, Place, Point, Space};
use crate::imaging::delimited;

/// Column names of each space; the first match wins, because our own tables
/// have all three. The short ones are 3D Slicer's.
const SPACES: [([&str; 3], Space); 5] = [
    (["x_ras_mm", "y_ras_mm", "z_ras_mm"], Space::RasMm),
    (["x_lps_mm", "y_lps_mm", "z_lps_mm"], Space::LpsMm),
    (["x_voxel", "y_voxel", "z_voxel"], Space::Voxel),
    (["r", "a", "s"], Space::RasMm),
    (["l", "p", "s"], Space::LpsMm),
];

struct Columns {
    name: Option<usize>,
    position: [usize; 3],
    /// 3D Slicer's: 0 for a point that was never placed.
    defined: Option<usize>,
    space: Space,
    width: usize,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Option<Self> {
        let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        let (position, space) = SPACES
            .into_iter()
            .find_map(|([x, y, z], space)| Some(([column(x)?, column(y)?, column(z)?], space)))?;
        Some(Self {
            name: ["name", "label", "landmark"].into_iter().find_map(column),
            position,
            defined: column("defined"),
            space,
            width: header.len(),
        })
    }

    fn position(&self, record: &csv::StringRecord) -> Result<[f64; 3], String> {
        let field = |column: usize| record.get(column).unwrap_or_default();
        if self.defined.is_some_and(|c| field(c) == "0") {
            return Ok([f64::NAN; 3]);
        }
        let [x, y, z] = self.position.map(|column| number(field(column)));
        Ok([x?, y?, z?])
    }
}

/// The points of a table.
pub(super) fn points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let mut points = Points::new(path);
    let mut columns: Option<Columns> = None;
    for record in delimited::reader(text).records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            points.bad(Place::Line(line), error.to_string())
        })?;
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = delimited::record_line(text, &record);
        let place = Place::Line(line);
        let Some(columns) = &columns else {
            let header = record.iter().collect::<Vec<_>>().join(",");
            let found = Columns::of(&record).ok_or_else(|| LandmarkError::Header {
                path: path.to_owned(),
                line,
                header: shortened(&header),
            })?;
            columns = Some(found);
            continue;
        };
        if record.len() != columns.width {
            let (width, found) = (columns.width, record.len());
            let problem = format!("expected {width} columns as in the header, found {found}");
            return Err(points.bad(place, problem));
        }
        let position = columns
            .position(&record)
            .map_err(|problem| points.bad(place, problem))?;
        let name = columns.name.and_then(|c| record.get(c));
        points.push(name, position, columns.space, place)?;
    }
    Ok(points.into_vec())
}
