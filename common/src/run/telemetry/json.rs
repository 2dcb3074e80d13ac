//! One JSON object per event.

use std::fmt::Debug;
use std::io::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// What every line says beside its event.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) service: String,
    pub(super) instance: String,
    /// A service may learn only later which run it works for.
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

    pub(super) fn run(&self) -> String {
        self.run
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps a name that was given before.
    pub(super) fn name_run(&self, run: &str) {
        let mut named = self.run.write().unwrap_or_else(PoisonError::into_inner);
        if named.is_empty() {
            run.clone_into(&mut named);
        }
    }

    /// How every line begins.
    fn begin(&self, level: &str, target: &str) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("time".into(), now().into());
        line.insert("level".into(), level.into());
        line.insert("target".into(), target.into());
        line.insert("service".into(), self.service.clone().into());
        line.insert("instance".into(), self.instance.clone().into());
        let run = self.run();
        if !run.is_empty() {
            line.insert("run".into(), run.into());
        }
        line
    }

    /// A line about the log itself, which cannot go through it.
    pub(super) fn warning(&self, message: &str) -> String {
        let mut line = self.begin("warn", module_path!());
        line.insert("message".into(), message.into());
        finish(line)
    }
}

fn finish(line: Map<String, Value>) -> String {
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    text
}

/// Writes events as JSON lines.
pub(super) struct JsonLayer<W> {
    labels: Arc<Labels>,
    writer: W,
}

impl<W> JsonLayer<W> {
    pub(super) fn new(labels: Arc<Labels>, writer: W) -> Self {
        Self { labels, writer }
    }
}

/// The fields of a span, kept with it.
struct SpanFields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        // A second layer of this type may have kept them already.
        span.extensions_mut().replace(SpanFields(fields.0));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(kept) = span.extensions_mut().get_mut::<SpanFields>() {
            kept.0.extend(fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_lowercase();
        let mut line = self.labels.begin(&level, metadata.target());
        let mut around = Map::new();
        for span in context
            .event_scope(event)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            if let Some(kept) = span.extensions().get::<SpanFields>() {
                around.extend(kept.0.clone());
            }
        }
        for (name, value) in fields.0 {
            // An event's own fields never hide what every line has.
            let taken = line.contains_key(&name);
            line.insert(if taken { format!("field_{name}") } else { name }, value);
        }
        if !around.is_empty() {
            line.insert("span".into(), Value::Object(around));
        }
        // There is nobody left to tell that logging fails.
        let _ = self
            .writer
            .make_writer_for(metadata)
            .write_all(finish(line).as_bytes());
    }
}

fn now() -> String {
    let mut text = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN: text says it instead of null.
        let value = if value.is_finite() {
            value.into()
        } else {
            value.to_string().into()
        };
        self.0.insert(field.name().into(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0
            .insert(field.name().into(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::Console;
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
        let subscriber = tracing_subscriber::registry().with(JsonLayer::new(labels, console));
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("run", actor = 3, late = tracing::field::Empty);
            let _in = outer.enter();
            outer.record("late", true);
            let inner = tracing::info_span!("episode", actor = 4);
            let _in = inner.enter();
            tracing::warn!(
                loss = f64::NAN,
                n = 7_u64,
                level = "x",
                "a \"quoted\"\nmessage"
            );
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["service"], "learner");
        assert_eq!(
            (&line["instance"], &line["run"]),
            (&"host-1".into(), &"r1".into())
        );
        assert_eq!(line["message"], "a \"quoted\"\nmessage");
        assert_eq!(
            (&line["n"], &line["loss"]),
            (&Value::from(7), &Value::from("NaN"))
        );
        assert_eq!(line["field_level"], "x");
        assert_eq!(line["span"], serde_json::json!({"actor": 4, "late": true}));
        let time = line["time"].as_str().unwrap();
        assert!(
            time.ends_with('Z') && &time[4..5] == "-" && &time[10..11] == "T",
            "{time}"
        );
    }
}
