//! Data goes to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::run::telemetry::Console;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// All progress bars of this process; drawn on a terminal only.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether a person watches.
pub fn is_live() -> bool {
    io::stderr().is_terminal() && std::env::var_os("CI").is_none()
}

/// Text for people; hides the bars meanwhile.
pub fn note(text: &str) {
    let _ = write_beside_bars(format!("{text}\n").as_bytes());
}

/// Data on standard output.
pub fn data(text: &str) -> io::Result<()> {
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

/// Where log lines go: standard error, without touching the bars.
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

/// A bar with `template`; invisible where nobody watches.
pub fn bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    let bar = if is_live() { BARS.add(bar) } else { bar };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}

/// Where nobody watches, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far something has come: a bar on a terminal, now and then a line elsewhere.
#[derive(Debug)]
pub struct Counter {
    bar: ProgressBar,
    unit: &'static str,
    /// When the last line was written; `None` on a terminal.
    told: Option<Mutex<Instant>>,
    began: Instant,
}

/// Counts to `total` things of a kind, in the plural.
pub fn counter(total: u64, unit: &'static str) -> Counter {
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    Counter {
        bar: bar(total, &template),
        unit,
        told: (!is_live()).then(|| Mutex::new(Instant::now())),
        began: Instant::now(),
    }
}

impl Counter {
    /// So many of so many are done.
    pub fn set(&self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        let Some(told) = &self.told else {
            return;
        };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            note(&line(done, total, self.unit, self.began.elapsed()));
        }
    }

    /// Takes the bar away.
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
    fn lines_tell_rate_and_time_left() {
        let told = line(30, 120, "walks", Duration::from_secs(20));
        assert_eq!(told, "30/120 walks, 1.5/s, 60 s left");
    }
}
