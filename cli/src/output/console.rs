//! Data goes to standard output, everything else to standard error.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::imaging::dataset::DataWarning;
use common::report::text::printable;
use common::run::telemetry::Console;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// All progress bars of this process; drawn only on a terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether output goes to an interactive terminal.
pub fn is_live() -> bool {
    io::stderr().is_terminal() && std::env::var_os("CI").is_none()
}

/// Writes a message to standard error; hides the bars meanwhile. Control characters are
/// escaped: names in a message may hold any.
pub fn note(text: &str) {
    let _ = write_beside_bars(format!("{}\n", printable(text)).as_bytes());
}

/// Writes a message to standard error, unless this process has written it before: a data set
/// may be loaded twice.
pub fn note_once(text: &str) {
    if is_new(text) {
        note(text);
    }
}

/// Whether this process asks about this text for the first time.
fn is_new(text: &str) -> bool {
    static SHOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    shown.insert(text.to_owned())
}

/// Most warnings of one data set that are written.
const WARNINGS_SHOWN: usize = 20;

/// Writes the warnings of a data set to standard error.
pub fn data_warnings(warnings: &[DataWarning]) {
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        note_once(&format!("warning: {warning}"));
    }
    let more = warnings.len().saturating_sub(WARNINGS_SHOWN);
    if more > 0 {
        note_once(&format!(
            "{more} more warnings; `landmarl data check` lists all"
        ));
    }
}

/// Writes text to standard output; control characters are escaped, as in [`note`].
pub fn data(text: &str) -> io::Result<()> {
    raw(&printable(text))
}

/// Writes text to standard output as it is: JSON, or a script.
pub fn raw(text: &str) -> io::Result<()> {
    let written = BARS.suspend(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    });
    match written {
        // `landmarl eval … | head` is not an error.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a value as indented JSON to standard output.
pub fn json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    Ok(raw(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// The console of the log: standard error, without disturbing the bars.
pub fn log_lines() -> Console {
    Console::new(write_beside_bars)
}

fn write_beside_bars(line: &[u8]) -> io::Result<()> {
    if is_live() {
        BARS.suspend(|| io::stderr().lock().write_all(line))
    } else {
        io::stderr().lock().write_all(line)
    }
}

/// A bar with `template`; hidden without a terminal.
pub fn bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    let bar = if is_live() { BARS.add(bar) } else { bar };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}

/// Interval between lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A progress display: a bar on a terminal, otherwise periodic lines.
#[derive(Debug)]
pub struct Counter {
    bar: ProgressBar,
    unit: &'static str,
    /// When the last line was written; `None` on a terminal.
    last_line: Option<Mutex<Instant>>,
    began: Instant,
}

/// Counts to `total`; `unit` is a plural.
pub fn counter(total: u64, unit: &'static str) -> Counter {
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    Counter {
        bar: bar(total, &template),
        unit,
        last_line: (!is_live()).then(|| Mutex::new(Instant::now())),
        began: Instant::now(),
    }
}

impl Counter {
    /// Reports that `done` of `total` are complete.
    pub fn set(&self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        let Some(last_line) = &self.last_line else {
            return;
        };
        let mut last_line = last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            note(&line(done, total, self.unit, self.began.elapsed()));
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn line(done: usize, total: usize, unit: &str, elapsed: Duration) -> String {
    let per_s = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = total.saturating_sub(done) as f64 / per_s.max(1e-9);
    format!("{done}/{total} {unit}, {per_s:.1}/s, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_rate_and_time_left() {
        let text = line(30, 120, "trajectories", Duration::from_secs(20));
        assert_eq!(text, "30/120 trajectories, 1.5/s, 60 s left");
    }

    #[test]
    fn a_note_is_new_once() {
        let times = |text: &str| (0..3).filter(|_| is_new(text)).count();
        assert_eq!([times("one scan"), times("another scan")], [1, 1]);
    }
}
