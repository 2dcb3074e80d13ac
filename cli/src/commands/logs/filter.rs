//! The conditions that select log lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::run::run_folder::unix_nanos;
use regex::Regex;

use super::line::{Level, Line};

/// Conditions on a line; an empty list matches every line.
#[derive(Debug, Default)]
pub struct Filter {
    /// Prefixes of service names.
    pub services: Vec<String>,
    /// Instances, or numbers of actors and shards.
    pub instances: Vec<String>,
    pub run: Option<String>,
    /// At least this level.
    pub level: Option<Level>,
    /// Applied to message and fields.
    pub grep: Option<Regex>,
    /// Inclusive lower bound, nanoseconds since 1970.
    pub since: Option<u64>,
    /// Exclusive upper bound, nanoseconds since 1970.
    pub until: Option<u64>,
}

impl Filter {
    pub fn matches(&self, line: &Line) -> bool {
        let any = |wanted: &[String], is: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|w| is(w))
        };
        self.since.is_none_or(|since| line.nanos >= since)
            && self.until.is_none_or(|until| line.nanos < until)
            && self.level.is_none_or(|least| line.level >= least)
            && any(&self.services, &|name| line.service.starts_with(name))
            && any(&self.instances, &|name| is_from(line, name))
            && self.run.as_ref().is_none_or(|run| line.run == *run)
            && self.grep.as_ref().is_none_or(|g| g.is_match(&line.words()))
    }
}

/// Whether a line comes from this instance, or concerns the actor or shard with
/// this number.
fn is_from(line: &Line, name: &str) -> bool {
    let number = name.parse().ok();
    line.instance == name
        || number.is_some() && ["actor", "shard"].iter().any(|k| line.number(k) == number)
}

/// Parses `10m` (ago) or an RFC 3339 time; returns nanoseconds since 1970.
pub fn parse_time(text: &str, now: SystemTime) -> Result<u64, String> {
    if let Some(nanos) = unix_nanos(text) {
        return Ok(nanos);
    }
    let ago = duration(text).ok_or_else(|| {
        "is neither an age, such as 90s, 10m, 2h or 1d, nor a time, such as 2026-11-26T08:00:00Z".to_owned()
    })?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = since.saturating_sub(ago).as_nanos();
    Ok(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// `1h30m`, `90s`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit());
        let end = end.unwrap_or(rest.len());
        let unit_ms = match &rest[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[end..];
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(service: &str, instance: &str, level: &str, more: &str) -> Line {
        let raw = format!(
            r#"{{"time":"2026-11-26T08:00:00Z","level":"{level}","service":"{service}","instance":"{instance}","run":"r","message":"loss is NaN"{more}}}"#
        );
        Line::parse(&raw).unwrap()
    }

    /// A change to the filter that matches everything, and the expected result.
    type Case<'a> = (&'a dyn Fn(&mut Filter), bool);

    #[test]
    fn each_condition_filters_lines() {
        let at = unix_nanos("2026-11-26T08:00:00Z").unwrap();
        let one = |text: &str| vec![text.to_owned()];
        let grep = |text| Some(Regex::new(text).unwrap());
        let two = vec!["actor".to_owned(), "replay-server".to_owned()];
        let cases: [Case<'_>; 16] = [
            (&|_| {}, true),
            (&|f| f.services = one("rep"), true),
            (&|f| f.services = one("actor"), false),
            (&|f| f.services.clone_from(&two), true),
            (&|f| f.instances = one("replay-1"), true),
            (&|f| f.instances = one("replay"), false),
            (&|f| f.instances = one("4"), true),
            (&|f| f.instances = one("5"), false),
            (&|f| f.run = Some("q".into()), false),
            (&|f| f.level = Some(Level::Warn), true),
            (&|f| f.level = Some(Level::Error), false),
            (&|f| f.grep = grep("(?i)nan.*shard=4"), true),
            (&|f| f.grep = grep("nan"), false),
            (&|f| (f.since, f.until) = (Some(at), Some(at + 1)), true),
            (&|f| f.since = Some(at + 1), false),
            (&|f| f.until = Some(at), false),
        ];
        let line = line("replay-server", "replay-1", "warn", r#","shard":4"#);
        for (change, expected) in cases {
            let mut filter = Filter::default();
            change(&mut filter);
            assert_eq!(filter.matches(&line), expected, "{filter:?}");
        }
    }

    #[test]
    fn the_number_of_an_actor_may_be_in_the_span() {
        let filter = Filter {
            instances: vec!["3".into()],
            ..Filter::default()
        };
        let of = |more: &str| filter.matches(&line("actor", "3f2a", "info", more));
        assert!(of(r#","span":{"actor":3}"#));
        assert!(!of(r#","span":{"actor":30}"#) && !of(""));
    }

    #[test]
    fn times_are_parsed_from_ages_and_rfc_3339() {
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        let s = 1_000_000_000;
        for (text, expected) in [
            ("90s", Some(99_910 * s)),
            ("1h30m", Some(94_600 * s)),
            ("1d", Some(13_600 * s)),
            ("250ms", Some(99_999_750_000_000)),
            ("99d", Some(0)),
            ("1970-01-02T00:00:00Z", Some(86_400 * s)),
            ("10", None),
            ("m", None),
            ("ten minutes", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text, now).ok(), expected, "{text}");
        }
    }
}
