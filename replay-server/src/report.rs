//! A shard's status in words and as JSON.

use proto::messages::shard_status::ShardStatus;

/// For programs.
#[must_use]
pub fn as_json(status: &ShardStatus) -> serde_json::Value {
    let summary = &status.summary;
    serde_json::json!({
        "shard": summary.shard,
        "shard_incarnation": summary.shard_incarnation,
        "run_id": status.run_id,
        "rows": summary.rows,
        "capacity": status.capacity,
        "mass": summary.mass,
        "inserted": summary.inserted,
        "insert_limit": status.insert_limit,
        "sampled": summary.sampled,
        "insert_blocked_s": summary.insert_blocked_s,
        "writers_waiting": summary.writers_waiting,
        "duplicates": status.duplicates,
        "gaps": status.gaps,
        "stale_updates": status.stale_updates,
        "refused_batches": status.refused_batches,
        "version": status.version,
        "next_row": status.next_row,
        "oldest_row_s": status.oldest_row_s,
        "insert_streams": status.insert_streams,
        "unacknowledged": status.unacknowledged,
        "journal": status.journal.as_ref().map(|journal| serde_json::json!({
            "durable": journal.durable,
            "segments": journal.segments,
            "bytes": journal.bytes,
            "commits": journal.commits,
            "busy_s": journal.busy_s,
            "longest_s": journal.longest_s,
            "queued_bytes": journal.queued_bytes,
            "queued_bytes_max": journal.queued_bytes_max,
            "failing": journal.failing,
        })),
    })
}

/// For people.
#[must_use]
pub fn as_text(status: &ShardStatus) -> String {
    let summary = &status.summary;
    format!(
        "shard {} of run {} (version {})\n\
         rows      {} of {}, mass {:.3}; the oldest came {:.1} s ago\n\
         inserted  {} of {} allowed; {} writers wait, {:.1} s waited in all\n\
         sampled   {}\n\
         streams   {} open; {} batches stored and not yet acknowledged\n\
         refused   {} batches; {} sent twice, {} never came; {} updates came too late",
        summary.shard,
        status.run_id.as_deref().unwrap_or("(none yet)"),
        status.version,
        summary.rows,
        status.capacity,
        summary.mass,
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
        "\njournal   rows below {} of {} are on disk, {:.1} of at most {:.1} MB on their way; {} segments, {:.1} MB; \
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
