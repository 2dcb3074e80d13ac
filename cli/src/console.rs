//! Data goes to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::LazyLock;

use common::telemetry::Console;
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
