//! One JSON object per event, as an event format of `tracing_subscriber::fmt`.
//!
//! Neither tracing-subscriber's own format nor json-subscriber fits: both write
//! a key twice if an event's field has the name of a label, and turn NaN of an
//! event's field into null (fields of spans still do; none of ours is a float).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::service;

/// The labels of every line.
#[derive(Debug)]
pub(super) struct Labels {
    service: String,
    instance: String,
    /// A service may get the name of its run only later.
    run: RwLock<String>,
}

impl Labels {
    pub(super) fn new(service: &str, instance: &str, run: &str) -> Self {
        Self {
            service: service.to_owned(),
            instance: instance.to_owned(),
            run: RwLock::new(run.to_owned()),
        }
    }

    /// Sets the name unless there is one.
    pub(super) fn name_run(&self, run: &str) {
        let mut named = self.run.write().unwrap_or_else(PoisonError::into_inner);
        if named.is_empty() {
            run.clone_into(&mut named);
        }
    }

    fn begin(&self, level: &str, target: &str) -> Map<String, Value> {
        let mut time = String::new();
        // Writing to a String does not fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let run = self.run.read().unwrap_or_else(PoisonError::into_inner);
        let labels = [
            ("time", time.as_str()),
            ("level", level),
            ("target", target),
            ("service", &self.service),
            ("instance", &self.instance),
            ("run", &run),
        ];
        let named = labels.into_iter();
        let named = named.filter(|(name, value)| *name != "run" || !value.is_empty());
        let named = named.map(|(name, value)| (name.into(), value.into()));
        named.collect()
    }

    /// A line about the log itself, which cannot be logged as an event.
    pub(super) fn warning(&self, message: &str) -> String {
        let mut line = self.begin("warn", module_path!());
        line.insert("message".into(), message.into());
        format!("{}\n", Value::Object(line))
    }
}

/// Formats events as JSON lines. Needs `JsonFields` for the fields of spans.
pub(super) struct Json(pub(super) Arc<Labels>);

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level().as_str().to_lowercase();
        let mut line = self.0.begin(&level, event.metadata().target());
        let mut fields = Fields::default();
        event.record(&mut fields);
        for (name, value) in fields.0 {
            // An event's own fields never hide a label.
            let taken = line.contains_key(&name);
            line.insert(if taken { format!("field_{name}") } else { name }, value);
        }
        let mut around = Map::new();
        let scope = context.event_scope().into_iter();
        for span in scope.flat_map(Scope::from_root) {
            if span.metadata().target() == service::TARGET {
                line.insert("service".into(), span.name().into());
                continue;
            }
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let parsed = fields.and_then(|f| serde_json::from_str::<Map<_, _>>(f).ok());
            around.extend(parsed.into_iter().flatten());
        }
        if !around.is_empty() {
            line.insert("span".into(), around.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The fields of an event.
#[derive(Default)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.insert(field, value),
            // JSON has no NaN: it is written as text instead of null.
            false => self.insert(field, value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::repeats::Repeats;
    use super::super::{Console, json_layer};
    use super::*;

    #[test]
    fn a_line_has_labels_fields_and_the_spans_around_it() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let console = Console::new(move |line| {
            sink.lock().unwrap().extend_from_slice(line);
            Ok(())
        });
        let labels = Arc::new(Labels::new("learner", "host-1", ""));
        labels.name_run("r1");
        labels.name_run("r2");
        let repeats = Repeats::default();
        // Two layers, as in a service that writes to a file and to standard error.
        let subscriber = tracing_subscriber::registry()
            .with(json_layer(&labels, &repeats, move || console.clone()))
            .with(json_layer(&labels, &repeats, std::io::sink));
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("run", actor = 3, late = tracing::field::Empty);
            let _in = outer.enter();
            outer.record("late", true);
            let inner = tracing::info_span!("episode", actor = 4);
            let _in = inner.enter();
            let loss = f64::NAN;
            tracing::warn!(loss, n = 7_u64, level = "x", "a \"quoted\"\nmessage");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let time = line["time"].take();
        let time = time.as_str().unwrap();
        let rfc3339 = time.ends_with('Z') && &time[4..5] == "-" && &time[10..11] == "T";
        assert!(rfc3339, "{time}");
        let expected = serde_json::json!({
            "time": null, "level": "warn", "target": module_path!(), "service": "learner",
            "instance": "host-1", "run": "r1", "message": "a \"quoted\"\nmessage",
            "n": 7, "loss": "NaN", "field_level": "x", "span": {"actor": 4, "late": true},
        });
        assert_eq!(line, expected);
    }
}
