//! The log while the process runs: its level, its run, and what became of lines.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::EnvFilter;

use super::json::Labels;
use super::repeats::{self, Repeats};
use super::{TelemetryError, filter};

/// How often lines that were held back are told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The log of this process, once it is set up.
static CURRENT: OnceLock<Control> = OnceLock::new();

type Reload = dyn Fn(&dyn Fn() -> Option<EnvFilter>) + Send + Sync;

/// Changes the level while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    level: Mutex<String>,
    reload: Box<Reload>,
    labels: Arc<Labels>,
    /// Lines that the disk refused.
    refused: Arc<AtomicU64>,
    /// Lines that found no room to wait for it.
    slow: Option<ErrorCounter>,
    repeats: Repeats,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(
        level: &str,
        reload: impl Fn(&dyn Fn() -> Option<EnvFilter>) + Send + Sync + 'static,
        labels: Arc<Labels>,
        refused: Arc<AtomicU64>,
        slow: Option<ErrorCounter>,
        repeats: Repeats,
    ) -> Self {
        let control = Self(Arc::new(Inner {
            level: Mutex::new(level.to_owned()),
            reload: Box::new(reload),
            labels,
            refused,
            slow,
            repeats,
        }));
        CURRENT.get_or_init(|| control.clone());
        control
    }

    /// The level, or filter, that is in force.
    #[must_use]
    pub fn level(&self) -> String {
        let level = self.0.level.lock();
        level.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs at another level from now on.
    ///
    /// # Errors
    /// When it is neither a level nor a filter; nothing has changed then.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let level = level.trim();
        filter(level)?;
        (self.0.reload)(&|| filter(level).ok());
        let mut now = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, level.to_owned());
        drop(now);
        tracing::warn!(before, now = level, "the log level changed");
        Ok(())
    }

    /// Lines that were dropped because the disk was too slow, full or gone.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        let slow = self.0.slow.as_ref().map_or(0, ErrorCounter::dropped_lines);
        self.0.refused.load(Ordering::Relaxed) + slow as u64
    }

    /// Lines that were held back because they repeated.
    #[must_use]
    pub fn held_back_lines(&self) -> u64 {
        self.0.repeats.total()
    }
}

/// Names the run in all lines from now on, where none was named before: an
/// actor and a shard learn it from their learner.
pub fn name_run(run: &str) {
    if let Some(control) = CURRENT.get() {
        control.0.labels.name_run(run);
    }
}

/// Tells every now and then what was held back, and once more when dropped.
#[derive(Debug)]
pub(super) struct Teller {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    pub(super) fn start(repeats: Repeats) -> Result<Self, TelemetryError> {
        let (stop, stopped) = channel::<()>();
        let tell = move || {
            while stopped.recv_timeout(TELL_EVERY) == Err(RecvTimeoutError::Timeout) {
                repeats::tell(repeats.take(Instant::now(), false));
            }
            repeats::tell(repeats.take(Instant::now(), true));
        };
        let thread = std::thread::Builder::new()
            .name("log-repeats".into())
            .spawn(tell)
            .map_err(TelemetryError::Thread)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        drop(self.stop.take());
        // If it panicked, there is nothing left to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
