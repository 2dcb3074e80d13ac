//! Tables: CSV, TSV or `;`-separated, with a header that names the space.

use std::path::Path;

use super::numbers::Numbers;
use super::points::{Labels, Points, shortened};
use super::{LandmarkError, Place, Space};
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
    description: Option<usize>,
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
            description: ["description", "desc"].into_iter().find_map(column),
            position,
            defined: column("defined"),
            space,
            width: header.len(),
        })
    }

    fn position(
        &self,
        record: &csv::StringRecord,
        numbers: &mut Numbers,
    ) -> Result<[f64; 3], String> {
        let field = |column: usize| record.get(column).unwrap_or_default();
        if self.defined.is_some_and(|c| field(c) == "0") {
            return Ok([f64::NAN; 3]);
        }
        let [x, y, z] = self.position.map(|column| numbers.read(field(column)));
        Ok([x?, y?, z?])
    }
}

/// What is wrong with a first line that is no header of [`SPACES`].
fn no_header(record: &csv::StringRecord) -> String {
    let header = shortened(&record.iter().collect::<Vec<_>>().join(","));
    let values = record.iter().filter(|field| field.parse::<f64>().is_ok());
    if values.count() >= 3 {
        format!(
            "the first line '{header}' is no header; one has to name the space of the positions"
        )
    } else {
        format!("the header '{header}' does not name the space of the positions")
    }
}

/// The points of a table.
pub(super) fn points<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut points = Points::new(path);
    let mut columns: Option<Columns> = None;
    let delimiter = delimited::delimiter(text);
    let mut numbers = Numbers::between(delimiter.unwrap_or(b' '));
    for row in delimited::rows(text) {
        let row = row.map_err(|(line, problem)| points.bad(Place::Line(line), problem))?;
        let (line, record) = (row.line, row.fields);
        let place = Place::Line(line);
        let Some(columns) = &columns else {
            let found = Columns::of(&record).ok_or_else(|| LandmarkError::Header {
                path: path.to_owned(),
                line,
                problem: no_header(&record),
            })?;
            columns = Some(found);
            continue;
        };
        // Delimiters at the end of a row make empty fields.
        let has_more = || {
            record
                .iter()
                .skip(columns.width)
                .any(|field| !field.is_empty())
        };
        if record.len() < columns.width || has_more() {
            let (width, found) = (columns.width, record.len());
            // Three positions with a decimal comma each.
            let cause = match delimiter {
                Some(b',') if found == width + 3 => {
                    "; if a comma is the decimal sign, separate the columns by ';'"
                }
                _ => "",
            };
            let problem =
                format!("expected {width} columns as in the header, found {found}{cause}");
            return Err(points.bad(place, problem));
        }
        let position = columns
            .position(&record, &mut numbers)
            .map_err(|problem| points.bad(place, problem))?;
        let field = |column: Option<usize>| record.get(column?);
        let labels = Labels {
            name: field(columns.name),
            description: field(columns.description),
        };
        points.push(labels, position, columns.space, place)?;
    }
    Ok(points)
}
