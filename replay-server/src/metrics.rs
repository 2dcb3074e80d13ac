//! A shard's metrics: each with its name, unit, meaning and value.

use std::sync::Arc;

use proto::messages::status::{JournalStatus, ShardStatus};
use proto::transport::metrics::{Metric, Page, Source, Unit, by, counter, gauge};

use crate::service::shared::SharedShard;

/// Exports the metrics of a shard and its journal.
#[derive(Debug)]
pub struct ShardMetrics(Arc<SharedShard>);

impl ShardMetrics {
    #[must_use]
    pub fn new(shard: Arc<SharedShard>) -> Self {
        Self(shard)
    }
}

impl Source for ShardMetrics {
    fn export(&self, page: &mut Page) {
        // A shard whose status cannot be read serves nothing else either.
        let Ok(status) = self.0.status() else {
            return;
        };
        let number = status.summary().shard.to_string();
        page.labelled("shard", &number, |page| {
            page.read(SHARD, &status);
            if let Some(journal) = &status.journal {
                page.read(JOURNAL, journal);
            }
        });
    }
}

/// A table of metrics: kind, name, unit, help, healthy value (may be empty), value.
macro_rules! metrics {
    ($($kind:ident $name:literal $unit:ident $help:literal $healthy:literal |$r:ident| $value:expr;)*) => {
        &[$($kind($name, Unit::$unit, $help, $healthy, |$r| $value.into())),*]
    };
}

/// The metrics of a shard; counters start at zero with each incarnation.
pub const SHARD: &[Metric<ShardStatus>] = metrics! {
    gauge "landmarl_replay_rows" Rows "Rows in the table" "" |r| r.summary().rows;
    gauge "landmarl_replay_rows_capacity" Rows "Rows that fit into the table" "" |r| r.capacity;
    gauge "landmarl_replay_priority_sum" Number
        "Sum of the priorities after the exponent" "" |r| r.summary().priority_sum;
    gauge "landmarl_replay_oldest_row_age" Seconds
        "Time since the oldest row arrived; of rows of an earlier incarnation, since the start"
        "how long experience is kept" |r| r.oldest_row_s;
    counter "landmarl_replay_rows_inserted" Rows "Rows inserted" "rises" |r| r.summary().inserted;
    gauge "landmarl_replay_rows_insert_limit" Rows
        "Rows that the learner allows to be inserted" "" |r| r.insert_limit;
    counter "landmarl_replay_rows_sampled" Rows "Rows drawn" "rises" |r| r.summary().sampled;
    counter "landmarl_replay_insert_blocked" Seconds
        "Time that writers waited for credit, all together"
        "see the learner's limiter" |r| r.summary().insert_blocked_s;
    gauge "landmarl_replay_writers_waiting" Count
        "Writers that wait for credit now" "" |r| r.summary().writers_waiting;
    gauge "landmarl_replay_insert_streams" Count "Open insert streams" "" |r| r.insert_streams;
    gauge "landmarl_replay_batches_unacknowledged" Count
        "Batches stored and not yet acknowledged" "at most 8 per stream" |r| r.unacknowledged;
    counter "landmarl_replay_batches_odd" Count
        "Batches by `what`: `duplicate` (sent twice), `missing` (never arrived), `refused` (for their content)"
        "missing and refused: 0" |r| by("what", [
            ("duplicate", r.duplicates),
            ("missing", r.gaps),
            ("refused", r.refused_batches),
        ]);
    counter "landmarl_replay_priorities_stale" Rows
        "New priorities for rows that were gone" "few" |r| r.stale_updates;
    gauge "landmarl_replay_journal_rows_waiting" Rows "Rows in the table that are not on disk yet"
        "small" |r| r.journal.as_ref().map(|j| r.next_row.saturating_sub(j.durable));
};

/// The metrics of a shard's journal.
pub const JOURNAL: &[Metric<JournalStatus>] = metrics! {
    gauge "landmarl_replay_journal_queued" Bytes
        "Bytes of rows queued for the disk" "far below the limit" |j| j.queued_bytes;
    gauge "landmarl_replay_journal_queue_limit" Bytes
        "Queued bytes from which on inserts wait" "" |j| j.queued_bytes_max;
    gauge "landmarl_replay_journal_size" Bytes
        "Size of all segments" "flat once the table is full" |j| j.bytes;
    gauge "landmarl_replay_journal_segments" Count
        "Segments" "flat once the table is full" |j| j.segments;
    counter "landmarl_replay_journal_commits" Count
        "Groups of batches written and synced" "" |j| j.commits;
    counter "landmarl_replay_journal_busy" Seconds
        "Time of all commits" "its rate well below 1" |j| j.busy_s;
    gauge "landmarl_replay_journal_longest_commit" Seconds
        "Time of the longest commit" "" |j| j.longest_s;
    gauge "landmarl_replay_journal_failing" Flag "1 while writes fail" "0" |j| j.failing.is_some();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ShardConfig;
    use proto::transport::metrics::Metrics;

    #[test]
    fn a_shard_exports_its_table_and_its_journal_where_it_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let kept = crate::JournalConfig::new(&dir.path().join("kept"));
        let metrics = Metrics::default();
        for (shard, journal) in [(0, Some(kept)), (1, None)] {
            let config = ShardConfig {
                shard,
                capacity: 77,
                journal,
                ..ShardConfig::default()
            };
            let shard = Arc::new(SharedShard::new(config).unwrap());
            metrics.add(ShardMetrics::new(shard));
        }
        let text = metrics.text().unwrap();
        for line in [
            "landmarl_replay_rows_capacity{shard=\"1\"} 77.0\n",
            "landmarl_replay_journal_failing{shard=\"0\"} 0.0\n",
            "landmarl_replay_journal_rows_waiting{shard=\"0\"} 0.0\n",
            "landmarl_replay_batches_odd_total{shard=\"0\",what=\"missing\"} 0.0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        for absent in ["journal_failing{shard=\"1\"}", "rows_waiting{shard=\"1\"}"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
    }
}
