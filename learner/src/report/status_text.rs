//! Formats a run's status as text and as JSON, for `landmarl status` and `learner status`.

use common::report::text::{one_line, printable};
use common::run::run_folder::run_name;
use proto::messages::status::{LearnerStatus, ShardSummary};
use proto::transport::channel;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use serde::Serialize;
use serde_json::Value;

use crate::report::bottleneck::{Bottleneck, bottleneck};

/// Why the status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Address(#[from] proto::transport::endpoint::AddressError),
    /// The learner did not respond, or refused.
    #[error(
        "{address} does not respond: {why}; is a learner running there? (`learner run`, or `landmarl train` for all in one)"
    )]
    NoResponse { address: String, why: String },
}

/// Requests the status of the learner at `address`; limited to one host's actors and
/// evaluators if `host` is not empty.
///
/// # Errors
/// When it does not respond.
pub async fn ask(
    address: &str,
    security: &Security,
    host: &str,
) -> Result<LearnerStatus, StatusError> {
    let mut client = channel::learner_client(security.connect(address, Role::Learner)?);
    let host = host.to_owned();
    let request = wire::LearnerStatusRequest { host };
    let reply = unary(request, CALL_DEADLINE, |r| client.status(r)).await;
    reply.map_err(|status| StatusError::NoResponse {
        address: address.to_owned(),
        why: reason(&status),
    })
}

/// Actors whose lease holds.
fn joined(s: &LearnerStatus) -> usize {
    s.actors.iter().filter(|a| a.alive).count()
}

/// A status with derived values.
#[derive(Serialize)]
struct Report<'a> {
    run: &'a str,
    #[serde(flatten)]
    status: &'a LearnerStatus,
    actors_joined: usize,
    limits: Bottleneck,
}

/// One JSON object.
///
/// # Errors
/// When serialisation fails.
pub fn as_json(s: &LearnerStatus) -> serde_json::Result<Value> {
    serde_json::to_value(Report {
        run: run_name(&s.run_id),
        status: s,
        actors_joined: joined(s),
        limits: bottleneck(s),
    })
}

/// Several lines, without a trailing newline. Control characters, which hosts may send, are
/// escaped.
pub fn as_text(s: &LearnerStatus) -> String {
    let mut lines = head(s);
    let limit = bottleneck(s);
    lines.push(format!("limited by {}: {}", limit.limit.word(), limit.why));
    lines.push(format!("  advice: {}\n", limit.advice));
    let (joined, expected) = (joined(s), s.actors_expected);
    lines.push(format!("actors: {joined} of {expected} joined"));
    lines.extend(actor_table(s));
    let (up, shards) = (s.shards.iter().filter(|l| l.alive).count(), s.shards.len());
    lines.push(format!("shards: {up} of {shards} respond"));
    lines.extend(shard_table(s));
    lines.extend(evaluator_lines(s));
    let lines = lines.iter().map(|line| printable(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn head(s: &LearnerStatus) -> Vec<String> {
    let left = match (s.over, s.left_s) {
        (true, _) => "over".to_owned(),
        (false, Some(left)) => format!("{} left", duration(left)),
        (false, None) => "time left unknown".to_owned(),
    };
    let by_age = s.rows_by_weights_age().into_iter();
    let by_age: Vec<String> = by_age.map(|(age, rows)| format!("{rows} {age}")).collect();
    vec![
        format!(
            "run {}: {} of {} updates, {:.1} updates/s, {left}",
            run_name(&s.run_id),
            s.updates,
            s.updates_total,
            s.updates_per_s
        ),
        format!(
            "weights version {}, published {} ago; rows by versions behind: {}",
            s.weights_version,
            duration(s.weights_age_s),
            by_age.join(", ")
        ),
        format!(
            "{:.0} environment steps/s, {:.2} samples per insert",
            s.env_steps_per_s, s.samples_per_insert
        ),
    ]
}

fn actor_table(s: &LearnerStatus) -> Vec<String> {
    let head = [
        "id", "host", "state", "steps/s", "steps", "explores", "weights", "behind", "age", "waits",
        "restarts", "seen",
    ];
    let rows = s.actors.iter().map(|a| {
        let report = a.report();
        let behind = s.weights_version.saturating_sub(report.weights_version);
        vec![
            a.actor.to_string(),
            a.host.clone(),
            report.state().word().to_owned(),
            format!("{:.1}", a.env_steps_per_s),
            report.env_steps.to_string(),
            format!("{:.2}", report.exploration),
            report.weights_version.to_string(),
            behind.to_string(),
            duration(report.weights_age_s),
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
        let count = |of: fn(&ShardSummary) -> u64| {
            let summary = l.summary.as_ref();
            summary.map_or_else(|| "–".into(), |s| of(s).to_string())
        };
        let silence = format!("no response for {}: {}", duration(l.silent_s), l.why);
        vec![
            number.to_string(),
            l.address.clone(),
            if l.alive { "responds" } else { "unreachable" }.to_owned(),
            count(|s| s.rows),
            count(|s| s.inserted),
            count(|s| s.sampled),
            l.restarts.to_string(),
            if l.alive { String::new() } else { silence },
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
        let baseline = e.baseline_error_mm;
        let baseline = baseline.map(|mm| format!(" (mean-position baseline {mm:.2} mm)"));
        let baseline = baseline.unwrap_or_default();
        lines.push(format!(
            "  {what} validation error: {:.2} mm, {:.2} voxels after {} updates{baseline}",
            e.mean_error_mm, e.mean_error_voxels, e.updates
        ));
    }
    lines
}

/// Indented lines; the first `left` columns are left-aligned, the others right-aligned.
fn table<const N: usize>(
    head: &[&str; N],
    left: usize,
    rows: impl Iterator<Item = Vec<String>>,
) -> Vec<String> {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    let escaped = |row: Vec<String>| -> Vec<String> {
        row.iter().map(|cell| one_line(cell).into_owned()).collect()
    };
    all.extend(rows.map(escaped));
    let width = |i: usize| all.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    if all.len() == 1 {
        return Vec::new();
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(i, (cell, &width))| {
            // The last column is text of any length.
            if i < left || head[i].is_empty() {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
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
