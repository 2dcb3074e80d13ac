//! Runtime changes of the log level, and counters of lines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::ErrorCounter;

use super::TelemetryError;
use super::json::Labels;
use super::repeats::{self, Repeats, WITHIN};

/// Interval between reports of suppressed lines.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The log of this process, after its setup.
static CURRENT: OnceLock<Control> = OnceLock::new();

/// Changes the level while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

type SetLevel = dyn Fn(&str) -> Result<(), TelemetryError> + Send + Sync;

pub(super) struct Inner {
    pub(super) level: Mutex<String>,
    pub(super) set_level: Box<SetLevel>,
    pub(super) labels: Arc<Labels>,
    /// Lines that the disk refused.
    pub(super) refused: Arc<AtomicU64>,
    /// Lines dropped because the queue for the disk was full.
    pub(super) crowded_out: Option<ErrorCounter>,
    pub(super) repeats: Repeats,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({})", self.level())
    }
}

impl Control {
    pub(super) fn new(inner: Inner) -> Self {
        let control = Self(Arc::new(inner));
        CURRENT.get_or_init(|| control.clone());
        control
    }

    /// The current level, or filter.
    #[must_use]
    pub fn level(&self) -> String {
        let level = self.0.level.lock();
        level.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the level.
    /// Fails when it is not a level or filter; the old level stays then.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let level = level.trim();
        (self.0.set_level)(level)?;
        let mut now = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, level.to_owned());
        drop(now);
        tracing::warn!(before, now = level, "the log level changed");
        Ok(())
    }

    /// Lines dropped because the disk was too slow, full or missing.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        let crowded_out = self.0.crowded_out.as_ref();
        let crowded_out = crowded_out.map_or(0, ErrorCounter::dropped_lines);
        self.0.refused.load(Ordering::Relaxed) + crowded_out as u64
    }

    /// Suppressed lines.
    #[must_use]
    pub fn held_back_lines(&self) -> u64 {
        self.0.repeats.total()
    }
}

/// Sets the name of the run in all later lines, unless it has a name: actors and
/// shards get it from their learner.
pub fn name_run(run: &str) {
    if let Some(control) = CURRENT.get() {
        control.0.labels.name_run(run);
    }
}

/// A thread that reports suppressed lines regularly, and once more when dropped.
#[derive(Debug)]
pub(super) struct Reporter(Option<(Sender<()>, JoinHandle<()>)>);

impl Reporter {
    /// Reports the lines that `reported` suppressed; those of `silent` are discarded.
    pub(super) fn start(reported: Repeats, silent: Repeats) -> Result<Self, TelemetryError> {
        let (stop, stopped) = channel::<()>();
        let report = move || loop {
            let ends = stopped.recv_timeout(REPORT_EVERY) != Err(RecvTimeoutError::Timeout);
            // At the end, all lines are due.
            let now = Instant::now() + if ends { WITHIN } else { Duration::ZERO };
            silent.take(now);
            repeats::log(reported.take(now));
            if ends {
                return;
            }
        };
        let thread = std::thread::Builder::new().name("log-repeats".into());
        let thread = thread.spawn(report).map_err(TelemetryError::Thread)?;
        Ok(Self(Some((stop, thread))))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            // If it panicked, there is nothing left to report.
            let _ = thread.join();
        }
    }
}
