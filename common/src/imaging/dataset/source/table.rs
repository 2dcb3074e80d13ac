//! A manifest as a table: one scan per row, with a header.

use std::path::{Path, PathBuf};

use super::{Entry, SourceError, Split};
use crate::imaging::delimited::{self, content_lines};

/// What to do about a row without a landmark file.
const EXPECTED: &str = "names no landmark file; fill in the column 'landmarks'";

/// Whether the first line is a header with a column for scans.
pub(super) fn is_table(text: &str) -> bool {
    let header = content_lines(text).next().map_or("", |(_, line)| line);
    let mut fields = header.split([',', ';', '\t']);
    fields.any(|field| {
        let field = field.trim().trim_matches('"');
        field.eq_ignore_ascii_case("image")
    })
}

/// Between the landmark files of one scan that complete each other.
const SEVERAL: char = '|';

struct Columns {
    image: usize,
    landmarks: usize,
    split: Option<usize>,
    fold: Option<usize>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Option<Self> {
        let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        Some(Self {
            image: column("image")?,
            landmarks: column("landmarks")?,
            split: column("split"),
            fold: column("fold"),
        })
    }
}

/// Name of the validation split in manifests of older versions.
pub(super) const FORMER_NAME: &str = "selection";

pub(super) fn warn_former_name(manifest: &Path) {
    tracing::warn!(
        manifest = %manifest.display(),
        "split \"{FORMER_NAME}\" is called \"validation\" now; it is read as that"
    );
}

/// The rows of a table with columns `image`, `landmarks` and, optionally,
/// `split` and `fold`; an error lists all problems.
pub(super) fn entries(text: &str, path: &Path) -> Result<Vec<Entry>, Vec<SourceError>> {
    let bad = |line: Option<u64>, problem: String| SourceError::Entry {
        path: path.to_owned(),
        place: line.map_or(String::new(), |line| format!(":{line}")),
        problem,
    };
    let mut columns = None;
    let mut former_name = false;
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for row in delimited::rows(text) {
        let row = row.map_err(|(line, problem)| vec![bad(Some(line), problem)])?;
        let (line, record) = (row.line, row.fields);
        let Some(columns) = &columns else {
            let problem = "the header lacks a column 'landmarks'; accepted are image, landmarks, \
                           split (train, validation or test) and fold";
            let lacks = || vec![bad(Some(line), problem.to_owned())];
            columns = Some(Columns::of(&record).ok_or_else(lacks)?);
            continue;
        };
        former_name |= columns
            .split
            .and_then(|column| record.get(column))
            .is_some_and(|word| word.eq_ignore_ascii_case(FORMER_NAME));
        match entry(&record, columns) {
            Ok(entry) => entries.push(Entry {
                place: format!(":{line}"),
                ..entry
            }),
            Err(problem) => problems.push(bad(Some(line), problem)),
        }
    }
    if former_name {
        warn_former_name(path);
    }
    if problems.is_empty() {
        Ok(entries)
    } else {
        Err(problems)
    }
}

fn entry(record: &csv::StringRecord, columns: &Columns) -> Result<Entry, String> {
    let field = |column: usize| record.get(column).unwrap_or_default();
    let optional = |column: Option<usize>| column.map(field).filter(|f| !f.is_empty());
    let image = field(columns.image);
    if image.is_empty() {
        return Err("names no scan in the column 'image'".to_owned());
    }
    let landmarks = Some(field(columns.landmarks)).filter(|f| !f.is_empty());
    let landmarks = landmarks.into_iter().flat_map(|cell| cell.split(SEVERAL));
    let landmarks = landmarks.map(str::trim).filter(|file| !file.is_empty());
    let landmarks: Vec<PathBuf> = landmarks.map(PathBuf::from).collect();
    Ok(Entry {
        merge: true,
        fold: optional(columns.fold).map(fold).transpose()?,
        expected: EXPECTED.to_owned(),
        ..Entry::found(
            image.into(),
            landmarks,
            optional(columns.split).map(split).transpose()?,
        )
    })
}

/// Parses a fold; tables with empty cells are often written with `1.0`.
pub(super) fn fold(word: &str) -> Result<u32, String> {
    let number = word.strip_suffix(".0").unwrap_or(word);
    let wrong = |_| format!("fold '{word}' is not a whole number from 0");
    number.parse().map_err(wrong)
}

/// Parses a split in a cell or key.
pub(super) fn split(word: &str) -> Result<Split, String> {
    Split::of(word).ok_or_else(|| format!("split '{word}' is none of train, validation and test"))
}
