//! The constant guess: where a landmark is on average in the training scans.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use common::imaging::dataset::mean_landmarks;
use common::imaging::scan::Scan;
use common::run::durable::write_atomic;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FILE: &str = "mean_landmarks.json";

/// Per agent: mean world position, and what it comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guess {
    /// Per agent: RAS mm; `None` where no training scan shows its landmark.
    pub ras_mm: Vec<Option<[f64; 3]>>,
    /// What it comes from, for people.
    pub from: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// Training scans.
    scans: usize,
    /// Mean position by landmark name, RAS mm; null where no scan shows it.
    ras_mm: BTreeMap<String, Option<[f64; 3]>>,
}

impl Guess {
    /// Of these training scans.
    #[must_use]
    pub fn of(training: &[Arc<Scan>], names: &[String], from: String) -> Self {
        let mut ras_mm = mean_landmarks(training);
        ras_mm.resize(names.len(), None);
        Self {
            ras_mm,
            from: Some(from),
        }
    }

    /// Keeps it in the run folder, for later evaluations.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, folder: &Path, names: &[String], scans: usize) -> anyhow::Result<()> {
        let ras_mm = names.iter().cloned().zip(self.ras_mm.clone()).collect();
        let json = serde_json::to_string_pretty(&Stored { scans, ras_mm })? + "\n";
        write_atomic(&folder.join(FILE), json.as_bytes())?;
        Ok(())
    }

    /// What a run folder keeps, for the landmarks asked for; nothing where there is none.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn stored(folder: &Path, names: &[String]) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let Ok(text) = std::fs::read_to_string(&path) else {
            return Ok(Self::default());
        };
        let stored: Stored =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let of = |name: &String| stored.ras_mm.get(name).copied().flatten();
        Ok(Self {
            ras_mm: names.iter().map(of).collect(),
            from: Some(format!(
                "the {} training scans of {}",
                stored.scans,
                folder.display()
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_stored_guess_is_read_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let guess = Guess {
            ras_mm: vec![Some([1.0, 2.0, 3.5]), None],
            from: None,
        };
        guess.store(&folder, &names("A,B"), 7).unwrap();
        let read = Guess::stored(&folder, &names("B,A,C")).unwrap();
        assert_eq!(read.ras_mm, [None, Some([1.0, 2.0, 3.5]), None]);
        assert!(read.from.unwrap().contains("the 7 training scans of"));
        assert_eq!(
            Guess::stored(dir.path(), &names("A")).unwrap(),
            Guess::default()
        );
    }
}
