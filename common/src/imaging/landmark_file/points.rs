//! Collects points and applies the checks that all formats share.

use std::collections::HashMap;
use std::path::Path;

use super::{LandmarkError, Place, Point, Space};

/// More points than this are a surface, not landmarks.
pub(super) const MAX_POINTS: usize = 10_000;

/// The points so far.
pub(super) struct Points<'a> {
    path: &'a Path,
    all: Vec<Point>,
    seen: HashMap<String, Place>,
}

impl<'a> Points<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self {
            path,
            all: Vec::new(),
            seen: HashMap::new(),
        }
    }

    /// Adds a point; a NaN among its coordinates marks it as missing.
    ///
    /// An infinite position, a repeated name (one of the two could never be
    /// selected) and too many points are errors.
    pub(super) fn push(
        &mut self,
        name: Option<&str>,
        position: [f64; 3],
        space: Space,
        place: Place,
    ) -> Result<(), LandmarkError> {
        if self.all.len() == MAX_POINTS {
            let found = "a surface or a table of more than 10,000 points";
            return Err(not_landmarks(self.path, found));
        }
        if position.iter().any(|v| v.is_infinite()) {
            let problem = "a position cannot be infinite".to_owned();
            return Err(self.bad(place, problem));
        }
        let name = name
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .map(str::to_owned);
        if let Some(name) = &name
            && let Some(before) = self.seen.insert(name.clone(), place)
        {
            let name = shortened(name);
            let problem = match before {
                Place::Line(line) => format!("'{name}' was already given at line {line}"),
                Place::ControlPoint(markup, point) => format!(
                    "'{name}' was already given by markup {markup}, control point {point}; \
                     rename one, or keep the markups in files of their own"
                ),
            };
            return Err(self.bad(place, problem));
        }
        self.all.push(Point {
            name,
            position: Some(position).filter(|p| p.iter().all(|v| !v.is_nan())),
            space,
            place,
        });
        Ok(())
    }

    /// An error at a location in the file.
    pub(super) fn bad(&self, place: Place, problem: String) -> LandmarkError {
        LandmarkError::Entry {
            path: self.path.to_owned(),
            place,
            problem,
        }
    }

    pub(super) fn into_vec(self) -> Vec<Point> {
        self.all
    }
}

/// The file is not a landmark file; `found` describes it.
pub(super) fn not_landmarks(path: &Path, found: &'static str) -> LandmarkError {
    LandmarkError::NotLandmarks {
        path: path.to_owned(),
        found,
    }
}

/// A part of a file for a message, shortened to its beginning.
pub(super) fn shortened(text: &str) -> String {
    const LETTERS: usize = 120;
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parses a number of a table or text; an empty field is missing.
pub(super) fn number(field: &str) -> Result<f64, String> {
    match field {
        "" => Ok(f64::NAN),
        field => field.parse().map_err(|_| {
            let hint = if field.replace(',', ".").parse::<f64>().is_ok() {
                "; write a decimal point, not a comma"
            } else {
                ""
            };
            format!("'{}' is not a number{hint}", shortened(field))
        }),
    }
}
