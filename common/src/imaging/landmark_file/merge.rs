//! The landmarks of one scan from several files, as 3D Slicer saves one point list each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::points::shortened;
use super::{LandmarkError, LandmarkFile, Point};
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
    /// The landmarks of the scan `scan` (its file's name without endings) from several
    /// files.
    ///
    /// A single point of a file without a name of its own (none, a number, 3D Slicer's
    /// `F-1`, or the file's name with a number) has the file's name, without what it
    /// shares with the scan's: `s1_AC.mrk.json` of the scan `s1` is landmark `AC`.
    ///
    /// An error names points with the same name, and those without a name in files of
    /// several points: the order of files would number them. `folder` stands for the
    /// files where an error is about all of them.
    pub fn merge(folder: &Path, scan: &str, files: Vec<Self>) -> Result<Self, LandmarkError> {
        let mut all = Self {
            path: folder.to_owned(),
            points: Vec::new(),
            warnings: Vec::new(),
        };
        let mut seen: HashMap<String, PathBuf> = HashMap::new();
        for file in files {
            let path = &file.path;
            let bad = |point: &Point, problem: String| LandmarkError::Entry {
                path: path.clone(),
                place: point.place,
                problem,
            };
            let of_file = landmark_of(path, scan);
            let is_single = file.points.len() == 1;
            let name_of_file = path.file_name().unwrap_or_default().display();
            let warnings = file.warnings.iter();
            all.warnings
                .extend(warnings.map(|text| format!("{name_of_file}: {text}")));
            for mut point in file.points {
                if is_single && is_default(point.name.as_deref(), &of_file) {
                    point.name = Some(of_file.clone());
                }
                let Some(name) = point.name.clone() else {
                    let problem = "a point without a name, in one of several files of a scan: \
                                   give it one";
                    return Err(bad(&point, problem.to_owned()));
                };
                if let Some(before) = seen.insert(name.clone(), path.clone()) {
                    let name = shortened(&name);
                    let problem = format!("'{name}' was already given by '{}'", before.display());
                    return Err(bad(&point, problem));
                }
                point.file = Some(path.clone());
                all.points.push(point);
            }
        }
        Ok(all)
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
