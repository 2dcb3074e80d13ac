//! 3D Slicer's older `.fcsv`: a table whose comments name space and columns.

use std::path::Path;

use super::numbers::Numbers;
use super::points::{Labels, Points, Status, shortened, space_of};
use super::{LandmarkError, Place};

/// The columns of every version since 4.0, for files that do not name them.
pub(super) const COLUMNS: &str = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID";

struct Columns {
    /// A comma, or what a spreadsheet program put in its place.
    delimiter: u8,
    position: [usize; 3],
    label: Option<usize>,
    description: Option<usize>,
    /// How many are named. Newer versions add two without a name, of which
    /// the first is the position's status.
    width: usize,
}

impl Columns {
    fn of(list: &str) -> Option<Self> {
        let delimiter = if list.contains(';') { b';' } else { b',' };
        let names: Vec<&str> = list.split(char::from(delimiter)).map(str::trim).collect();
        let column = |name: &str| names.iter().position(|n| n.eq_ignore_ascii_case(name));
        Some(Self {
            delimiter,
            position: [column("x")?, column("y")?, column("z")?],
            label: column("label").or_else(|| column("name")),
            description: column("desc").or_else(|| column("description")),
            width: names.len(),
        })
    }

    fn position(
        &self,
        fields: &csv::StringRecord,
        numbers: &mut Numbers,
    ) -> Result<[f64; 3], String> {
        let mut position = [0.0; 3];
        for (value, column) in position.iter_mut().zip(self.position) {
            let field = fields
                .get(column)
                .ok_or_else(|| format!("expected column {}, found {}", column + 1, fields.len()))?;
            *value = numbers.read(field)?;
        }
        Ok(position)
    }

    fn status(&self, fields: &csv::StringRecord) -> Result<Status, String> {
        let status = fields.get(self.width);
        match status.filter(|_| fields.len() == self.width + 2) {
            None | Some("" | "2") => Ok(Status::Defined),
            Some("0") => Ok(Status::Undefined),
            Some("1") => Ok(Status::Preview),
            Some("3") => Ok(Status::Missing),
            Some(other) => Err(format!(
                "the status '{}' is none of 0 (undefined), 1 (preview), 2 (defined) and 3 (missing)",
                shortened(other)
            )),
        }
    }

    fn labels<'t>(&self, fields: &'t csv::StringRecord) -> Labels<'t> {
        let field = |column: Option<usize>| fields.get(column?);
        Labels {
            name: field(self.label),
            description: field(self.description),
        }
    }
}

/// The points of an `.fcsv` file; names are its labels.
pub(super) fn points<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut points = Points::new(path);
    let (mut space, mut columns) = (None, Columns::of(COLUMNS));
    let mut numbers = Numbers::between(b',');
    for (number, line) in (1..).zip(text.lines()) {
        let place = Place::Line(number);
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(value) = value_of(comment, "CoordinateSystem") {
                space = Some(space_of(value).map_err(|problem| points.bad(place, problem))?);
            } else if let Some(list) = value_of(comment, "columns") {
                let problem = || format!("the columns '{}' lack x, y or z", shortened(list));
                let found = Columns::of(list).ok_or_else(|| points.bad(place, problem()))?;
                numbers = Numbers::between(found.delimiter);
                columns = Some(found);
            }
            continue;
        }
        if line.trim().trim_matches([',', ';']).is_empty() {
            continue;
        }
        let (Some(space), Some(columns)) = (space, &columns) else {
            let problem = "no line '# CoordinateSystem = LPS' (or RAS) before the first point: \
                           without it left and right are unknown; add the right one";
            return Err(points.bad(place, problem.to_owned()));
        };
        let found = fields(line, columns.delimiter).and_then(|fields| {
            let status = columns.status(&fields)?;
            let position = match (columns.position(&fields, &mut numbers), status) {
                (Err(problem), Status::Defined) => return Err(problem),
                (position, _) => position.unwrap_or([f64::NAN; 3]),
            };
            Ok((status, position, fields))
        });
        let (status, position, fields) = found.map_err(|problem| points.bad(place, problem))?;
        let labels = columns.labels(&fields);
        points.push_control_point(labels, (status, position), true, space, place)?;
    }
    Ok(points)
}

/// The value of a comment ` key = value`.
fn value_of<'a>(comment: &'a str, key: &str) -> Option<&'a str> {
    let (name, value) = comment.split_once('=')?;
    // A spreadsheet program adds delimiters up to its widest row.
    let value = value.trim_end_matches([',', ';']).trim();
    name.trim().eq_ignore_ascii_case(key).then_some(value)
}

/// The fields of one line. Lines are parsed one by one, so that an unbalanced quote in a
/// label affects only its own line.
fn fields(line: &str, delimiter: u8) -> Result<csv::StringRecord, String> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
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
