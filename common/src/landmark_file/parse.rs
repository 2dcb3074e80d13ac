//! Bytes → points.

use std::collections::HashMap;
use std::path::Path;

use super::{LandmarkError, Point, Space};

/// The points of either format.
pub(super) fn points(bytes: &[u8], path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let not = |found| LandmarkError::NotLandmarks {
        path: path.to_owned(),
        found,
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = str::from_utf8(bytes).map_err(|_| not("not text (UTF-8)"))?;
    if let Some(found) = foreign(text) {
        return Err(not(found));
    }
    let first = content_lines(text).next().ok_or_else(|| not("empty"))?.1;
    if numbers(first).is_ok() {
        text_points(text, path)
    } else {
        csv_points(text, path)
    }
}

/// Formats that people have and that are told apart easily.
fn foreign(text: &str) -> Option<&'static str> {
    let start = text.trim_start();
    if start.starts_with("# Markups") {
        Some("a 3D Slicer .fcsv file")
    } else if start.starts_with("# vtk") {
        Some("a VTK file")
    } else if start.starts_with('{') || start.starts_with('<') {
        Some("JSON or XML")
    } else {
        None
    }
}

/// Lines with content and their numbers, from 1.
fn content_lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The numbers of one text line, or the piece that is none.
fn numbers(line: &str) -> Result<Vec<f64>, &str> {
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

fn text_points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let bad = |line, problem| LandmarkError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    content_lines(text)
        .map(|(line, content)| {
            let values = numbers(content)
                .map_err(|piece| bad(line, format!("'{piece}' is not a number")))?;
            let position = <[f64; 3]>::try_from(values.as_slice()).map_err(|_| {
                bad(
                    line,
                    format!("expected three numbers x,y,z, found {}", values.len()),
                )
            })?;
            let position = present(position).map_err(|problem| bad(line, problem))?;
            let position = position.filter(|p| *p != [0.0; 3]);
            Ok(Point {
                name: None,
                position,
                space: Space::Voxel,
                line,
            })
        })
        .collect()
}

/// `None` for a position with a NaN: a missing landmark.
fn present(position: [f64; 3]) -> Result<Option<[f64; 3]>, String> {
    if position.iter().any(|v| v.is_infinite()) {
        return Err("a position cannot be infinite".to_owned());
    }
    Ok(Some(position).filter(|p| p.iter().all(|v| !v.is_nan())))
}

/// Where the columns are.
struct Columns {
    name: Option<usize>,
    position: [usize; 3],
    space: Space,
}

impl Columns {
    /// The header's first known space: our own tables carry all three.
    fn of(header: &csv::StringRecord) -> Option<Self> {
        let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        let spaces = [
            ("ras_mm", Space::RasMm),
            ("lps_mm", Space::LpsMm),
            ("voxel", Space::Voxel),
        ];
        spaces.into_iter().find_map(|(suffix, space)| {
            let axis = |axis: &str| column(&format!("{axis}_{suffix}"));
            let position = [axis("x")?, axis("y")?, axis("z")?];
            Some(Self {
                name: column("name"),
                position,
                space,
            })
        })
    }
}

fn csv_points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let bad = |line, problem| LandmarkError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut columns: Option<(Columns, usize)> = None;
    let mut points = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            bad(
                error.position().map_or(0, csv::Position::line),
                error.to_string(),
            )
        })?;
        let line = record_line(text, &record);
        if record.iter().all(str::is_empty) {
            continue;
        }
        let Some((columns, width)) = &columns else {
            let header = record.iter().collect::<Vec<_>>().join(",");
            let found = Columns::of(&record).ok_or_else(|| LandmarkError::Header {
                path: path.to_owned(),
                line,
                header,
            })?;
            columns = Some((found, record.len()));
            continue;
        };
        if record.len() != *width {
            let problem = format!(
                "expected {width} columns as in the header, found {}",
                record.len()
            );
            return Err(bad(line, problem));
        }
        let point = csv_point(&record, columns, line).map_err(|problem| bad(line, problem))?;
        if let Some(name) = &point.name
            && let Some(before) = seen.insert(name.clone(), line)
        {
            return Err(bad(
                line,
                format!("'{name}' was already given at line {before}"),
            ));
        }
        points.push(point);
    }
    Ok(points)
}

/// The line of a record. The csv crate's position stands before any blank
/// lines that it skipped, so those are counted here.
fn record_line(text: &str, record: &csv::StringRecord) -> u64 {
    let Some(position) = record.position() else {
        return 0;
    };
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.get(start..).unwrap_or_default();
    let blank = rest
        .split_inclusive('\n')
        .take_while(|l| l.trim().is_empty() || l.starts_with('#'))
        .count();
    position.line() + blank as u64
}

fn csv_point(record: &csv::StringRecord, columns: &Columns, line: u64) -> Result<Point, String> {
    let mut position = [0.0; 3];
    for (value, &column) in position.iter_mut().zip(&columns.position) {
        *value = match record.get(column).unwrap_or_default() {
            "" => f64::NAN,
            field => field
                .parse()
                .map_err(|_| format!("'{field}' is not a number"))?,
        };
    }
    let name = columns
        .name
        .and_then(|c| record.get(c))
        .filter(|n| !n.is_empty());
    Ok(Point {
        name: name.map(str::to_owned),
        position: present(position)?,
        space: columns.space,
        line,
    })
}
