//! A shard's numbers for Prometheus; docs/metrics.md says what each means.

use crate::service::shared::SharedShard;
use proto::messages::shard_status::{JournalStatus, ShardStatus};
use proto::transport::metrics::{Page, Source, Unit, number};
use std::sync::Arc;

/// Tells what a shard holds and does.
#[derive(Debug)]
pub struct ShardMetrics(Arc<SharedShard>);

impl ShardMetrics {
    /// Of this shard.
    #[must_use]
    pub fn new(shard: Arc<SharedShard>) -> Self {
        Self(shard)
    }
}

impl Source for ShardMetrics {
    fn tell(&self, page: &mut Page) {
        // A shard that cannot tell its status answers nobody else either.
        if let Ok(status) = self.0.status() {
            put(page, &status);
        }
    }
}

/// Puts a shard's status on the page.
pub fn put(page: &mut Page, status: &ShardStatus) {
    page.labelled("shard", &status.summary.shard.to_string(), |page| {
        table(page, status);
        traffic(page, status);
        if let Some(kept) = &status.journal {
            journal(page, status, kept);
        }
    });
}

fn table(page: &mut Page, s: &ShardStatus) {
    page.gauge(
        "landmarl_replay_rows",
        "Rows in the table",
        number(s.summary.rows),
    );
    page.gauge(
        "landmarl_replay_rows_capacity",
        "Rows that fit into the table",
        number(s.capacity),
    );
    page.gauge(
        "landmarl_replay_mass",
        "Sum of the priorities after the exponent",
        s.summary.mass,
    );
    page.gauge_in(
        Unit::Seconds,
        "landmarl_replay_oldest_row_age",
        "Time since the oldest row came; of rows of an earlier life since the start",
        s.oldest_row_s,
    );
}

fn traffic(page: &mut Page, s: &ShardStatus) {
    page.counter(
        "landmarl_replay_rows_inserted",
        "Rows inserted in this life",
        number(s.summary.inserted),
    );
    page.gauge(
        "landmarl_replay_rows_insert_limit",
        "Rows that the learner allows to be inserted in this life",
        number(s.insert_limit),
    );
    page.counter(
        "landmarl_replay_rows_sampled",
        "Rows drawn in this life",
        number(s.summary.sampled),
    );
    page.counter_in(
        Unit::Seconds,
        "landmarl_replay_insert_blocked",
        "Time that writers waited for credit, all together",
        s.summary.insert_blocked_s,
    );
    page.gauge(
        "landmarl_replay_writers_waiting",
        "Writers that wait for credit now",
        f64::from(s.summary.writers_waiting),
    );
    page.gauge(
        "landmarl_replay_insert_streams",
        "Open insert streams",
        number(s.insert_streams),
    );
    page.gauge(
        "landmarl_replay_batches_unacknowledged",
        "Batches stored and not yet acknowledged",
        number(s.unacknowledged),
    );
    page.counters(
        "landmarl_replay_batches_odd",
        "Batches sent twice, never seen, or refused for what was in them",
        "what",
        &[
            ("duplicate", number(s.duplicates)),
            ("missing", number(s.gaps)),
            ("refused", number(s.refused_batches)),
        ],
    );
    page.counter(
        "landmarl_replay_priorities_stale",
        "New priorities for rows that were gone",
        number(s.stale_updates),
    );
}

fn journal(page: &mut Page, s: &ShardStatus, kept: &JournalStatus) {
    page.gauge(
        "landmarl_replay_journal_rows_waiting",
        "Rows in the table that are not on the disk yet",
        number(s.next_row.saturating_sub(kept.durable)),
    );
    for (name, help, bytes) in [
        (
            "landmarl_replay_journal_queued",
            "Bytes of rows on their way to the disk",
            kept.queued_bytes,
        ),
        (
            "landmarl_replay_journal_queue_limit",
            "How many may be before inserts wait",
            kept.queued_bytes_max,
        ),
        (
            "landmarl_replay_journal_size",
            "Bytes of all segments",
            kept.bytes,
        ),
    ] {
        page.gauge_in(Unit::Bytes, name, help, number(bytes));
    }
    page.gauge(
        "landmarl_replay_journal_segments",
        "Segments",
        number(kept.segments),
    );
    page.counter(
        "landmarl_replay_journal_commits",
        "Groups brought to the disk",
        number(kept.commits),
    );
    page.counter_in(
        Unit::Seconds,
        "landmarl_replay_journal_busy",
        "Time of all commits",
        kept.busy_s,
    );
    page.gauge_in(
        Unit::Seconds,
        "landmarl_replay_journal_longest_commit",
        "Time of the longest commit",
        kept.longest_s,
    );
    page.gauge(
        "landmarl_replay_journal_failing",
        "1 while the disk refuses",
        f64::from(u8::from(kept.failing.is_some())),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ShardConfig;
    use proto::transport::metrics::Metrics;

    #[test]
    fn a_shard_tells_its_table_and_its_journal_where_it_has_one() {
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
            "landmarl_replay_batches_odd_total{shard=\"0\",what=\"missing\"} 0.0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("journal_failing{shard=\"1\"}"), "{text}");
    }
}
