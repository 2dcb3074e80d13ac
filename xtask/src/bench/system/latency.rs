//! From publication to action, out of the actors' logs.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Messages of the actor's lines, at level debug.
const RECEIVED: &str = "new weights";
const ACTED: &str = "first step with new weights";

#[derive(Debug, Deserialize)]
struct Line {
    message: String,
    version: Option<u64>,
    /// Of the first message.
    received_ms: Option<f64>,
    /// Of the second one.
    begun_ms: Option<f64>,
    taken_ms: Option<f64>,
    acted_ms: Option<f64>,
}

/// Milliseconds from the publication, of every version and actor.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Whole, and checked.
    received: Vec<f64>,
    /// The step before is done.
    begun: Vec<f64>,
    /// The network is read.
    taken: Vec<f64>,
    /// The first step with them is done.
    acted: Vec<f64>,
    versions: BTreeSet<u64>,
    actors: usize,
}

/// From the publication to the end of each part of the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stages {
    /// The actor has all bytes, and has checked them.
    pub received: Summary,
    /// It is done with the step before.
    pub begun: Summary,
    /// It has read the network.
    pub taken: Summary,
    /// It is done with the first step with them.
    pub acted: Summary,
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
        for line in lines {
            let Some(version) = line.version.filter(|v| *v >= first) else {
                continue;
            };
            match (line.message.as_str(), line.received_ms, line.acted_ms) {
                (RECEIVED, Some(received), _) => {
                    self.versions.insert(version);
                    self.received.push(received);
                }
                (ACTED, _, Some(acted)) => {
                    self.begun.extend(line.begun_ms);
                    self.taken.extend(line.taken_ms);
                    self.acted.push(acted);
                }
                _ => {}
            }
        }
        self.actors += 1;
    }

    /// From the publication on.
    pub fn stages(&self) -> Result<Stages> {
        Ok(Stages {
            received: self.summary(&self.received)?,
            begun: self.summary(&self.begun)?,
            taken: self.summary(&self.taken)?,
            acted: self.summary(&self.acted)?,
        })
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
                    "{{\"message\":\"{RECEIVED}\",\"version\":{v},\"received_ms\":{v}}}\n\
                     {{\"message\":\"{ACTED}\",\"version\":{v},\"begun_ms\":{v},\"taken_ms\":{v},\"acted_ms\":{}.5}}\n",
                    v * 10
                )
            });
            lines.collect::<String>() + "{\"message\":\"acting\"}\nno json\n"
        };
        let mut latencies = Latencies::default();
        latencies.add(&log(&[1, 2, 3, 4]), 3);
        latencies.add(&log(&[3]), 3);
        let Stages {
            received,
            begun,
            taken,
            acted,
        } = latencies.stages().unwrap();
        assert_eq!((acted.median, acted.max), (30.5, 40.5));
        assert_eq!((acted.count, acted.possible), (3, 4));
        assert_eq!((received.p90, begun.p90, taken.p90), (4.0, 4.0, 4.0));
        assert!(Latencies::default().stages().is_err());
    }
}
