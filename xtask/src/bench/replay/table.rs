//! Results as people read them.

use super::case::{Ack, Operation};
use super::peers::PeerRecord;
use super::results::{Record, Results};

/// From here on somebody else's work has spoilt a figure.
const BUSY: f64 = 0.2;

/// One figure in one line.
pub fn brief(record: &Record) -> String {
    let parts: Vec<String> = record
        .parts
        .iter()
        .map(|(name, m)| {
            format!(
                "{name} {} rows/s, p99 {:.2} ms",
                count(m.rows_per_s),
                m.p99_ms
            )
        })
        .collect();
    format!("{}{}", parts.join("; "), disturbed(record))
}

fn disturbed(record: &Record) -> String {
    let others = record.usage.others;
    if others < BUSY {
        return String::new();
    }
    let all = record.usage.all;
    format!("  (disturbed: others used {others:.1} of {all:.0} cores)")
}

/// Everything that the file holds.
pub fn print(results: &Results) {
    for line in rates(results.records())
        .into_iter()
        .chain(room(results.records()))
        .chain(peers(results.peers()))
        .chain(ratios(results))
    {
        println!("{line}");
    }
}

fn rates(records: &[Record]) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "{:>6} {:>7} {:7} {:17} {:>10} {:>8} {:>8} {:>8} {:>8}  {:>12}",
            "shards",
            "clients",
            "acks",
            "operation",
            "rows/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "cores s/c/o"
        ),
    ];
    for record in records {
        let group = record.case.group;
        for (name, m) in &record.parts {
            let operation = match record.case.operation {
                Operation::Mixed | Operation::MixedHalf => {
                    format!("{} {name}", record.case.operation.name())
                }
                other => other.name().to_owned(),
            };
            let used = &record.usage;
            lines.push(format!(
                "{:>6} {:>7} {:7} {operation:17} {:>10} {:>8.2} {:>8.2} {:>8.2} {:>8.2}  {:.1}/{:.1}/{:.1}",
                group.shards,
                group.clients,
                group.ack.name(),
                count(m.rows_per_s),
                m.p50_ms,
                m.p99_ms,
                m.p999_ms,
                m.max_ms,
                used.shards,
                used.clients,
                used.others,
            ));
        }
    }
    lines.push("cores s/c/o: used by shards, clients and others".to_owned());
    lines
}

/// Memory and disk of the filled shards, once per service.
fn room(records: &[Record]) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "{:>6} {:7} {:>10} {:>12} {:>9} {:>12} {:>9}",
            "shards", "acks", "rows", "resident MB", "per row", "on disk MB", "per row"
        ),
    ];
    let mut seen = Vec::new();
    for record in records {
        let group = record.case.group;
        let service = (group.shards, group.ack, group.rows);
        if seen.contains(&service) {
            continue;
        }
        seen.push(service);
        let per_row = |bytes: u64| float(bytes) / float(group.rows.max(1));
        let held = record.held;
        let rows_take = held
            .resident_bytes
            .saturating_sub(held.resident_bytes_empty);
        let disk = held.disk_bytes.map_or_else(
            || format!("{:>12} {:>9}", "none", ""),
            |disk| format!("{:>12.1} {:>9.1}", float(disk) / 1e6, per_row(disk)),
        );
        lines.push(format!(
            "{:>6} {:7} {:>10} {:>12.1} {:>9.1} {disk}",
            group.shards,
            group.ack.name(),
            group.rows,
            float(held.resident_bytes) / 1e6,
            per_row(rows_take),
        ));
    }
    lines
}

fn peers(records: &[PeerRecord]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for record in records {
        let m = record.measure();
        lines.push(format!(
            "{} {}, {} clients, {} with {}: {} rows/s, p50 {:.2} ms, p99 {:.2} ms, {} rows held",
            record.peer,
            record.version,
            record.clients,
            record.op,
            record.api,
            count(m.rows_per_s),
            m.p50_ms,
            m.p99_ms,
            record.rows_held
        ));
    }
    lines
}

/// Ours over theirs: one shard, the same batch and number of clients, each
/// peer's fastest way of doing it.
fn ratios(results: &Results) -> Vec<String> {
    let mut lines = vec![String::new()];
    for record in results.records() {
        let group = record.case.group;
        let operation = record.case.operation;
        let Some(ours) = record.parts.get(operation.name()) else {
            continue;
        };
        if group.shards != 1 {
            continue;
        }
        for peer in names(results.peers()) {
            let fastest = results
                .peers()
                .iter()
                .filter(|p| p.peer == peer && p.op == operation.name())
                .filter(|p| p.clients == group.clients && p.batch == group.batch)
                .max_by(|a, b| a.rows_per_s.total_cmp(&b.rows_per_s));
            let Some(theirs) = fastest else {
                continue;
            };
            let ack = match (operation, group.ack) {
                (Operation::Insert, Ack::Durable) => " durable",
                (_, Ack::Durable) => continue,
                _ => "",
            };
            lines.push(format!(
                "{}{ack}, {} clients: {:.1} times {peer} ({} to {} rows/s with {})",
                operation.name(),
                group.clients,
                ours.rows_per_s / theirs.rows_per_s,
                count(ours.rows_per_s),
                count(theirs.rows_per_s),
                theirs.api
            ));
        }
    }
    lines
}

fn names(records: &[PeerRecord]) -> Vec<&str> {
    let mut names: Vec<&str> = records.iter().map(|record| record.peer.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A whole number with thousands apart.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes or rows")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::replay::{peers, results};

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!((count(999.0), count(0.0)), ("999".into(), "0".into()));
    }

    #[test]
    fn ratios_are_to_the_fastest_way_of_the_same_shape() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Results::open(&folder.path().join("r.jsonl"), true).unwrap();
        all.add(results::tests::record(Operation::Insert, 600.0))
            .unwrap();
        for (api, clients, rate) in [("slow", 4, 10.0), ("fast", 4, 20.0), ("other", 1, 500.0)] {
            let record = peers::tests::record("insert", api, clients, rate);
            all.add_peer(record).unwrap();
        }
        let lines = ratios(&all);
        assert_eq!(
            lines[1..],
            ["insert, 4 clients: 30.0 times reverb (600 to 20 rows/s with fast)"]
        );
    }

    #[test]
    fn disturbed_figures_say_so() {
        let mut record = results::tests::record(Operation::Mixed, 600.0);
        assert!(brief(&record).ends_with("others used 0.2 of 2 cores)"));
        record.usage.others = 0.1;
        assert!(brief(&record).ends_with("p99 2.00 ms"));
    }

    #[test]
    fn memory_per_row_leaves_out_the_empty_process() {
        let record = results::tests::record(Operation::Insert, 600.0);
        let lines = room(&[record.clone(), record]);
        assert_eq!(lines.len(), 3);
        assert!(
            lines[2].contains("110.0") && lines[2].contains("none"),
            "{}",
            lines[2]
        );
    }
}
