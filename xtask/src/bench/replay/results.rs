//! The file of results: one JSON object per line, appended as each is there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::latency::Measure;
use super::peers::PeerRecord;
use super::processor::Cores;

/// What the filled shards take, all together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Resident before the first row.
    pub resident_bytes_empty: u64,
    /// Resident once filled.
    pub resident_bytes: u64,
    /// Journals on disk once filled; none without journals.
    pub disk_bytes: Option<u64>,
}

/// One figure of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// By operation: one, or the three of a mixed load.
    pub parts: BTreeMap<String, Measure>,
    /// What the shards take.
    #[serde(flatten)]
    pub held: Held,
    /// Resident after this load.
    pub resident_bytes_after: u64,
    /// Journals on disk after this load.
    pub disk_bytes_after: Option<u64>,
    /// Who used the processors.
    pub usage: Cores,
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line {
    Replay(Record),
    Peer(PeerRecord),
}

/// All results, of this run and those before it.
#[derive(Debug)]
pub struct Results {
    file: File,
    records: Vec<Record>,
    peers: Vec<PeerRecord>,
}

impl Results {
    /// Reads what there is; the file is made anew if `fresh`.
    pub fn open(path: &Path, fresh: bool) -> Result<Self> {
        let shown = path.display();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{shown} cannot be made"))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("{shown} cannot be written"))?;
        if fresh {
            file.set_len(0)?;
        }
        let text = fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
        let mut results = Self {
            file,
            records: Vec::new(),
            peers: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line).with_context(|| {
                let number = index + 1;
                format!("{shown}, line {number} is no result of this version; --fresh begins anew")
            })?;
            results.keep(line);
        }
        Ok(results)
    }

    fn keep(&mut self, line: Line) {
        match line {
            Line::Replay(record) => self.records.push(record),
            Line::Peer(record) => self.peers.push(record),
        }
    }

    /// Whether a figure is there already.
    pub fn has(&self, case: Case) -> bool {
        self.find(case).is_some()
    }

    /// The figure, the newest if there are several.
    pub fn find(&self, case: Case) -> Option<&Record> {
        self.records.iter().rev().find(|record| record.case == case)
    }

    /// Ours, in the order of measuring.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The peers'.
    pub fn peers(&self) -> &[PeerRecord] {
        &self.peers
    }

    /// Appends one of ours.
    pub fn add(&mut self, record: Record) -> Result<()> {
        self.append(Line::Replay(record))
    }

    /// Appends one of a peer.
    pub fn add_peer(&mut self, record: PeerRecord) -> Result<()> {
        self.append(Line::Peer(record))
    }

    /// In one write: a bench that is stopped leaves whole lines.
    fn append(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .context("a result cannot be written")?;
        self.keep(line);
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bench::replay::case::{Ack, Group, Operation};

    pub fn record(operation: Operation, rows_per_s: f64) -> Record {
        let measure = Measure {
            rows_per_s,
            p50_ms: 1.0,
            p99_ms: 2.0,
            p999_ms: 3.0,
            max_ms: 4.0,
        };
        let group = Group {
            shards: 1,
            clients: 4,
            ack: Ack::Memory,
            rows: 1000,
            batch: 256,
            seconds: 5,
        };
        Record {
            case: Case { group, operation },
            parts: BTreeMap::from([(operation.name().to_owned(), measure)]),
            held: Held {
                resident_bytes_empty: 10,
                resident_bytes: 110_010,
                disk_bytes: None,
            },
            resident_bytes_after: 120_000,
            disk_bytes_after: Some(9),
            usage: Cores {
                all: 2.0,
                shards: 1.0,
                clients: 0.5,
                others: 0.25,
            },
        }
    }

    #[test]
    fn a_second_run_finds_what_the_first_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/results.jsonl");
        let (one, two) = (
            record(Operation::Insert, 5.0),
            record(Operation::Sample, 6.0),
        );
        Results::open(&path, false)
            .unwrap()
            .add(one.clone())
            .unwrap();
        let mut again = Results::open(&path, false).unwrap();
        assert!(again.has(one.case) && !again.has(two.case));
        again.add(two.clone()).unwrap();
        let last = Results::open(&path, false).unwrap();
        assert_eq!(last.records(), [one, two]);
        assert_eq!(Results::open(&path, true).unwrap().records(), []);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_foreign_file_is_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        fs::write(&path, "{\"a\": 1}\n").unwrap();
        let error = format!("{:#}", Results::open(&path, false).unwrap_err());
        assert!(
            error.contains("line 1") && error.contains("--fresh"),
            "{error}"
        );
    }
}
