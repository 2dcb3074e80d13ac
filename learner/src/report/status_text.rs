//! A run's status in words and as JSON, for `landmarl status` and `learner status`.

use proto::messages::evaluator::Evaluation;
use proto::messages::learner_status::{ActorStatus, LearnerStatus, ShardLink, WEIGHTS_AGE_BOUNDS};
use proto::transport::channel;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use serde_json::{Value, json};

use crate::report::bottleneck::bottleneck;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] proto::transport::endpoint::AddressError),
    /// Nobody answers, or refuses to.
    #[error(
        "{address} does not answer: {why}; is a learner running there? (`learner run`, or `landmarl train` for all in one)"
    )]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// What came instead.
        why: String,
    },
    /// It answers what is no status.
    #[error("{address} answers what this version does not understand: {source}")]
    Unreadable {
        /// Who was asked.
        address: String,
        /// What is wrong.
        source: proto::error::ProtocolError,
    },
}

/// Asks the learner at `address`; for one host's actors and evaluators alone
/// where `host` is not empty.
///
/// # Errors
/// When it cannot be reached or understood.
pub async fn ask(
    address: &str,
    security: &Security,
    host: &str,
) -> Result<LearnerStatus, StatusError> {
    let mut client = channel::learner_client(security.connect(address, Role::Learner)?);
    let host = host.to_owned();
    let request = wire::LearnerStatusRequest { host };
    let reply = unary(request, CALL_DEADLINE, |r| client.status(r)).await;
    let reply = reply.map_err(|status| StatusError::NoAnswer {
        address: address.to_owned(),
        why: reason(&status),
    })?;
    LearnerStatus::try_from(reply).map_err(|source| StatusError::Unreadable {
        address: address.to_owned(),
        source,
    })
}

/// Joined and expected actors.
fn joined(s: &LearnerStatus) -> usize {
    s.actors.iter().filter(|a| a.alive).count()
}

/// One JSON object.
#[must_use]
pub fn as_json(s: &LearnerStatus) -> Value {
    let actors: Vec<Value> = s.actors.iter().map(actor_json).collect();
    let shards: Vec<Value> = s.shards.iter().map(shard_json).collect();
    let evaluators: Vec<Value> = s
        .evaluators
        .iter()
        .map(|e| json!({ "host": e.host, "heard_s": e.heard_s, "evaluating": e.evaluating }))
        .collect();
    json!({
        "run": s.run_id, "over": s.over, "version": s.version,
        "updates": s.updates, "updates_total": s.updates_total,
        "updates_per_s": s.pace.updates_per_s, "elapsed_s": s.elapsed_s, "left_s": s.left_s,
        "env_steps_per_s": s.pace.env_steps_per_s,
        "weights_version": s.weights_version, "weights_age_s": s.weights_age_s,
        "samples_per_insert": s.samples_per_insert, "limiter": s.limiter,
        "train_wait_share": s.pace.train_wait_share, "limited_share": s.pace.limited_share,
        "collate_share": s.pace.collate_share, "rows": s.rows, "min_rows": s.min_rows,
        "rows_by_weights_age": rows_by_age(s).into_iter().map(|(label, rows)| (label, json!(rows)))
            .collect::<serde_json::Map<_, _>>(),
        "actors_joined": joined(s), "actors_expected": s.actors_expected,
        "limits": bottleneck(s),
        "last_evaluation": s.last_evaluation.map(evaluation_json),
        "best_evaluation": s.best_evaluation.map(evaluation_json),
        "actors": actors, "shards": shards, "evaluators": evaluators,
    })
}

fn actor_json(a: &ActorStatus) -> Value {
    json!({
        "actor": a.writer.actor, "incarnation": a.writer.incarnation, "restarts": a.restarts,
        "host": a.host, "alive": a.alive, "state": state(a), "heartbeat_age_s": a.heartbeat_age_s,
        "env_steps": a.env_steps, "env_steps_per_s": a.env_steps_per_s,
        "exploration": a.exploration, "blocked_share": a.blocked_share,
        "weights_version": a.weights_version, "weights_age_s": a.weights_age_s,
        "weights_latency_s": a.weights_latency_s, "rows_dropped": a.rows_dropped,
    })
}

fn shard_json(l: &ShardLink) -> Value {
    let s = l.summary;
    json!({
        "address": l.address, "alive": l.alive, "silent_s": l.silent_s, "why": l.why,
        "restarts": l.restarts, "rows": s.map(|s| s.rows), "inserted": s.map(|s| s.inserted),
        "sampled": s.map(|s| s.sampled), "writers_waiting": s.map(|s| s.writers_waiting),
    })
}

fn evaluation_json(e: Evaluation) -> Value {
    json!({
        "updates": e.updates, "weights_version": e.weights_version, "best": e.best,
        "mean_error_mm": e.mean_error_mm, "mean_error_voxels": e.mean_error_voxels,
        "median_error_mm": e.median_error_mm, "constant_guess_mm": e.constant_guess_mm,
        "seconds": e.seconds,
    })
}

fn rows_by_age(s: &LearnerStatus) -> Vec<(String, u64)> {
    let bounds = WEIGHTS_AGE_BOUNDS.map(|bound| format!("up to {bound}"));
    let labels = bounds.into_iter().chain(["more".to_owned()]);
    labels.zip(s.rows_by_weights_age).collect()
}

fn state(a: &ActorStatus) -> &'static str {
    if a.alive { a.state.word() } else { "lost" }
}

/// Some lines, without a newline at the end.
#[must_use]
pub fn as_text(s: &LearnerStatus) -> String {
    let mut lines = head(s);
    let limit = bottleneck(s);
    lines.push(format!("limited by {}: {}", limit.limit.word(), limit.why));
    lines.push(format!("  advice: {}", limit.advice));
    lines.push(String::new());
    lines.push(format!(
        "actors: {} of {} joined",
        joined(s),
        s.actors_expected
    ));
    lines.extend(actor_table(s));
    lines.push(format!(
        "shards: {} of {} answer",
        s.shards.iter().filter(|l| l.alive).count(),
        s.shards.len()
    ));
    lines.extend(shard_table(s));
    lines.extend(evaluator_lines(s));
    lines.join("\n")
}

fn head(s: &LearnerStatus) -> Vec<String> {
    let left = match (s.over, s.left_s) {
        (true, _) => "over".to_owned(),
        (false, Some(left)) => format!("{} left", duration(left)),
        (false, None) => "time left unknown".to_owned(),
    };
    let by_age: Vec<String> = rows_by_age(s)
        .into_iter()
        .map(|(label, rows)| format!("{rows} {label}"))
        .collect();
    vec![
        format!(
            "run {}: {} of {} updates, {:.1} updates/s, {left}",
            s.run_id, s.updates, s.updates_total, s.pace.updates_per_s
        ),
        format!(
            "weights version {}, published {} ago; rows by versions behind: {}",
            s.weights_version,
            duration(s.weights_age_s),
            by_age.join(", ")
        ),
        format!(
            "{:.0} environment steps/s, {:.2} samples per insert, limiter {}",
            s.pace.env_steps_per_s, s.samples_per_insert, s.limiter
        ),
    ]
}

fn actor_table(s: &LearnerStatus) -> Vec<String> {
    let head = [
        "id", "host", "state", "steps/s", "steps", "explores", "weights", "behind", "age", "waits",
        "restarts", "heard",
    ];
    let rows = s.actors.iter().map(|a| {
        vec![
            a.writer.actor.to_string(),
            a.host.clone(),
            state(a).to_owned(),
            format!("{:.1}", a.env_steps_per_s),
            a.env_steps.to_string(),
            format!("{:.2}", a.exploration),
            a.weights_version.to_string(),
            s.weights_version
                .saturating_sub(a.weights_version)
                .to_string(),
            duration(a.weights_age_s),
            format!("{:.0} %", a.blocked_share * 100.0),
            a.restarts.to_string(),
            format!("{} ago", duration(a.heartbeat_age_s)),
        ]
    });
    table(&head, 3, rows)
}

fn shard_table(s: &LearnerStatus) -> Vec<String> {
    let head = [
        "shard", "address", "state", "rows", "inserted", "sampled", "restarts", "",
    ];
    let rows = s.shards.iter().enumerate().map(|(number, l)| {
        let count = |of: fn(&proto::messages::sample::ShardSummary) -> u64| {
            l.summary
                .as_ref()
                .map_or_else(|| "–".into(), |s| of(s).to_string())
        };
        let away = format!("silent for {}: {}", duration(l.silent_s), l.why);
        vec![
            number.to_string(),
            l.address.clone(),
            if l.alive { "answers" } else { "away" }.to_owned(),
            count(|s| s.rows),
            count(|s| s.inserted),
            count(|s| s.sampled),
            l.restarts.to_string(),
            if l.alive { String::new() } else { away },
        ]
    });
    table(&head, 3, rows)
}

fn evaluator_lines(s: &LearnerStatus) -> Vec<String> {
    let mut lines: Vec<String> = s
        .evaluators
        .iter()
        .map(|e| match e.evaluating {
            Some(version) => format!("evaluator {}: evaluates weights version {version}", e.host),
            None => format!("evaluator {}: waits for weights", e.host),
        })
        .collect();
    if lines.is_empty() {
        lines.push("evaluator: none".to_owned());
    }
    for (what, found) in [("last", s.last_evaluation), ("best", s.best_evaluation)] {
        let Some(e) = found else { continue };
        let guess = e
            .constant_guess_mm
            .map_or_else(String::new, |mm| format!(" (constant guess {mm:.2} mm)"));
        lines.push(format!(
            "  {what} selection error: {:.2} mm, {:.2} voxels after {} updates{guess}",
            e.mean_error_mm, e.mean_error_voxels, e.updates
        ));
    }
    lines
}

/// Indented lines; the first `left` columns are flush left, the others right.
fn table<const N: usize>(
    head: &[&str; N],
    left: usize,
    rows: impl Iterator<Item = Vec<String>>,
) -> Vec<String> {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |i: usize| all.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    if all.len() == 1 {
        return Vec::new();
    }
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, width))| {
                let fill = " ".repeat(width - cell.chars().count());
                // The last column is text of any length.
                if i < left || head[i].is_empty() {
                    format!("{cell}{fill}")
                } else {
                    format!("{fill}{cell}")
                }
            });
        let text = cells.collect::<Vec<_>>().join("  ");
        format!("  {}", text.trim_end())
    };
    all.iter().map(line).collect()
}

/// `0.4 s`, `12 s`, `3 min`, `2.5 h`.
fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 120.0 * 60.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}
