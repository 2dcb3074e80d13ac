//! Collects points and applies the checks that all formats share.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::{LandmarkError, LandmarkFile, Place, Point, Space};
use crate::imaging::delimited::encoding::composed;

/// More points than this are a surface, not landmarks.
pub(super) const MAX_POINTS: usize = 10_000;

/// The words of a file that name a point.
#[derive(Default, Clone, Copy)]
pub(super) struct Labels<'t> {
    pub name: Option<&'t str>,
    pub description: Option<&'t str>,
}

/// 3D Slicer's status of a control point.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// To be placed, but not placed yet.
    Undefined,
    /// Follows the mouse pointer; programs that find landmarks write it, too.
    Preview,
    #[default]
    Defined,
    /// Not to be seen in the scan.
    Missing,
}

/// The points so far.
pub(super) struct Points<'a> {
    path: &'a Path,
    all: Vec<Point>,
    seen: HashMap<String, Place>,
    /// Points with a likely mistake, by their kind.
    notes: [(Note, Vec<String>); 4],
}

/// A likely mistake in points.
#[derive(Clone, Copy, PartialEq)]
enum Note {
    /// Some coordinates are missing.
    Partial,
    /// The status is "preview"; the position is used.
    Preview,
    /// The status is "preview", and the position is where 3D Slicer creates points.
    Unplaced,
    /// The status tells that there is no position, but there is one.
    Unused,
}

impl Note {
    fn text(self, points: &str) -> String {
        match self {
            Self::Partial => {
                format!("some coordinates of {points} are missing: counted as missing")
            }
            Self::Preview => format!(
                "the status of {points} is 'preview', but there is a position, which is used; set \
                 the status to 'defined' where it is right, or to 'undefined'"
            ),
            Self::Unplaced => format!(
                "the status of {points} is 'preview' at 0 0 0, as of points that were never \
                 placed: counted as missing; set the status to 'defined' where it is right"
            ),
            Self::Unused => format!(
                "the status of {points} is 'undefined' or 'missing', but there is a position: \
                 counted as missing; set the status to 'defined' to use it"
            ),
        }
    }
}

impl<'a> Points<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        let kinds = [Note::Partial, Note::Preview, Note::Unplaced, Note::Unused];
        Self {
            path,
            all: Vec::new(),
            seen: HashMap::new(),
            notes: kinds.map(|kind| (kind, Vec::new())),
        }
    }

    /// Adds a point; a NaN among its coordinates marks it as missing.
    ///
    /// An infinite position, a repeated name (one of the two could never be
    /// selected) and too many points are errors.
    pub(super) fn push(
        &mut self,
        labels: Labels<'_>,
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
        let word = |text: Option<&str>| {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            text.map(|text| composed(text).into_owned())
        };
        let name = word(labels.name);
        if let Some(name) = &name
            && let Some(before) = self.seen.insert(name.clone(), place)
        {
            return Err(self.bad(place, given_before(name, before)));
        }
        let missing = position.iter().filter(|v| v.is_nan()).count();
        if missing == 1 || missing == 2 {
            self.note(Note::Partial, name.as_deref());
        }
        self.all.push(Point {
            name,
            description: word(labels.description),
            position: Some(position).filter(|_| missing == 0),
            space,
            place,
        });
        Ok(())
    }

    /// Adds a control point of 3D Slicer, whose status decides whether it counts.
    ///
    /// Only a status without a position makes a point missing there. 3D Slicer's own
    /// `.mrk.json` has positions of defined points alone, so another program wrote any
    /// other. Its `.fcsv` has one for every point: it may be the one before the point
    /// was taken away, so `leftovers` are no mistake.
    pub(super) fn push_control_point(
        &mut self,
        labels: Labels<'_>,
        (status, position): (Status, [f64; 3]),
        leftovers: bool,
        space: Space,
        place: Place,
    ) -> Result<(), LandmarkError> {
        let is_there = position.iter().all(|v| v.is_finite());
        let note = match status {
            Status::Preview if position == [0.0; 3] => Some(Note::Unplaced),
            Status::Preview if is_there => Some(Note::Preview),
            Status::Undefined | Status::Missing if is_there && !leftovers => Some(Note::Unused),
            _ => None,
        };
        if let Some(note) = note {
            self.note(note, labels.name);
        }
        let counts = status == Status::Defined || note == Some(Note::Preview);
        let position = if counts { position } else { [f64::NAN; 3] };
        self.push(labels, position, space, place)
    }

    /// Notes a likely mistake in the next point.
    fn note(&mut self, note: Note, name: Option<&str>) {
        let name = match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => format!("'{}'", shortened(name)),
            None => format!("point {}", self.all.len() + 1),
        };
        let mut kinds = self.notes.iter_mut();
        if let Some((_, points)) = kinds.find(|(kind, _)| *kind == note) {
            points.push(name);
        }
    }

    /// An error at a location in the file.
    pub(super) fn bad(&self, place: Place, problem: String) -> LandmarkError {
        LandmarkError::Entry {
            path: self.path.to_owned(),
            place,
            problem,
        }
    }

    /// The file's landmarks; there is at least one.
    pub(super) fn finish(self) -> Result<LandmarkFile, LandmarkError> {
        if self.all.is_empty() {
            return Err(not_landmarks(self.path, "a file without a single point"));
        }
        let notes = self.notes.iter().filter(|(_, points)| !points.is_empty());
        Ok(LandmarkFile {
            path: self.path.to_owned(),
            points: self.all,
            warnings: notes
                .map(|(note, points)| note.text(&some_of(points)))
                .collect(),
        })
    }
}

/// A few words of a list: `'A', 'B', 'C' and 5 more`.
pub(super) fn some_of(list: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = list[..list.len().min(SHOWN)].join(", ");
    match list.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where a name that is given twice was first.
fn given_before(name: &str, before: Place) -> String {
    let name = shortened(name);
    match before {
        Place::Line(line) => format!("'{name}' was already given at line {line}"),
        Place::ControlPoint(markup, point) => format!(
            "'{name}' was already given by markup {markup}, control point {point}; \
             rename one, or keep the markups in files of their own"
        ),
    }
}

/// The file is not a landmark file; `found` describes it.
pub(super) fn not_landmarks(path: &Path, found: &'static str) -> LandmarkError {
    LandmarkError::NotLandmarks {
        path: path.to_owned(),
        found,
    }
}

/// Names, or the numbers that 3D Slicer wrote before 4.11.
pub(super) fn space_of(value: &str) -> Result<Space, String> {
    match value.to_ascii_uppercase().as_str() {
        "RAS" | "0" => Ok(Space::RasMm),
        "LPS" | "1" => Ok(Space::LpsMm),
        _ => Err(format!(
            "coordinate system '{}' is neither LPS (or 1) nor RAS (or 0)",
            shortened(value)
        )),
    }
}

/// A part of a file for a message: its beginning, with control characters escaped.
pub(super) fn shortened(text: &str) -> String {
    const LETTERS: usize = 120;
    let mut letters = text.chars();
    let mut short = String::new();
    for c in letters.by_ref().take(LETTERS) {
        match c.is_control() {
            true => short.extend(c.escape_default()),
            false => short.push(c),
        }
    }
    if letters.next().is_some() {
        short.push('…');
    }
    short
}
