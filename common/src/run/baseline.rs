//! The mean-position baseline: each landmark's mean position in the training scans. Every error
//! is compared with it, because a prediction that is no better has learned nothing from the scan.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::durable::write_atomic;
use super::run_folder::RunFolderError;
use crate::imaging::dataset::mean_landmarks;
use crate::imaging::scan::Scan;

const FILE: &str = "mean_landmarks.json";

/// Mean positions over some training scans.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeanPositionBaseline {
    /// Number of scans.
    pub scans: usize,
    /// RAS mm per agent; `None` where no scan has the agent's landmark.
    pub ras_mm: Vec<Option<[f64; 3]>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    scans: usize,
    /// By landmark name.
    ras_mm: BTreeMap<String, Option<[f64; 3]>>,
}

impl MeanPositionBaseline {
    /// The baseline of `training` for a number of agents.
    #[must_use]
    pub fn new(training: &[Arc<Scan>], agents: usize) -> Self {
        let mut ras_mm = mean_landmarks(training);
        ras_mm.resize(agents, None);
        Self {
            scans: training.len(),
            ras_mm,
        }
    }

    /// Writes it into a run folder; `landmarks` are the agents' names.
    /// Fails when the file cannot be written.
    pub fn store(&self, run_dir: &Path, landmarks: &[String]) -> Result<(), RunFolderError> {
        let path = run_dir.join(FILE);
        let stored = Stored {
            scans: self.scans,
            ras_mm: landmarks.iter().cloned().zip(self.ras_mm.clone()).collect(),
        };
        match serde_json::to_string_pretty(&stored) {
            Ok(json) => Ok(write_atomic(&path, (json + "\n").as_bytes())?),
            Err(error) => Err(RunFolderError::Write {
                path,
                source: io::Error::other(error),
            }),
        }
    }

    /// Reads the baseline of a run folder for the requested landmarks; `None` where the run has
    /// stored none.
    /// Fails when the file cannot be read, or is damaged.
    pub fn load(run_dir: &Path, landmarks: &[String]) -> Result<Option<Self>, RunFolderError> {
        let path = run_dir.join(FILE);
        let unreadable = |why: String| RunFolderError::Read {
            path: path.clone(),
            why,
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let stored: Stored = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        let position = |name: &String| stored.ras_mm.get(name).copied().flatten();
        Ok(Some(Self {
            scans: stored.scans,
            ras_mm: landmarks.iter().map(position).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_stored_baseline_is_read_by_landmark_name() {
        let dir = tempfile::tempdir().unwrap();
        let baseline = MeanPositionBaseline {
            scans: 7,
            ras_mm: vec![Some([1.0, 2.0, 3.5]), None],
        };
        let none = MeanPositionBaseline::load(dir.path(), &names("A")).unwrap();
        assert_eq!(none, None);
        baseline.store(dir.path(), &names("A,B")).unwrap();
        let read = MeanPositionBaseline::load(dir.path(), &names("B,A,C")).unwrap();
        let read = read.unwrap();
        assert_eq!(read.scans, 7);
        assert_eq!(read.ras_mm, [None, Some([1.0, 2.0, 3.5]), None]);
    }

    #[test]
    fn what_release_0_1_stored_is_read_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let old = "{\n  \"scans\": 2,\n  \"ras_mm\": {\n    \"AC\": [1.0, -2.0, 3.0],\n    \"PC\": null\n  }\n}\n";
        std::fs::write(&file, old).unwrap();
        let read = MeanPositionBaseline::load(dir.path(), &names("AC,PC")).unwrap();
        let ras_mm = vec![Some([1.0, -2.0, 3.0]), None];
        assert_eq!(read, Some(MeanPositionBaseline { scans: 2, ras_mm }));
        std::fs::write(&file, &old[..30]).unwrap();
        let error = MeanPositionBaseline::load(dir.path(), &names("AC")).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
