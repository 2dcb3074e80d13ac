//! Progress of the training: a bar on a terminal, otherwise a line every ten seconds.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use learner::Progress;

use crate::output::console;

/// Interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The state of the training at one point in time.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    pub progress: Progress,
    /// Best and last mean error on the validation scans.
    pub validation_mm: Option<(f64, f64)>,
    /// Why no update is possible now.
    pub waiting: Option<String>,
}

#[derive(Debug)]
pub struct Display {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Display {
    pub fn new(total: u64) -> Self {
        let template = "{bar:30} {pos}/{len} updates  {msg}";
        Self {
            bar: console::is_live().then(|| console::bar(total, template)),
            last_line: None,
        }
    }

    /// Shows `moment` if the interval has passed.
    pub fn show(&mut self, now: Instant, moment: &Moment) {
        let (done, total) = (moment.progress.train.updates, moment.progress.updates_total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(words(moment));
            return;
        }
        if self
            .last_line
            .is_none_or(|at| now.duration_since(at) >= LINE_EVERY)
        {
            self.last_line = Some(now);
            console::note(&format!("{done}/{total} updates  {}", words(moment)));
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn words(m: &Moment) -> String {
    let p = &m.progress;
    let steps = rate(p.pace.env_steps_per_s, "steps/s");
    if let Some(waiting) = &m.waiting {
        return format!("{waiting}  {steps}");
    }
    let mut parts = vec![
        rate(p.pace.updates_per_s, "updates/s"),
        steps,
        format!("{:.1} samples/insert", p.rows.samples_per_insert),
    ];
    parts.extend((p.train.updates > 0).then(|| format!("loss {:.4}", p.train.loss)));
    parts.extend(
        m.validation_mm
            .map(|(best, last)| format!("validation {last:.2} mm (best {best:.2})")),
    );
    parts.extend(p.left_s.map(left));
    parts.join("  ")
}

fn left(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    if minutes < 1.0 {
        format!("{seconds:.0} s left")
    } else if minutes < 90.0 {
        format!("{minutes:.0} min left")
    } else {
        format!("{:.1} h left", minutes / 60.0)
    }
}

fn rate(per_s: f64, unit: &str) -> String {
    if per_s >= 100.0 {
        format!("{per_s:.0} {unit}")
    } else if per_s > 0.0 {
        format!("{per_s:.1} {unit}")
    } else {
        format!("– {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_the_time_left() {
        let mut progress = Progress {
            updates_total: 1320,
            left_s: Some(120.0),
            ..Progress::default()
        };
        (progress.train.updates, progress.train.loss) = (120, 0.1234);
        progress.pace.updates_per_s = 10.0;
        progress.rows.samples_per_insert = 5.04;
        let mut moment = Moment {
            progress,
            validation_mm: Some((1.5, 2.0)),
            waiting: None,
        };
        assert_eq!(
            words(&moment),
            "10.0 updates/s  – steps/s  5.0 samples/insert  loss 0.1234  validation 2.00 mm (best 1.50)  2 min left"
        );
        moment.waiting = Some("filling the table".into());
        moment.progress.pace.env_steps_per_s = 1234.5;
        assert_eq!(words(&moment), "filling the table  1234 steps/s");
        let times = [59.0, 60.0 * 89.0, 3600.0 * 2.5].map(left);
        assert_eq!(times, ["59 s left", "89 min left", "2.5 h left"]);
    }
}
