//! Landmarks named by their file: 3D Slicer saves one point list each.

use std::path::Path;

use super::LandmarkFile;
use crate::imaging::delimited::encoding::composed;

/// Names that 3D Slicer gives to point lists.
const DEFAULT_LISTS: [&str; 6] = [
    "F",
    "P",
    "Fiducial",
    "Fiducials",
    "MarkupsFiducial",
    "PointList",
];

/// What separates the parts of a file's name.
const SEPARATORS: [char; 4] = ['_', '-', '.', ' '];

impl LandmarkFile {
    /// Names the only point by the file, for a scan (its file's name without endings)
    /// that has several landmark files.
    ///
    /// A point without a name of its own (none, a number, 3D Slicer's `F-1`, or the
    /// file's name with a number) gets the file's name, without what it shares with the
    /// scan's: `s1_AC.mrk.json` of the scan `s1` is landmark `AC`. Other points stay.
    #[must_use]
    pub fn named_by_file(mut self, scan: &str) -> Self {
        let of_file = landmark_of(&self.path, scan);
        if let [point] = self.points.as_mut_slice()
            && is_default(point.name.as_deref(), &of_file)
        {
            point.name = Some(of_file);
        }
        self
    }
}

/// Whether a label is none that a person gave: absent, a number, or a list's name with
/// a number, where the list has a default name or the file's.
fn is_default(label: Option<&str>, of_file: &str) -> bool {
    let Some(label) = label else { return true };
    let (list, number) = label.rsplit_once(['-', '_']).unwrap_or((of_file, label));
    let mut lists = DEFAULT_LISTS.into_iter().chain([of_file]);
    number.parse::<u32>().is_ok() && lists.any(|name| name.eq_ignore_ascii_case(list))
}

/// The landmark of a file by its name: without endings and what it shares with the scan.
fn landmark_of(file: &Path, scan: &str) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let endings = [
        ".mrk.json",
        ".json",
        ".fcsv",
        ".csv",
        ".tsv",
        ".txt",
        ".vtk",
    ];
    let lower = name.to_ascii_lowercase();
    let ending = endings.iter().find(|ending| lower.ends_with(**ending));
    let stem = &name[..name.len() - ending.map_or(0, |ending| ending.len())];
    let shared: usize = stem
        .chars()
        .zip(scan.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum();
    // Only whole parts of the name are shared.
    let is_whole = shared == scan.len() && stem[shared..].starts_with(SEPARATORS);
    let end = match is_whole {
        true => shared,
        false => stem[..shared].rfind(SEPARATORS).map_or(0, |at| at + 1),
    };
    let rest = stem[end..].trim_matches(SEPARATORS);
    composed(if rest.is_empty() { stem } else { rest }).into_owned()
}
