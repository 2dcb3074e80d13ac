//! One log line.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use common::run::run_folder::unix_nanos;
use serde_json::{Map, Value};

/// Severity, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub fn parse(name: &str) -> Option<Self> {
        Self::from_str(name, true).ok()
    }
}

/// A parsed log line of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// The time as written in the line.
    pub time: String,
    pub level: Level,
    pub service: String,
    pub instance: String,
    pub run: String,
    pub message: String,
    /// All other fields; those of spans are last.
    pub fields: Vec<(String, Value)>,
    /// The unparsed line.
    pub raw: String,
}

/// Keys that are not part of [`Line::fields`].
const KNOWN: [&str; 7] = [
    "time", "level", "target", "service", "instance", "run", "message",
];

impl Line {
    /// `None` if the text is not a log line of landmarl, or is truncated.
    pub fn parse(raw: &str) -> Option<Self> {
        let raw = raw.trim();
        let mut all: Map<String, Value> = serde_json::from_str(raw).ok()?;
        let mut text = |key: &str| match all.get_mut(key).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let time = text("time");
        let level = Level::parse(&text("level"))?;
        let [service, instance, run, message] =
            ["service", "instance", "run", "message"].map(&mut text);
        let span = all.remove("span");
        all.retain(|key, _| !KNOWN.contains(&key.as_str()));
        let outer = match span {
            Some(Value::Object(mut span)) => {
                span.retain(|key, _| !all.contains_key(key));
                span
            }
            Some(other) => Map::from_iter([("span".to_owned(), other)]),
            None => Map::new(),
        };
        Some(Self {
            nanos: unix_nanos(&time)?,
            time,
            level,
            service,
            instance,
            run,
            message,
            fields: all.into_iter().chain(outer).collect(),
            raw: raw.to_owned(),
        })
    }

    /// Message and fields as one text, for `--grep`.
    pub fn words(&self) -> String {
        let mut words = self.message.clone();
        for (key, value) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(words, " {key}={}", shown(value));
        }
        words
    }

    /// The number under `key`, if it is one.
    pub fn number(&self, key: &str) -> Option<u64> {
        let field = self.fields.iter().find(|(name, _)| name == key);
        field.and_then(|(_, value)| value.as_u64())
    }
}

/// Strings without quotes, all other values as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed_and_its_own_fields_override_those_of_spans() {
        let raw = r#"{"time":"2026-11-26T08:00:00.250000Z","level":"warn","target":"actor::uplink","service":"actor","instance":"h-2","run":"r","message":"lost shard","shard":1,"reason":"gone","span":{"actor":3,"shard":7}}"#;
        let line = Line::parse(raw).unwrap();
        assert_eq!(line.level, Level::Warn);
        assert_eq!(line.nanos % 1_000_000_000, 250_000_000);
        let labels = [&line.service, &line.instance, &line.run];
        assert_eq!(labels, ["actor", "h-2", "r"]);
        let numbers = ["shard", "actor"].map(|key| line.number(key));
        assert_eq!(numbers, [Some(1), Some(3)]);
        let words = line.words();
        assert_eq!(words, "lost shard reason=gone shard=1 actor=3", "{words}");
    }

    #[test]
    fn other_text_is_not_parsed() {
        for raw in [
            "",
            "panicked at x",
            r#"{"time":"2026-11-26T08:00:00Z","level":"warn","mess"#,
            r#"{"time":"now","level":"warn"}"#,
            r#"{"time":"2026-11-26T08:00:00Z","level":"loud"}"#,
            "[1]",
        ] {
            assert_eq!(Line::parse(raw), None, "{raw}");
        }
    }
}
