//! Lines that repeat are held back, and counted.
//!
//! Two lines are the same if level, target, message, texts among the fields
//! and the numbers of actor and shard are; other numbers may differ. Of lines
//! that are the same, [`AT_MOST`] go through in [`WITHIN`]; how many more there
//! were is told by one line afterwards. Errors of different text are different
//! lines, and none of them is lost.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// So many of the same lines go through …
pub(super) const AT_MOST: u64 = 10;
/// … in this time.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// Different lines that are remembered; what comes beyond goes through unseen.
const REMEMBERED: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    level: Level,
    target: &'static str,
    /// The message, and what else makes a line another one.
    text: String,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    count: u64,
    message_length: usize,
}

/// Lines of one kind that were held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) lines: u64,
}

#[derive(Debug, Default)]
struct State {
    seen: HashMap<Key, Seen>,
    /// Kinds whose time is over.
    held: Vec<HeldBack>,
}

impl State {
    fn lets_through(&mut self, key: Key, message_length: usize, now: Instant) -> bool {
        if self.seen.len() >= REMEMBERED {
            self.sweep(now);
        }
        let full = self.seen.len() >= REMEMBERED;
        match self.seen.entry(key) {
            Entry::Vacant(place) => {
                if !full {
                    place.insert(Seen {
                        since: now,
                        count: 1,
                        message_length,
                    });
                }
                true
            }
            Entry::Occupied(mut place) => {
                if now.duration_since(place.get().since) < WITHIN {
                    place.get_mut().count += 1;
                    return place.get().count <= AT_MOST;
                }
                let over = std::mem::replace(
                    place.get_mut(),
                    Seen {
                        since: now,
                        count: 1,
                        message_length,
                    },
                );
                let held = held(place.key(), &over);
                self.held.extend(held);
                true
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let Self { seen, held: all } = self;
        seen.retain(|key, seen| {
            let over = now.duration_since(seen.since) >= WITHIN;
            all.extend(over.then(|| held(key, seen)).flatten());
            !over
        });
    }
}

fn held(key: &Key, seen: &Seen) -> Option<HeldBack> {
    let lines = seen.count.saturating_sub(AT_MOST);
    (lines > 0).then(|| HeldBack {
        level: key.level,
        target: key.target,
        message: key.text[..seen.message_length].to_owned(),
        lines,
    })
}

/// Knows what repeats. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    state: Arc<Mutex<State>>,
    total: Arc<AtomicU64>,
}

impl Repeats {
    /// Lines held back so far.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What was held back since the last call, of kinds whose time is over; all
    /// of it at the end.
    pub(super) fn take(&self, now: Instant, at_end: bool) -> Vec<HeldBack> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sweep(if at_end { now + WITHIN } else { now });
        std::mem::take(&mut state.held)
    }

    fn lets_through(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        let mut identity = Identity::default();
        event.record(&mut identity);
        let message_length = identity.message.len();
        let key = Key {
            level: *metadata.level(),
            target: metadata.target(),
            text: identity.message + &identity.more,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let through = state.lets_through(key, message_length, now);
        if !through {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        through
    }
}

/// A layer that does not get to see what is held back.
///
/// Not a filter with `event_enabled`: where all filters disable an event that
/// way, tracing-subscriber 0.3.23 keeps their answers for the next event, which
/// is then lost.
pub(super) struct Held<L> {
    inner: L,
    repeats: Repeats,
}

impl Repeats {
    /// Keeps repeats from `inner`.
    pub(super) fn around<L>(&self, inner: L) -> Held<L> {
        Held {
            inner,
            repeats: self.clone(),
        }
    }
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Held<L> {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        self.inner.on_register_dispatch(subscriber);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.inner.on_record(id, values, context);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        self.inner.on_follows_from(id, follows, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // What was held back is told by this module, and never held back itself.
        let own = event.metadata().target() == module_path!();
        if own || self.repeats.lets_through(event, Instant::now()) {
            self.inner.on_event(event, context);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.inner.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.inner.on_close(id, context);
    }

    fn on_id_change(&self, old: &Id, new: &Id, context: Context<'_, S>) {
        self.inner.on_id_change(old, new, context);
    }
}

/// Tells what was held back, as lines of the log.
pub(super) fn tell(held: Vec<HeldBack>) {
    for HeldBack {
        level,
        target,
        message,
        lines,
    } in held
    {
        let seconds = WITHIN.as_secs();
        let of = target;
        // A macro's level is fixed where it stands.
        match level {
            Level::ERROR => tracing::error!(lines, seconds, of, repeated = message, "held back"),
            Level::WARN => tracing::warn!(lines, seconds, of, repeated = message, "held back"),
            _ => tracing::info!(lines, seconds, of, repeated = message, "held back"),
        }
    }
}

/// What makes a line another one.
#[derive(Default)]
struct Identity {
    message: String,
    more: String,
}

impl Identity {
    fn add(&mut self, field: &Field, value: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = if field.name() == "message" {
            self.message.write_fmt(value)
        } else {
            write!(self.more, "\n{}={value}", field.name())
        };
    }

    fn number(&mut self, field: &Field, value: std::fmt::Arguments<'_>) {
        if matches!(field.name(), "actor" | "shard") {
            self.add(field, value);
        }
    }
}

impl Visit for Identity {
    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::Console;
    use super::super::json::{JsonLayer, Labels};
    use super::*;

    /// The lines that such a log gets of what `act` says.
    fn lines(repeats: &Repeats, act: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let console = Console::new(move |line| -> io::Result<()> {
            sink.lock()
                .unwrap()
                .push(serde_json::from_slice(line).unwrap());
            Ok(())
        });
        let labels = Arc::new(Labels::new("s", "i", ""));
        // Filtered, as in a service: nothing that is held back may cost the next line.
        let layer = repeats.around(JsonLayer::new(labels, console));
        let layer = layer.with_filter(LevelFilter::INFO);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        Arc::into_inner(lines).unwrap().into_inner().unwrap()
    }

    #[test]
    fn repeats_are_held_back_and_told_once() {
        let repeats = Repeats::default();
        let got = lines(&repeats, || {
            for n in 0..1000_u64 {
                tracing::warn!(n, "the learner does not answer");
            }
            tracing::warn!("something else");
            tell(repeats.take(Instant::now(), false));
            tell(repeats.take(Instant::now() + WITHIN, false));
        });
        assert_eq!(got.len(), 12, "{got:#?}");
        assert_eq!(got[9]["n"], 9);
        assert_eq!(got[10]["message"], "something else");
        let told = &got[11];
        assert_eq!(
            (&told["level"], &told["message"], &told["lines"]),
            (&"warn".into(), &"held back".into(), &990.into())
        );
        assert_eq!(told["repeated"], "the learner does not answer");
        assert_eq!(repeats.total(), 990);
        assert!(repeats.take(Instant::now(), true).is_empty());
    }

    #[test]
    fn a_kind_goes_through_again_when_its_time_is_over() {
        let begin = Instant::now();
        let mut state = State::default();
        let key = || Key {
            level: Level::INFO,
            target: "t",
            text: "x".into(),
        };
        let mut through = 0;
        for at in 0..400_u64 {
            let now = begin + Duration::from_millis(100 * at);
            through += u64::from(state.lets_through(key(), 1, now));
        }
        assert_eq!(through, 40, "10 in each of 4 times 10 s");
        assert_eq!(state.held.iter().map(|h| h.lines).sum::<u64>(), 270);
        state.sweep(begin + Duration::from_secs(60));
        assert_eq!(state.held.iter().map(|h| h.lines).sum::<u64>(), 360);
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
