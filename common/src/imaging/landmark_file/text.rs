//! Text without names: rl-medical's voxel indices, one per line, and elastix's points.

use std::path::Path;

use super::numbers::Numbers;
use super::points::{Labels, Points, shortened};
use super::{LandmarkError, Place, Space};
use crate::imaging::delimited::content_lines;

/// Brain files separate the numbers by commas, fetal ones by spaces. In both,
/// `0 0 0` marks a missing landmark: nobody marks the corner voxel.
pub(super) fn points<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut points = Points::new(path);
    let mut lines = Lines::new();
    for (line, content) in content_lines(text) {
        let place = Place::Line(line);
        let position = lines
            .position(content)
            .map_err(|problem| points.bad(place, problem))?;
        let missing = position == [0.0; 3];
        let position = if missing { [f64::NAN; 3] } else { position };
        points.push(Labels::default(), position, Space::Voxel, place)?;
    }
    Ok(points)
}

/// Whether a line without names may be the first one of [`points`].
pub(super) fn is_position(line: &str) -> bool {
    let letters = |c: char| c.is_alphabetic();
    Lines::new().position(line).is_ok()
        || line.contains(char::is_numeric) && !line.contains(letters)
}

/// The points of an elastix or transformix file: `point` (LPS mm in ITK's world) or
/// `index` (voxel), their count, and one of them per line. elastix takes a file
/// without that word as indices.
pub(super) fn elastix<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut points = Points::new(path);
    let mut lines = content_lines(text).peekable();
    let word = lines.next_if(|(_, word)| word.parse::<u64>().is_err());
    let space = match word {
        Some((_, word)) if word.eq_ignore_ascii_case("point") => Space::LpsMm,
        _ => Space::Voxel,
    };
    let (line, count) = lines.next().unwrap_or((1, ""));
    let Ok(count) = count.parse::<usize>() else {
        let problem = format!(
            "expected the number of points, found '{}'",
            shortened(count)
        );
        return Err(points.bad(Place::Line(line), problem));
    };
    let mut numbers = Lines::new();
    let (mut found, mut last) = (0, line);
    for (line, content) in lines {
        let place = Place::Line(line);
        let position = numbers
            .position(content)
            .map_err(|problem| points.bad(place, problem))?;
        points.push(Labels::default(), position, space, place)?;
        (found, last) = (found + 1, line);
    }
    if found != count {
        let problem = format!("the file declares {count} points, but has {found}");
        return Err(points.bad(Place::Line(last), problem));
    }
    Ok(points)
}

/// Whether text is elastix's: its word, or the number of the lines that follow.
pub(super) fn is_elastix(text: &str) -> bool {
    let mut lines = content_lines(text).map(|(_, line)| line);
    match lines.next() {
        Some(word)
            if ["point", "index"]
                .iter()
                .any(|w| word.eq_ignore_ascii_case(w)) =>
        {
            true
        }
        Some(count) => count.parse::<usize>() == Ok(lines.count()),
        None => false,
    }
}

/// Parses lines of three numbers.
struct Lines {
    /// Of the lines without commas between the numbers.
    numbers: Numbers,
}

impl Lines {
    fn new() -> Self {
        Self {
            numbers: Numbers::between(b' '),
        }
    }

    fn position(&mut self, line: &str) -> Result<[f64; 3], String> {
        let delimiter = delimiter(line);
        let pieces = pieces(line, delimiter);
        let numbers = match delimiter {
            b',' => &mut Numbers::between(b','),
            _ => &mut self.numbers,
        };
        let mut values = Vec::with_capacity(3);
        for piece in &pieces {
            if piece.is_empty() {
                return Err("'' is not a number".to_owned());
            }
            values.push(numbers.read(piece)?);
        }
        <[f64; 3]>::try_from(values.as_slice()).map_err(|_| {
            let cause = match pieces.len() {
                6 if delimiter == b',' => {
                    "; if a comma is the decimal sign, write a decimal point instead"
                }
                _ => "",
            };
            format!(
                "expected three numbers x,y,z, found {}{cause}",
                pieces.len()
            )
        })
    }
}

/// The delimiter of a line: a semicolon, a comma, or white space (as a space).
fn delimiter(line: &str) -> u8 {
    // `25,5 31,5 20,5`: spaces between numbers that have a decimal comma.
    let has_decimal_commas = || {
        let mut words = line.split_whitespace();
        line.split_whitespace().count() == 3
            && words.all(|word| !word.starts_with(',') && !word.ends_with(','))
    };
    if line.contains(';') {
        b';'
    } else if line.contains(',') && !has_decimal_commas() {
        b','
    } else {
        b' '
    }
}

/// The fields of a line, without empty ones at its end.
fn pieces(line: &str, delimiter: u8) -> Vec<&str> {
    if delimiter == b' ' {
        return line.split_whitespace().collect();
    }
    let mut pieces: Vec<&str> = line.split(char::from(delimiter)).map(str::trim).collect();
    while pieces.last().is_some_and(|last| last.is_empty()) {
        pieces.pop();
    }
    pieces
}
