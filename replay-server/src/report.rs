//! A shard's status as text.

use proto::messages::status::ShardStatus;

/// The status as text for people.
#[must_use]
pub fn as_text(status: &ShardStatus) -> String {
    let summary = status.summary();
    format!(
        "shard {} of run {} (version {})\n\
         rows      {} of {}, priority sum {:.3}; the oldest arrived {:.1} s ago\n\
         inserted  {} of {} allowed; {} writers wait, {:.1} s waited in all\n\
         sampled   {}\n\
         streams   {} open; {} batches stored and not yet acknowledged\n\
         refused   {} batches; {} sent twice, {} missing; {} updates too late",
        summary.shard,
        status.run_id.as_deref().unwrap_or("(none yet)"),
        status.version,
        summary.rows,
        status.capacity,
        summary.priority_sum,
        status.oldest_row_s,
        summary.inserted,
        status.insert_limit,
        summary.writers_waiting,
        summary.insert_blocked_s,
        summary.sampled,
        status.insert_streams,
        status.unacknowledged,
        status.refused_batches,
        status.duplicates,
        status.gaps,
        status.stale_updates,
    ) + &journal_text(status)
}

fn journal_text(status: &ShardStatus) -> String {
    let Some(journal) = &status.journal else {
        return "\njournal   none: rows are in memory only".to_owned();
    };
    let failing = journal.failing.as_deref();
    format!(
        "\njournal   rows below {} of {} are on disk, {:.1} of at most {:.1} MB queued; {} segments, {:.1} MB; \
         {} commits, {:.1} ms each, {:.1} ms the longest{}",
        journal.durable,
        status.next_row,
        journal.queued_bytes as f64 / 1e6,
        journal.queued_bytes_max as f64 / 1e6,
        journal.segments,
        journal.bytes as f64 / 1e6,
        journal.commits,
        1e3 * journal.busy_s / (journal.commits.max(1)) as f64,
        1e3 * journal.longest_s,
        failing.map_or(String::new(), |why| format!("\nFAILING   {why}")),
    )
}
