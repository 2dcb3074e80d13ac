//! From publication to action, out of the actors' logs.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The message of the actor's line, at level debug.
const MESSAGE: &str = "first step with new weights";

#[derive(Debug, Deserialize)]
struct Line {
    message: String,
    version: Option<u64>,
    taken_ms: Option<f64>,
    acted_ms: Option<f64>,
}

/// Milliseconds of every version and actor.
#[derive(Debug, Default)]
pub struct Latencies {
    taken: Vec<f64>,
    acted: Vec<f64>,
    versions: BTreeSet<u64>,
    actors: usize,
}

/// Of a list of milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub p90: f64,
    pub max: f64,
    /// Values.
    pub count: usize,
    /// Values if every actor had acted with every version.
    pub possible: usize,
}

impl Latencies {
    /// Adds what one actor logged from `first` on: versions published before
    /// that were not measured.
    pub fn add(&mut self, log: &str, first: u64) {
        let lines = log
            .lines()
            .filter_map(|l| serde_json::from_str::<Line>(l).ok());
        for line in lines.filter(|l| l.message == MESSAGE) {
            let (Some(version), Some(taken), Some(acted)) =
                (line.version, line.taken_ms, line.acted_ms)
            else {
                continue;
            };
            if version >= first {
                self.versions.insert(version);
                self.taken.push(taken);
                self.acted.push(acted);
            }
        }
        self.actors += 1;
    }

    /// From the publication to the end of the first step.
    pub fn acted(&self) -> Result<Summary> {
        self.summary(&self.acted)
    }

    /// From the publication to the moment when the actor has them.
    pub fn taken(&self) -> Result<Summary> {
        self.summary(&self.taken)
    }

    fn summary(&self, values: &[f64]) -> Result<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted
            .last()
            .context("no actor acted with new weights: measure for longer")?;
        let at = |share: usize| sorted[(sorted.len() * share / 100).min(sorted.len() - 1)];
        Ok(Summary {
            median: at(50),
            p90: at(90),
            max,
            count: sorted.len(),
            possible: self.versions.len() * self.actors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_measured_versions_are_counted() {
        let log = |versions: &[u64]| {
            let lines = versions.iter().map(|v| {
                format!(
                    "{{\"message\":\"{MESSAGE}\",\"version\":{v},\"taken_ms\":{v},\"acted_ms\":{}.5}}\n",
                    v * 10
                )
            });
            lines.collect::<String>() + "{\"message\":\"acting\"}\nno json\n"
        };
        let mut latencies = Latencies::default();
        latencies.add(&log(&[1, 2, 3, 4]), 3);
        latencies.add(&log(&[3]), 3);
        let acted = latencies.acted().unwrap();
        assert_eq!((acted.median, acted.max), (30.5, 40.5));
        assert_eq!((acted.count, acted.possible), (3, 4));
        assert_eq!(latencies.taken().unwrap().p90, 4.0);
        assert!(Latencies::default().acted().is_err());
    }
}
