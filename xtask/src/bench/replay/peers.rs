//! Reverb and cpprb on the same shapes, in a Python environment of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Options;
use super::latency::Measure;
use super::results::Results;
use crate::workspace::{Workspace, cache_folder};
use crate::{command, venv};

/// Bytes of a row with G = 1, H = 4, which is what our clients send.
const ROW_BYTES: u32 = 104;

/// Who is compared with, and whether it is a service that several clients can use.
const PEERS: [(&str, bool); 2] = [("reverb", true), ("cpprb", false)];

/// One figure of a peer, as `bench/replay_peers.py` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Its name.
    pub peer: String,
    /// Its version.
    pub version: String,
    /// insert, sample or update.
    pub op: String,
    /// Which of the peer's ways of doing it.
    pub api: String,
    /// Clients at once.
    pub clients: u32,
    /// Rows per batch.
    pub batch: u32,
    /// Rows in the table.
    pub rows_held: u64,
    /// Rows per second.
    pub rows_per_s: f64,
    /// Of one batch, as the other times.
    pub p50_ms: Option<f64>,
    /// 99 of 100 batches took no longer.
    pub p99_ms: Option<f64>,
    /// 999 of 1000.
    pub p999_ms: Option<f64>,
    /// What was asked for, to tell whether it is there already.
    #[serde(default)]
    pub asked: Option<Asked>,
}

/// What a peer was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    rows: u64,
    batch: u32,
    clients: u32,
    seconds: u32,
}

/// Measures what the file does not hold yet.
pub fn measure(
    workspace: &Workspace,
    options: &Options,
    scratch: Option<&Path>,
    results: &mut Results,
) -> Result<()> {
    let mut missing = Vec::new();
    for (peer, serves) in PEERS {
        let alone = [1];
        for &clients in if serves { &options.clients[..] } else { &alone } {
            let asked = Asked {
                rows: options.rows,
                batch: options.batch,
                clients,
                seconds: options.seconds,
            };
            let there = |record: &PeerRecord| record.peer == peer && record.asked == Some(asked);
            if !results.peers().iter().any(there) {
                missing.push((peer, asked));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let python = environment(workspace, &options.python, scratch)?;
    for (index, &(peer, asked)) in missing.iter().enumerate() {
        println!(
            "[peer {}/{}] {peer}, {} clients",
            index + 1,
            missing.len(),
            asked.clients
        );
        for mut record in ask(workspace, &python, peer, asked)? {
            println!(
                "  {} {}: {:.0} rows/s",
                record.op, record.api, record.rows_per_s
            );
            record.asked = Some(asked);
            results.add_peer(record)?;
        }
    }
    Ok(())
}

fn ask(workspace: &Workspace, python: &Path, peer: &str, asked: Asked) -> Result<Vec<PeerRecord>> {
    let mut command = Command::new(python);
    command
        .arg(workspace.root().join("bench/replay_peers.py"))
        .arg(peer)
        .args(["--rows", &asked.rows.to_string()])
        .args(["--batch", &asked.batch.to_string()])
        .args(["--row-bytes", &ROW_BYTES.to_string()])
        .args(["--clients", &asked.clients.to_string()])
        .args(["--seconds", &asked.seconds.to_string()]);
    let records = parse(&command::read(&mut command)?)?;
    if records.is_empty() {
        bail!("{peer} measured nothing");
    }
    Ok(records)
}

/// The lines that are results; libraries like to say other things too.
fn parse(printed: &str) -> Result<Vec<PeerRecord>> {
    printed
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| {
            serde_json::from_str(line)
                .with_context(|| format!("bench/replay_peers.py printed {line}"))
        })
        .collect()
}

/// The interpreter of an environment with exactly the packages that
/// `bench/replay_peers.txt` names; installed once per user, and anew when the
/// list changes.
fn environment(workspace: &Workspace, base: &Path, scratch: Option<&Path>) -> Result<PathBuf> {
    let list = workspace.root().join("bench/replay_peers.txt");
    let parent = scratch.map_or_else(cache_folder, |folder| Ok(folder.to_owned()))?;
    venv::python(base, &list, &parent, "py-peers").context("without the peers: --no-peers")
}

impl PeerRecord {
    /// As ours.
    pub fn measure(&self) -> Measure {
        let ms = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Measure {
            rows_per_s: self.rows_per_s,
            p50_ms: ms(self.p50_ms),
            p99_ms: ms(self.p99_ms),
            p999_ms: ms(self.p999_ms),
            max_ms: f64::NAN,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn record(op: &str, api: &str, clients: u32, rows_per_s: f64) -> PeerRecord {
        PeerRecord {
            peer: "reverb".to_owned(),
            version: "0.14.0".to_owned(),
            op: op.to_owned(),
            api: api.to_owned(),
            clients,
            batch: 256,
            rows_held: 1000,
            rows_per_s,
            p50_ms: Some(1.0),
            p99_ms: None,
            p999_ms: None,
            asked: None,
        }
    }

    #[test]
    fn results_are_told_from_chatter() {
        let line = r#"{"peer":"reverb","version":"0.14.0","op":"insert","api":"writer",
            "clients":4,"batch":256,"rows_held":1000,"rows_per_s":5.0,"p50_ms":1.0,
            "p99_ms":null,"p999_ms":null,"extra":1}"#
            .replace('\n', "");
        let printed = format!("[reverb] Starting server\n{line}\n");
        assert_eq!(
            parse(&printed).unwrap(),
            [record("insert", "writer", 4, 5.0)]
        );
        let error = parse("{\"peer\": 1}\n").unwrap_err().to_string();
        assert!(error.contains("replay_peers.py printed {\"peer\": 1}"));
    }
}
