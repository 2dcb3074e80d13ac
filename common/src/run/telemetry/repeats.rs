//! Suppression of repeated log lines.
//!
//! Two lines are the same if their level, target, message, text fields and the
//! numbers of actor and shard are equal; other numbers may differ. Of the same
//! line, [`AT_MOST`] pass in [`WITHIN`]; afterwards one line reports how many were
//! suppressed. Errors with different text are different lines, and none of them is
//! lost.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::json::Fields;

const AT_MOST: u64 = 10;
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// Number of distinct lines that are remembered; further ones pass uncounted.
const REMEMBERED: usize = 4096;

/// The properties that distinguish lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    level: Level,
    target: &'static str,
    message: String,
    fields: String,
}

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let distinguishes = |name: &String, value: &mut Value| {
            !value.is_number() || matches!(name.as_str(), "actor" | "shard")
        };
        fields.0.retain(distinguishes);
        Self {
            level: *metadata.level(),
            target: metadata.target(),
            message: message.as_str().unwrap_or_default().to_owned(),
            fields: Value::Object(fields.0).to_string(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// When a line was first seen, and how often since.
    seen: HashMap<Kind, (Instant, u64)>,
    /// Lines whose interval is over, with the number suppressed.
    held: Vec<(Kind, u64)>,
}

impl State {
    fn passes(&mut self, kind: Kind, now: Instant) -> bool {
        if self.seen.len() >= REMEMBERED {
            self.sweep(now);
        }
        let room = self.seen.len() < REMEMBERED;
        match self.seen.get_mut(&kind) {
            Some((since, lines)) if now.duration_since(*since) < WITHIN => {
                *lines += 1;
                return *lines <= AT_MOST;
            }
            Some((since, lines)) => {
                let before = std::mem::replace(lines, 1);
                *since = now;
                self.held.extend(held(kind, before));
            }
            None if room => {
                self.seen.insert(kind, (now, 1));
            }
            None => {}
        }
        true
    }

    fn sweep(&mut self, now: Instant) {
        let over = |_: &Kind, seen: &mut (Instant, u64)| now.duration_since(seen.0) >= WITHIN;
        let over = self.seen.extract_if(over);
        self.held
            .extend(over.filter_map(|(kind, (_, lines))| held(kind, lines)));
    }
}

fn held(kind: Kind, lines: u64) -> Option<(Kind, u64)> {
    (lines > AT_MOST).then(|| (kind, lines - AT_MOST))
}

/// Counts repeated lines. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    state: Arc<Mutex<State>>,
    total: Arc<AtomicU64>,
}

impl Repeats {
    /// Total number of suppressed lines.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn passes(&self, event: &Event<'_>) -> bool {
        let kind = Kind::of(event);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = state.passes(kind, Instant::now());
        self.total.fetch_add(u64::from(!passes), Ordering::Relaxed);
        passes
    }

    /// Lines whose interval is over at `now`, with the number suppressed.
    pub(super) fn take(&self, now: Instant) -> Vec<(Kind, u64)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sweep(now);
        std::mem::take(&mut state.held)
    }

    /// Wraps a format so that repeated lines are not formatted, and thus not written.
    ///
    /// This is not a filter with `event_enabled`: if all filters disable an event that
    /// way, tracing-subscriber 0.3.23 applies their decisions to the next event,
    /// which is then lost.
    pub(super) fn around<F>(&self, format: F) -> Suppressed<F> {
        Suppressed {
            format,
            repeats: self.clone(),
        }
    }
}

/// Logs the number of suppressed lines.
pub(super) fn log(held: Vec<(Kind, u64)>) {
    let seconds = WITHIN.as_secs();
    for (kind, lines) in held {
        let (of, repeated) = (kind.target, kind.message);
        // The macros require a constant level.
        match kind.level {
            Level::ERROR => tracing::error!(lines, seconds, of, repeated, "held back"),
            Level::WARN => tracing::warn!(lines, seconds, of, repeated, "held back"),
            _ => tracing::info!(lines, seconds, of, repeated, "held back"),
        }
    }
}

/// A format without repeats.
pub(super) struct Suppressed<F> {
    format: F,
    repeats: Repeats,
}

impl<S, N, F> FormatEvent<S, N> for Suppressed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Lines from `log` always pass.
        let own = event.metadata().target() == module_path!();
        if own || self.repeats.passes(event) {
            self.format.format_event(context, writer, event)
        } else {
            // With `log_internal_errors(false)` nothing reaches the writer; an empty line would
            // take a place in the queue of the log file.
            Err(fmt::Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::json::Labels;
    use super::super::{Console, json_layer};
    use super::*;

    /// The lines that a log writes while `act` runs.
    fn lines(repeats: &Repeats, act: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let console = Console::new(move |line| {
            let line = serde_json::from_slice(line).unwrap();
            sink.lock().unwrap().push(line);
            Ok(())
        });
        let labels = Arc::new(Labels::new("s", "i", ""));
        // Filtered, as in a service: a suppressed line must not lose the next one.
        let layer = json_layer(&labels, repeats, console).with_filter(LevelFilter::INFO);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        Arc::into_inner(lines).unwrap().into_inner().unwrap()
    }

    /// Counts writes, empty ones too, as the queue of a log file does.
    #[derive(Clone, Default)]
    struct Counting(Arc<std::sync::atomic::AtomicUsize>);

    impl std::io::Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(bytes.len())
        }

        fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.write(bytes).map(drop)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_is_held_back_never_reaches_the_writer() {
        let writes = Counting::default();
        let writer = writes.clone();
        let repeats = Repeats::default();
        let labels = Arc::new(Labels::new("s", "i", ""));
        let layer = json_layer(&labels, &repeats, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..1000_u64 {
                tracing::warn!(n, "the learner does not answer");
            }
        });
        assert_eq!(writes.0.load(std::sync::atomic::Ordering::Relaxed), 10);
    }

    #[test]
    fn repeats_are_held_back_and_reported_once() {
        let repeats = Repeats::default();
        let got = lines(&repeats, || {
            for n in 0..1000_u64 {
                tracing::warn!(n, "the learner does not answer");
            }
            tracing::warn!("something else");
            log(repeats.take(Instant::now()));
            log(repeats.take(Instant::now() + WITHIN));
        });
        assert_eq!(got.len(), 12, "{got:#?}");
        assert_eq!(got[9]["n"], 9);
        assert_eq!(got[10]["message"], "something else");
        let report = &got[11];
        assert_eq!(
            (&report["level"], &report["message"], &report["lines"]),
            (&"warn".into(), &"held back".into(), &990.into())
        );
        assert_eq!(report["repeated"], "the learner does not answer");
        assert_eq!(repeats.total(), 990);
        assert!(repeats.take(Instant::now() + WITHIN).is_empty());
    }

    #[test]
    fn a_kind_passes_again_when_its_time_is_over() {
        let begin = Instant::now();
        let mut state = State::default();
        let kind = Kind {
            level: Level::INFO,
            target: "t",
            message: "x".into(),
            fields: String::new(),
        };
        let times = (0..400).map(|at| begin + Duration::from_millis(100 * at));
        let passed = times.filter(|now| state.passes(kind.clone(), *now)).count();
        assert_eq!(passed, 40, "10 in each of 4 times 10 s");
        let held = |state: &State| state.held.iter().map(|(_, lines)| lines).sum::<u64>();
        assert_eq!(held(&state), 270);
        state.sweep(begin + Duration::from_secs(60));
        assert_eq!(held(&state), 360);
    }

    #[test]
    fn no_error_of_another_text_is_lost_however_many_there_are() {
        let repeats = Repeats::default();
        let many = REMEMBERED as u64 + 1000;
        let got = lines(&repeats, || {
            for n in 0..many {
                tracing::error!("disk {n} is full");
                tracing::error!(error = format!("cause {n}"), "cannot write");
            }
            for actor in 0..50_u64 {
                tracing::warn!(actor, "actor lost");
            }
        });
        assert_eq!(got.len() as u64, 2 * many + 50);
        assert_eq!(repeats.total(), 0);
    }
}
