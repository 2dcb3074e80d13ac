//! Detects the format of a landmark file.

use std::path::Path;

use super::points::not_landmarks;
use super::{LandmarkError, Point, fcsv, markups, table, text, vtk};
use crate::imaging::delimited::content_lines;

/// Parses the points of a file in any format.
///
/// The content decides. A name that ends in `.fcsv` counts only where a table
/// lacks the first line that 3D Slicer writes.
pub(super) fn points(bytes: &[u8], path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let points = any(bytes, path)?;
    if points.is_empty() {
        return Err(not_landmarks(path, "a file without a single point"));
    }
    Ok(points)
}

fn any(bytes: &[u8], path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"# vtk DataFile") {
        // A title may have any encoding; `vtk::points` refuses binary files.
        return vtk::points(&String::from_utf8_lossy(bytes), path);
    }
    let text =
        str::from_utf8(bytes).map_err(|_| not_landmarks(path, "not text (ASCII or UTF-8)"))?;
    let start = text.trim_start();
    match start.chars().next() {
        None => Err(not_landmarks(path, "empty")),
        Some('{') => markups::points(text, path),
        Some('[') => Err(not_landmarks(path, "a JSON list")),
        Some('<') => Err(not_landmarks(path, "XML or HTML")),
        Some(_) if start.starts_with("# Markups fiducial") => fcsv::points(text, path),
        Some(_) => lines(text, path),
    }
}

fn lines(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let Some((_, first)) = content_lines(text).next() else {
        return Err(not_landmarks(path, "empty"));
    };
    let named_fcsv = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("fcsv"));
    if named_fcsv {
        fcsv::points(text, path)
    } else if text::numbers(first).is_ok() {
        text::points(text, path)
    } else {
        table::points(text, path)
    }
}
