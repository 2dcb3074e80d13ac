//! The requested landmarks, selected from the landmark file of each scan.

use std::path::PathBuf;

use super::{DataWarning, Problem, WarningKind};
use crate::imaging::geometry::Geometry;
use crate::imaging::landmark_file::{LandmarkError, LandmarkFile};

/// Landmark files and the requested landmarks.
pub(super) struct Wanted {
    /// One per scan; `None` where it cannot be used, which is already reported as a problem.
    files: Vec<Option<LandmarkFile>>,
    ids: Vec<String>,
    pub(super) names: Vec<String>,
}

impl Wanted {
    /// Reads the files and looks up every id in each, collecting all problems.
    pub(super) fn read(paths: &[PathBuf], ids: &[String]) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut files: Vec<Option<LandmarkFile>> = Vec::with_capacity(paths.len());
        for path in paths {
            let file = LandmarkFile::read(path).map_err(|error| problems.push(error.into()));
            files.push(file.ok());
        }
        let all = || {
            files
                .iter()
                .flatten()
                .next()
                .map(LandmarkFile::ids)
                .unwrap_or_default()
        };
        let ids = if ids.is_empty() { all() } else { ids.to_vec() };
        for slot in &mut files {
            let Some(file) = slot else { continue };
            let unknown: Vec<_> = ids.iter().filter_map(|id| file.find(id).err()).collect();
            if !unknown.is_empty() {
                problems.extend(unknown.into_iter().map(Problem::Landmarks));
                *slot = None;
            }
        }
        let mut wanted = Self {
            files,
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
        let files = self.files.iter().flatten();
        let warnings = files.flat_map(|file| file.warnings.iter().map(move |text| (file, text)));
        warnings
            .map(|(file, text)| DataWarning {
                scan: file.path.clone(),
                kind: WarningKind::Landmarks(text.clone()),
            })
            .collect()
    }

    /// The name of an id in the files, which must agree.
    fn name(&self, id: &str, problems: &mut Vec<Problem>) -> String {
        let named = self.files.iter().flatten().filter_map(|file| {
            let name = file.find(id).ok()?.name()?.to_owned();
            Some((file.path.clone(), name))
        });
        let mut first: Option<(PathBuf, String)> = None;
        for (path, name) in named {
            match &first {
                None => first = Some((path, name)),
                Some((first_path, first_name)) if *first_name != name => {
                    problems.push(Problem::NamesDisagree {
                        id: id.to_owned(),
                        first: first_path.clone(),
                        first_name: first_name.clone(),
                        second: path,
                        second_name: name,
                    });
                }
                Some(_) => {}
            }
        }
        first.map_or_else(|| id.to_owned(), |(_, name)| name)
    }

    /// Voxel position of each wanted landmark in scan `number`.
    pub(super) fn locate(
        &self,
        number: usize,
        scan: &str,
        geometry: &Geometry,
    ) -> Result<Vec<Option<[f64; 3]>>, Vec<LandmarkError>> {
        let Some(file) = self.files.get(number).and_then(Option::as_ref) else {
            return Ok(Vec::new());
        };
        let mut positions = Vec::with_capacity(self.ids.len());
        let mut errors = Vec::new();
        for (id, name) in self.ids.iter().zip(&self.names) {
            let located = file
                .find(id)
                .and_then(|found| file.locate(found.point, name, scan, geometry));
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
