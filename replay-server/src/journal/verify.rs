//! Checks a stopped shard's journal without changing it.

use crate::journal::JournalError;
use crate::journal::disk::RealDisk;
use crate::journal::recover::{Mode, Recovered, Sink, recover};
use crate::journal::segment::Head;
use crate::journal::snapshot::{self, Snapshot};
use std::path::Path;

/// The contents of a journal.
#[derive(Debug)]
pub struct Verified {
    found: Recovered,
    /// Segments that should have been removed.
    stale: usize,
    shard: Option<u32>,
    /// One past the snapshot's last row, or what is wrong with the snapshot.
    snapshot: Option<Result<u64, String>>,
}

/// Reads all segments and the snapshot of a shard's folder.
pub fn verify(folder: &Path) -> Result<Verified, JournalError> {
    let mut number = ShardNumber(None);
    let mut found = recover(
        &RealDisk,
        folder,
        None,
        Mode::ReadOnly,
        usize::MAX,
        &mut number,
    )?;
    let path = snapshot::path(folder);
    let snapshot = match std::fs::read(&path) {
        Ok(bytes) => Some(Snapshot::from_bytes(&bytes).map(|s| s.outline)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(JournalError::disk("read", &path)(error)),
    };
    // Rows below this had left the table when the snapshot was written.
    let oldest = snapshot.as_ref().and_then(|s| s.as_ref().ok());
    let oldest = oldest.map_or(0, |outline| outline.end - outline.rows);
    Ok(Verified {
        stale: found.settle(oldest).len(),
        found,
        shard: number.0,
        snapshot: snapshot.map(|s| s.map(|outline| outline.end)),
    })
}

/// Records the shard's number and ignores the rows.
struct ShardNumber(Option<u32>);

impl Sink for ShardNumber {
    fn open(&mut self, head: &Head) -> Result<(), JournalError> {
        self.0 = Some(head.shard);
        Ok(())
    }
}

impl Verified {
    /// Whether nothing is damaged or lost but a torn end, which was never acknowledged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let snapshot = self.snapshot.as_ref().is_none_or(Result::is_ok);
        self.found.damage.is_empty() && self.found.lost_rows == 0 && snapshot
    }

    fn rows(&self) -> u64 {
        self.found.next_row - self.found.first_row - self.found.lost_rows
    }

    /// A JSON object for programs.
    #[must_use]
    pub fn as_json(&self) -> serde_json::Value {
        let found = &self.found;
        serde_json::json!({
            "shard": self.shard,
            "run_id": found.hello.as_ref().map(|hello| &hello.run_id),
            "sound": self.is_sound(),
            "rows": self.rows(),
            "first_row": found.first_row,
            "next_row": found.next_row,
            "segments": found.segments.len(),
            "stale_segments": self.stale,
            "bytes": found.segments.iter().map(|s| s.bytes).sum::<u64>(),
            "batches": found.batches,
            "writers": found.writers.all().len(),
            "lost_rows": found.lost_rows,
            "torn_bytes": found.torn_bytes,
            "snapshot_row": self.snapshot.as_ref().and_then(|s| s.as_ref().ok()),
            "damage": self.damage(),
        })
    }

    fn damage(&self) -> Vec<String> {
        let snapshot = self.snapshot.as_ref().and_then(|s| s.as_ref().err());
        let snapshot = snapshot.map(|why| format!("the snapshot of the priorities {why}"));
        self.found.damage.iter().cloned().chain(snapshot).collect()
    }

    /// Text for people.
    #[must_use]
    pub fn as_text(&self) -> String {
        let found = &self.found;
        let Some((hello, shard)) = found.hello.as_ref().zip(self.shard) else {
            return "no rows".to_owned() + &self.damage_text();
        };
        let mut text = format!(
            "shard {shard} of run {}\n\
             rows      {} from {} on, in {} batches of {} writers; {} were lost\n\
             segments  {}, {:.1} MB; {} torn bytes at the end",
            hello.run_id,
            self.rows(),
            found.first_row,
            found.batches,
            found.writers.all().len(),
            found.lost_rows,
            found.segments.len(),
            found.segments.iter().map(|s| s.bytes).sum::<u64>() as f64 / 1e6,
            found.torn_bytes,
        );
        text += &match &self.snapshot {
            Some(Ok(row)) => format!("\nsnapshot  priorities of the rows below {row}"),
            _ => "\nsnapshot  none: rows have their initial priorities".to_owned(),
        };
        if self.stale > 0 {
            text += &format!(
                "\nstale     {} segments that could not be removed in time; the next start removes them",
                self.stale
            );
        }
        text + &self.damage_text()
    }

    fn damage_text(&self) -> String {
        let lines = self.damage().into_iter();
        lines
            .map(|damage| format!("\ndamage    {damage}"))
            .collect()
    }
}
