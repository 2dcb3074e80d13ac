//! The requested landmarks, selected from the landmark files of each scan.

use std::path::{Path, PathBuf};

use super::{DataWarning, Problem, WarningKind, unknown};
use crate::imaging::geometry::Geometry;
use crate::imaging::landmark_file::{LandmarkError, LandmarkFile, MatchedBy, Selected};
use crate::imaging::nifti_io::bare_name;

/// Landmark files and the requested landmarks.
pub(super) struct Wanted {
    /// One per scan; `None` where it cannot be used, which is already reported as a problem.
    scans: Vec<Option<Files>>,
    ids: Vec<String>,
    pub(super) names: Vec<String>,
}

/// The landmark files of one scan: usually one, at least one.
struct Files(Vec<LandmarkFile>);

impl Files {
    /// Reads all files of a scan, which must hold different landmarks. A file with a single
    /// unnamed landmark names it, where the scan has several or its name has one word more.
    fn read(image: &Path, paths: &[PathBuf], problems: &mut Vec<Problem>) -> Option<Self> {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let scan = bare_name(&name).unwrap_or(&name);
        let mut files: Vec<LandmarkFile> = Vec::with_capacity(paths.len());
        let before = problems.len();
        for path in paths {
            match LandmarkFile::read(path) {
                Ok(file) if paths.len() > 1 || adds_to_name(path, scan) => {
                    files.push(file.named_by_file(scan));
                }
                Ok(file) => files.push(file),
                Err(error) => problems.push(error.into()),
            }
        }
        for (number, second) in files.iter().enumerate() {
            let names = second.points.iter().filter_map(|p| p.name.as_deref());
            for name in names {
                let has = |file: &&LandmarkFile| {
                    file.points.iter().any(|p| p.name.as_deref() == Some(name))
                };
                if let Some(first) = files[..number].iter().find(has) {
                    problems.push(Problem::NamedTwice {
                        name: name.to_owned(),
                        first: first.path.clone(),
                        second: second.path.clone(),
                    });
                }
            }
        }
        (problems.len() == before && !files.is_empty()).then_some(Self(files))
    }

    /// All ids, file by file.
    fn ids(&self) -> Vec<String> {
        self.0.iter().flat_map(LandmarkFile::ids).collect()
    }

    /// The point with an id, and its file. Where a scan has several files, only names count.
    fn find(&self, id: &str) -> Result<(&LandmarkFile, Selected<'_>), LandmarkError> {
        if let [file] = self.0.as_slice() {
            return Ok((file, file.find(id)?));
        }
        let found = self
            .0
            .iter()
            .filter_map(|file| Some((file, file.find(id).ok()?)));
        let mut named = found.filter(|(_, selected)| selected.by != MatchedBy::Index);
        named.next().ok_or_else(|| LandmarkError::UnknownId {
            path: self.0[0].path.clone(),
            id: id.to_owned(),
            valid: format!(
                "the landmarks {} together with the scan's other files",
                self.ids().join(", ")
            ),
            suggestion: String::new(),
        })
    }
}

/// Whether a file's name is the scan's with a word more: `s1_AC.mrk.json` of `s1`.
fn adds_to_name(path: &Path, scan: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix(scan);
    rest.is_some_and(|rest| rest.starts_with(['_', '-', ' ']))
}

impl Wanted {
    /// Reads the files of each scan and looks up every id in each, collecting all problems.
    pub(super) fn read(
        images: &[PathBuf],
        landmarks: &[Vec<PathBuf>],
        ids: &[String],
    ) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let files = images.iter().zip(landmarks);
        let files = files.map(|(image, paths)| Files::read(image, paths, &mut problems));
        let mut scans: Vec<Option<Files>> = files.collect();
        let all = || {
            scans
                .iter()
                .flatten()
                .next()
                .map(Files::ids)
                .unwrap_or_default()
        };
        let ids = if ids.is_empty() { all() } else { ids.to_vec() };
        let mut all_unknown = Vec::new();
        for slot in &mut scans {
            let Some(files) = slot else { continue };
            let unknown: Vec<_> = ids.iter().filter_map(|id| files.find(id).err()).collect();
            if !unknown.is_empty() {
                all_unknown.extend(unknown);
                *slot = None;
            }
        }
        let (single, groups) = unknown::grouped(all_unknown, scans.len());
        problems.extend(single.into_iter().map(Problem::Landmarks));
        let groups = groups.into_iter().map(Box::new);
        problems.extend(groups.map(Problem::UnknownLandmarks));
        let mut wanted = Self {
            scans,
            ids,
            names: Vec::new(),
        };
        wanted.names = wanted
            .ids
            .iter()
            .map(|id| wanted.name(id, &mut problems))
            .collect();
        (wanted, problems)
    }

    /// The warnings of all files.
    pub(super) fn warnings(&self) -> Vec<DataWarning> {
        let files = self.scans.iter().flatten().flat_map(|files| &files.0);
        let warnings = files.flat_map(|file| file.warnings.iter().map(move |text| (file, text)));
        warnings
            .map(|(file, text)| DataWarning {
                scan: file.path.clone(),
                kind: WarningKind::Landmarks(text.clone()),
            })
            .collect()
    }

    /// The name of an id in the files, which must agree on it, and on whether it is
    /// a name or a number.
    fn name(&self, id: &str, problems: &mut Vec<Problem>) -> String {
        let found = self
            .scans
            .iter()
            .flatten()
            .filter_map(|files| files.find(id).ok());
        let found: Vec<(&LandmarkFile, Selected<'_>)> = found.collect();
        let numbered = found.iter().find(|(_, s)| s.by == MatchedBy::Index);
        let named = found.iter().find(|(_, s)| s.by != MatchedBy::Index);
        if let (Some((named, _)), Some((numbered, _))) = (named, numbered) {
            problems.push(Problem::NameAndNumber {
                id: id.to_owned(),
                named: named.path.clone(),
                numbered: numbered.path.clone(),
            });
            return id.to_owned();
        }
        let mut named = found
            .iter()
            .filter_map(|(file, selected)| Some((&file.path, selected.name()?)));
        let Some((first_path, first_name)) = named.next() else {
            return id.to_owned();
        };
        let others = named.filter(|(_, name)| *name != first_name);
        problems.extend(others.map(|(path, name)| Problem::NamesDisagree {
            id: id.to_owned(),
            first: first_path.clone(),
            first_name: first_name.to_owned(),
            second: path.clone(),
            second_name: name.to_owned(),
        }));
        first_name.to_owned()
    }

    /// Voxel position of each wanted landmark in scan `number`.
    pub(super) fn locate(
        &self,
        number: usize,
        scan: &str,
        geometry: &Geometry,
    ) -> Result<Vec<Option<[f64; 3]>>, Vec<LandmarkError>> {
        let Some(files) = self.scans.get(number).and_then(Option::as_ref) else {
            return Ok(Vec::new());
        };
        let mut positions = Vec::with_capacity(self.ids.len());
        let mut errors = Vec::new();
        for (id, name) in self.ids.iter().zip(&self.names) {
            let located = files
                .find(id)
                .and_then(|(file, found)| file.locate(found.point, name, scan, geometry));
            match located {
                Ok(position) => positions.push(position),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(positions)
        } else {
            Err(errors)
        }
    }
}
