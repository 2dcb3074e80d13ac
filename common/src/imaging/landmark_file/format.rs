//! Detects the format of a landmark file.

use std::path::Path;

use super::points::{Points, not_landmarks};
use super::{LandmarkError, LandmarkFile, fcsv, markups, table, text, vtk};
use crate::imaging::delimited::content_lines;
use crate::imaging::delimited::encoding::{decode, unix_lines};

/// Parses a file in any format.
///
/// The content decides. A name that ends in `.fcsv` counts only where a table
/// lacks the first line that 3D Slicer writes.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<LandmarkFile, LandmarkError> {
    const VTK: &str = "# vtk DataFile";
    let unmarked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if unmarked.starts_with(VTK.as_bytes()) {
        // A title may have any encoding; `vtk::points` refuses binary files.
        let text = unix_lines(String::from_utf8_lossy(unmarked).into_owned());
        return vtk::points(&text, path)?.finish();
    }
    let text = decode(bytes).map_err(|problem| LandmarkError::Read {
        path: path.to_owned(),
        problem: problem.to_string(),
    })?;
    let start = text.trim_start();
    let points = match start.chars().next() {
        None => Err(not_landmarks(path, "empty")),
        Some('{') => markups::points(&text, path),
        Some('[') => Err(not_landmarks(path, "a JSON list")),
        Some('<') => Err(not_landmarks(path, "XML or HTML")),
        Some(_) if start.starts_with("# Markups fiducial") => fcsv::points(&text, path),
        Some(_) if start.starts_with(VTK) => vtk::points(start, path),
        Some(_) => lines(&text, path),
    };
    points?.finish()
}

fn lines<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let Some((_, first)) = content_lines(text).next() else {
        return Err(not_landmarks(path, "empty"));
    };
    let named_fcsv = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("fcsv"));
    if named_fcsv {
        fcsv::points(text, path)
    } else if text::is_elastix(text) {
        text::elastix(text, path)
    } else if first.contains("OutputPoint =") {
        let found = "transformix's list of points before and after: write the three numbers of \
                     each line's OutputPoint below the lines 'point' and their count";
        Err(not_landmarks(path, found))
    } else if text::is_position(first) {
        text::points(text, path)
    } else {
        table::points(text, path)
    }
}
