//! Progress by bytes: a bar with the time left on a terminal, plain lines
//! everywhere else.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far one piece of work is.
#[derive(Debug)]
pub struct Progress {
    what: String,
    bar: ProgressBar,
    started: Instant,
    said: Instant,
    plain: bool,
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);
const BAR: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";

impl Progress {
    /// Starts the display of `what`, with `total` bytes to go.
    pub fn new(what: &str, total: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::new(total);
        bar.set_draw_target(if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            bar,
            started: now,
            said: now,
            plain,
        }
    }

    /// `bytes` more are done.
    pub fn add(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        if self.plain && self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!(
                "{}: {} of {} MB, about {} s left",
                self.what,
                done / 1_000_000,
                all / 1_000_000,
                self.bar.eta().as_secs()
            );
        }
    }

    /// Ends the display with one line.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        println!(
            "{}: {} MB in {:.1} s",
            self.what,
            self.bar.position() / 1_000_000,
            self.started.elapsed().as_secs_f64()
        );
    }
}
