//! What a shard holds and does, for people and for the learner.

use crate::error::ProtocolError;
use crate::messages::sample::{ShardSummary, required_summary};
use crate::wire;

/// A shard's answer to `Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardStatus {
    /// Rows, mass and counters.
    pub summary: ShardSummary,
    /// Rows that fit.
    pub capacity: u64,
    /// Rows that may be inserted in total in this life.
    pub insert_limit: u64,
    /// Batches recognised as sent before.
    pub duplicates: u64,
    /// Batches that were never seen: sequence numbers skipped.
    pub gaps: u64,
    /// Priority updates for rows that were gone.
    pub stale_updates: u64,
    /// Batches refused because of what was in them.
    pub refused_batches: u64,
    /// The server's version.
    pub version: String,
    /// The run it belongs to; none before the first hello.
    pub run_id: Option<String>,
    /// The number of the next row, over all lives: the journal's position.
    pub next_row: u64,
    /// What the journal does; none where rows are kept in memory only.
    pub journal: Option<JournalStatus>,
    /// Seconds since the oldest row came, up to a 256th of the table too many;
    /// of rows from before this life: since its start.
    pub oldest_row_s: f64,
    /// Open insert streams.
    pub insert_streams: u64,
    /// Batches that are stored and not yet acknowledged.
    pub unacknowledged: u64,
}

/// What a shard's journal does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalStatus {
    /// Rows with lower numbers are on the disk.
    pub durable: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Groups brought to the disk.
    pub commits: u64,
    /// Seconds that they took in all.
    pub busy_s: f64,
    /// Seconds of the longest of them.
    pub longest_s: f64,
    /// Why the disk refuses, while it does.
    pub failing: Option<String>,
    /// Bytes of rows on their way to the disk.
    pub queued_bytes: u64,
    /// How many may be before inserts wait.
    pub queued_bytes_max: u64,
}

impl From<JournalStatus> for wire::JournalStatus {
    fn from(status: JournalStatus) -> Self {
        Self {
            durable: status.durable,
            segments: status.segments,
            bytes: status.bytes,
            commits: status.commits,
            busy_s: status.busy_s,
            longest_s: status.longest_s,
            failing: status.failing.unwrap_or_default(),
            queued_bytes: status.queued_bytes,
            queued_bytes_max: status.queued_bytes_max,
        }
    }
}

impl From<wire::JournalStatus> for JournalStatus {
    fn from(status: wire::JournalStatus) -> Self {
        Self {
            durable: status.durable,
            segments: status.segments,
            bytes: status.bytes,
            commits: status.commits,
            busy_s: status.busy_s,
            longest_s: status.longest_s,
            failing: Some(status.failing).filter(|text| !text.is_empty()),
            queued_bytes: status.queued_bytes,
            queued_bytes_max: status.queued_bytes_max,
        }
    }
}

impl From<ShardStatus> for wire::ShardStatus {
    fn from(status: ShardStatus) -> Self {
        Self {
            summary: Some(status.summary.into()),
            capacity: status.capacity,
            insert_limit: status.insert_limit,
            duplicates: status.duplicates,
            gaps: status.gaps,
            stale_updates: status.stale_updates,
            refused_batches: status.refused_batches,
            version: status.version,
            run_id: status.run_id.unwrap_or_default(),
            next_row: status.next_row,
            journal: status.journal.map(Into::into),
            oldest_row_s: status.oldest_row_s,
            insert_streams: status.insert_streams,
            unacknowledged: status.unacknowledged,
        }
    }
}

impl TryFrom<wire::ShardStatus> for ShardStatus {
    type Error = ProtocolError;

    fn try_from(status: wire::ShardStatus) -> Result<Self, ProtocolError> {
        Ok(Self {
            summary: required_summary(status.summary)?,
            capacity: status.capacity,
            insert_limit: status.insert_limit,
            duplicates: status.duplicates,
            gaps: status.gaps,
            stale_updates: status.stale_updates,
            refused_batches: status.refused_batches,
            version: status.version,
            run_id: Some(status.run_id).filter(|id| !id.is_empty()),
            next_row: status.next_row,
            journal: status.journal.map(Into::into),
            oldest_row_s: status.oldest_row_s,
            insert_streams: status.insert_streams,
            unacknowledged: status.unacknowledged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::sample::tests::summary;

    #[test]
    fn status_reads_back_with_and_without_a_run() {
        for run_id in [None, Some("skulls-1".to_owned())] {
            let status = ShardStatus {
                summary: summary(),
                capacity: 100,
                insert_limit: 50,
                duplicates: 1,
                gaps: 2,
                stale_updates: 3,
                refused_batches: 4,
                version: "0.1.0".into(),
                next_row: 77,
                journal: run_id.clone().map(|failing| JournalStatus {
                    durable: 70,
                    segments: 2,
                    bytes: 9000,
                    commits: 5,
                    busy_s: 0.5,
                    longest_s: 0.25,
                    failing: Some(failing),
                    queued_bytes: 300,
                    queued_bytes_max: 1000,
                }),
                oldest_row_s: 7.5,
                insert_streams: 2,
                unacknowledged: 6,
                run_id,
            };
            assert_eq!(
                ShardStatus::try_from(wire::ShardStatus::from(status.clone())),
                Ok(status)
            );
        }
        assert_eq!(
            ShardStatus::try_from(wire::ShardStatus::default()),
            Err(ProtocolError::Missing("summary"))
        );
    }
}
