//! 3D Slicer's older `.fcsv`: a table whose comments name space and columns.

use std::path::Path;

use super::points::{Points, number, shortened};
use super::{LandmarkError, Place, Point, Space};

/// The columns of every version since 4.0, for files that do not name them.
pub(super) const COLUMNS: &str = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID";

struct Columns {
    position: [usize; 3],
    label: Option<usize>,
    /// How many are named. Newer versions add two without a name, of which
    /// the first is the position's status.
    width: usize,
}

impl Columns {
    fn of(list: &str) -> Option<Self> {
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        let column = |name: &str| names.iter().position(|n| n.eq_ignore_ascii_case(name));
        Some(Self {
            position: [column("x")?, column("y")?, column("z")?],
            label: column("label"),
            width: names.len(),
        })
    }

    fn position(&self, fields: &csv::StringRecord) -> Result<[f64; 3], String> {
        // 0 undefined, 1 being placed, 2 defined, 3 missing.
        let status = fields
            .get(self.width)
            .filter(|status| fields.len() == self.width + 2 && !status.is_empty());
        if status.is_some_and(|status| status != "2") {
            return Ok([f64::NAN; 3]);
        }
        let mut position = [0.0; 3];
        for (value, column) in position.iter_mut().zip(self.position) {
            let field = fields
                .get(column)
                .ok_or_else(|| format!("expected column {}, found {}", column + 1, fields.len()))?;
            *value = number(field)?;
        }
        Ok(position)
    }
}

/// The points of an `.fcsv` file; names are its labels.
pub(super) fn points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let mut points = Points::new(path);
    let (mut space, mut columns) = (None, Columns::of(COLUMNS));
    for (number, line) in (1..).zip(text.lines()) {
        let place = Place::Line(number);
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(value) = value_of(comment, "CoordinateSystem") {
                space = Some(space_of(value).map_err(|problem| points.bad(place, problem))?);
            } else if let Some(list) = value_of(comment, "columns") {
                let problem = || format!("the columns '{}' lack x, y or z", shortened(list));
                columns = Some(Columns::of(list).ok_or_else(|| points.bad(place, problem()))?);
            }
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        let (Some(space), Some(columns)) = (space, &columns) else {
            let problem = "no line '# CoordinateSystem = LPS' (or RAS) before the first point: \
                           without it left and right are unknown; add the right one";
            return Err(points.bad(place, problem.to_owned()));
        };
        let fields = fields(line).map_err(|problem| points.bad(place, problem))?;
        let position = columns
            .position(&fields)
            .map_err(|problem| points.bad(place, problem))?;
        let label = columns.label.and_then(|c| fields.get(c));
        points.push(label, position, space, place)?;
    }
    Ok(points.into_vec())
}

/// The value of a comment ` key = value`.
fn value_of<'a>(comment: &'a str, key: &str) -> Option<&'a str> {
    let (name, value) = comment.split_once('=')?;
    name.trim()
        .eq_ignore_ascii_case(key)
        .then_some(value.trim())
}

/// Names, or the numbers that 3D Slicer wrote before 4.11.
fn space_of(value: &str) -> Result<Space, String> {
    match value.to_ascii_uppercase().as_str() {
        "RAS" | "0" => Ok(Space::RasMm),
        "LPS" | "1" => Ok(Space::LpsMm),
        _ => Err(format!(
            "coordinate system '{}' is neither LPS (or 1) nor RAS (or 0)",
            shortened(value)
        )),
    }
}

/// The fields of one line. Lines are parsed one by one, so that an unbalanced quote in a
/// label affects only its own line.
fn fields(line: &str) -> Result<csv::StringRecord, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len() + 1)
        .from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    let found = reader.read_record(&mut record).map_err(|e| e.to_string())?;
    if found {
        Ok(record)
    } else {
        Err("no fields".to_owned())
    }
}
