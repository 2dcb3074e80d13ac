//! One JSON object per event.

use std::fmt::Debug;
use std::io::Write as _;

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
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) service: String,
    pub(super) run: String,
}

/// Writes events as JSON lines.
pub(super) struct JsonLayer<W> {
    labels: Labels,
    writer: W,
}

impl<W> JsonLayer<W> {
    pub(super) fn new(labels: Labels, writer: W) -> Self {
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
        let mut line = Map::new();
        line.insert("time".into(), now().into());
        let metadata = event.metadata();
        line.insert(
            "level".into(),
            metadata.level().as_str().to_lowercase().into(),
        );
        line.insert("target".into(), metadata.target().into());
        line.insert("service".into(), self.labels.service.clone().into());
        if !self.labels.run.is_empty() {
            line.insert("run".into(), self.labels.run.clone().into());
        }
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
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // There is nobody left to tell that logging fails.
        let _ = self
            .writer
            .make_writer_for(metadata)
            .write_all(text.as_bytes());
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
    use std::sync::{Arc, Mutex};

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
        let labels = Labels {
            service: "learner".into(),
            run: "r1".into(),
        };
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
        assert_eq!(line["run"], "r1");
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
