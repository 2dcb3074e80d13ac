//! Suppression of repeated log lines.
//!
//! Two lines are the same if their level, target, message, text fields and the
//! numbers of actor and shard are equal; other numbers may differ. Of the same
//! line, [`AT_MOST`] pass in [`WITHIN`]; afterwards one line reports how many were
//! suppressed. Errors with different text are different lines, and none of them is
//! lost.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
        fields
            .0
            .retain(|name, value| !value.is_number() || matches!(name.as_str(), "actor" | "shard"));
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
    /// All lines suppressed so far.
    total: u64,
}

impl State {
    fn passes(&mut self, kind: Kind, now: Instant) -> bool {
        let full = self.seen.len() >= REMEMBERED;
        if full || self.seen.get(&kind).is_some_and(|seen| is_over(seen, now)) {
            self.sweep(now);
        }
        if self.seen.len() >= REMEMBERED && !self.seen.contains_key(&kind) {
            return true;
        }
        let (_, lines) = self.seen.entry(kind).or_insert((now, 0));
        *lines += 1;
        let passes = *lines <= AT_MOST;
        self.total += u64::from(!passes);
        passes
    }

    fn sweep(&mut self, now: Instant) {
        let over = self.seen.extract_if(|_, seen| is_over(seen, now));
        let held = over.filter(|(_, (_, lines))| *lines > AT_MOST);
        self.held
            .extend(held.map(|(kind, (_, lines))| (kind, lines - AT_MOST)));
    }
}

fn is_over((since, _): &(Instant, u64), now: Instant) -> bool {
    now.duration_since(*since) >= WITHIN
}

/// Counts repeated lines. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<State>>);

impl Repeats {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Total number of suppressed lines.
    pub(super) fn total(&self) -> u64 {
        self.state().total
    }

    /// Lines whose interval is over at `now`, with the number suppressed.
    pub(super) fn take(&self, now: Instant) -> Vec<(Kind, u64)> {
        let mut state = self.state();
        state.sweep(now);
        std::mem::take(&mut state.held)
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

/// A format that does not format repeated lines, so that they are not written.
///
/// This is not a filter with `event_enabled`: if all filters disable an event that
/// way, tracing-subscriber 0.3.23 applies their decisions to the next event,
/// which is then lost.
pub(super) struct Suppressed<F>(pub(super) F, pub(super) Repeats);

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
        let passes = || {
            let kind = Kind::of(event);
            self.1.state().passes(kind, Instant::now())
        };
        if own || passes() {
            self.0.format_event(context, writer, event)
        } else {
            // With `log_internal_errors(false)` nothing reaches the writer; an empty line would
            // take a place in the queue of the log file.
            Err(fmt::Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

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
        let layer = json_layer(&labels, repeats, move || console.clone());
        let layer = layer.with_filter(LevelFilter::INFO);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        Arc::into_inner(lines).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_suppressed_line_never_reaches_the_writer() {
        // Counts the requests for a writer: one per line, of an empty one too.
        let writes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&writes);
        let writer = move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::io::sink()
        };
        let labels = Arc::new(Labels::new("s", "i", ""));
        let layer = json_layer(&labels, &Repeats::default(), writer);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..1000_u64 {
                tracing::warn!(n, "the learner does not respond");
            }
        });
        assert_eq!(writes.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn repeats_are_suppressed_and_reported_once() {
        let repeats = Repeats::default();
        let got = lines(&repeats, || {
            for n in 0..1000_u64 {
                tracing::warn!(n, "the learner does not respond");
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
        assert_eq!(report["repeated"], "the learner does not respond");
        assert_eq!(repeats.total(), 990);
        assert!(repeats.take(Instant::now() + WITHIN).is_empty());
    }

    #[test]
    fn a_line_passes_again_after_its_interval() {
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
    fn errors_with_different_text_are_never_suppressed() {
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
