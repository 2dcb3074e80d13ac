//! Legacy ASCII VTK polygonal data: the points, RAS mm unless the title declares LPS.
//!
//! The format has no field for the space. rl-medical negates x and y of such files
//! to get ITK's LPS, so their content is RAS. 3D Slicer writes `SPACE=LPS` or
//! `SPACE=RAS` into the title.

use std::path::Path;

use super::points::{Labels, Points, not_landmarks, shortened};
use super::{LandmarkError, Place, Space};

/// VTK's number types.
const TYPES: [&str; 11] = [
    "bit",
    "unsigned_char",
    "char",
    "unsigned_short",
    "short",
    "unsigned_int",
    "int",
    "unsigned_long",
    "long",
    "float",
    "double",
];

/// The points of the file's `POINTS` section, in any distribution over lines.
pub(super) fn points<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut lines = (1..).zip(text.lines());
    let (_version, title) = (lines.next(), lines.next());
    let space = match title {
        Some((_, title)) if title.to_ascii_uppercase().contains("SPACE=LPS") => Space::LpsMm,
        _ => Space::RasMm,
    };
    let mut words = lines.flat_map(|(line, content)| {
        let words = content.split_ascii_whitespace();
        words.map(move |word| (Place::Line(line), word))
    });
    let mut points = Points::new(path);
    match words.next() {
        Some((_, word)) if word.eq_ignore_ascii_case("ASCII") => {}
        Some((_, word)) if word.eq_ignore_ascii_case("BINARY") => {
            let found = "a binary VTK file (save it as ASCII legacy VTK)";
            return Err(not_landmarks(path, found));
        }
        _ => return Err(not_landmarks(path, "a VTK file without ASCII in line 3")),
    }
    for (expected, found) in [("DATASET", words.next()), ("POLYDATA", words.next())] {
        if !found.is_some_and(|(_, word)| word.eq_ignore_ascii_case(expected)) {
            return Err(not_landmarks(path, "a VTK file, but not of PolyData"));
        }
    }
    let Some((place, count)) = header(&mut words, &points)? else {
        return Err(not_landmarks(path, "a VTK file without POINTS"));
    };
    // The count is not trusted: memory grows with the points read.
    for index in 0..count {
        let mut position = [0.0; 3];
        let mut at = place;
        for value in &mut position {
            let Some((line, word)) = words.next() else {
                let problem = format!("POINTS declares {count}, but the file ends after {index}");
                return Err(points.bad(place, problem));
            };
            at = line;
            *value = word.parse().map_err(|_| {
                let word = shortened(word);
                let problem = format!("'{word}' is not a number (point {index} of {count})");
                points.bad(line, problem)
            })?;
        }
        points.push(Labels::default(), position, space, at)?;
    }
    Ok(points)
}

/// Finds `POINTS n type`: its location and n.
fn header<'a>(
    words: &mut impl Iterator<Item = (Place, &'a str)>,
    points: &Points<'_>,
) -> Result<Option<(Place, u64)>, LandmarkError> {
    let Some((place, _)) = words.find(|(_, word)| word.eq_ignore_ascii_case("POINTS")) else {
        return Ok(None);
    };
    let count = words.next().map_or("", |(_, word)| word);
    let kind = words.next().map_or("", |(_, word)| word);
    let known = TYPES.iter().any(|t| t.eq_ignore_ascii_case(kind));
    match count.parse() {
        Ok(count) if known => Ok(Some((place, count))),
        _ => {
            let (count, kind) = (shortened(count), shortened(kind));
            let problem =
                format!("expected POINTS, a count and a type, found 'POINTS {count} {kind}'");
            Err(points.bad(place, problem))
        }
    }
}
