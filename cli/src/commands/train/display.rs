//! Progress of the training: a bar on a terminal, otherwise a line every ten seconds.

use std::time::{Duration, Instant};

use common::report::text::one_line;
use indicatif::ProgressBar;
use learner::Progress;

use crate::output::console;

/// Interval between lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Rates are means over this many seconds (`learner::report::rates`).
const RATE_WINDOW_S: f64 = 15.0;

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
            bar.set_message(one_line(&describe(moment)).into_owned());
            return;
        }
        let due = |at| now.duration_since(at) >= LINE_INTERVAL;
        if self.last_line.is_none_or(due) {
            self.last_line = Some(now);
            console::note(&format!("{done}/{total} updates  {}", describe(moment)));
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Why no update is made, in a user's words: before the first one, and where none was made for
/// as long as rates count. A limiter that holds either side back for a moment is at work, not in
/// trouble.
pub fn waiting(p: &Progress, min_rows: u64) -> Option<String> {
    let rows = p.rows.rows;
    match p.training_s {
        None if rows < min_rows => Some(format!("collecting rows: {rows} of {min_rows}")),
        None => Some("starting".to_owned()),
        Some(began) => {
            let (sampling_blocked, _) = p.rows.blocked;
            let stuck = began >= RATE_WINDOW_S && p.pace.updates_per_s <= 0.0 && !p.trained;
            let text = "training waits for rows of the actors";
            (stuck && sampling_blocked).then(|| text.to_owned())
        }
    }
}

fn describe(m: &Moment) -> String {
    let p = &m.progress;
    let steps = rate(p.pace.env_steps_per_s, "steps/s");
    let left = p.left_s.filter(|_| !p.trained).map(left);
    if let Some(waiting) = &m.waiting {
        let parts = [waiting.clone(), steps].into_iter().chain(left);
        return parts.collect::<Vec<_>>().join("  ");
    }
    let mut parts = vec![
        rate(p.pace.updates_per_s, "updates/s"),
        steps,
        format!("{:.1} samples/insert", p.rows.samples_per_insert),
    ];
    parts.extend((p.train.updates > 0).then(|| format!("loss {:.4}", p.train.loss)));
    let validation = |(best, last): (f64, f64)| format!("validation {last:.2} mm (best {best:.2})");
    parts.extend(m.validation_mm.map(validation));
    parts.extend(left);
    parts.join("  ")
}

fn left(seconds: f64) -> String {
    match seconds / 60.0 {
        ..1.0 => format!("{seconds:.0} s left"),
        minutes @ ..90.0 => format!("{minutes:.0} min left"),
        minutes => format!("{:.1} h left", minutes / 60.0),
    }
}

fn rate(per_s: f64, unit: &str) -> String {
    match per_s {
        100.0.. => format!("{per_s:.0} {unit}"),
        _ if per_s > 0.0 => format!("{per_s:.1} {unit}"),
        _ => format!("– {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_described_with_rates_and_the_time_left() {
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
            describe(&moment),
            "10.0 updates/s  – steps/s  5.0 samples/insert  loss 0.1234  validation 2.00 mm (best 1.50)  2 min left"
        );
        moment.waiting = Some("filling the table".into());
        moment.progress.pace.env_steps_per_s = 1234.5;
        assert_eq!(
            describe(&moment),
            "filling the table  1234 steps/s  2 min left"
        );
        moment.progress.trained = true;
        assert_eq!(describe(&moment), "filling the table  1234 steps/s");
        let times = [59.0, 60.0 * 89.0, 3600.0 * 2.5].map(left);
        assert_eq!(times, ["59 s left", "89 min left", "2.5 h left"]);
    }

    #[test]
    fn a_limiter_at_work_is_not_shown_and_a_training_without_updates_says_why() {
        let mut p = Progress::default();
        p.rows.limiter = "sampling waits for inserts: 5 × 100 − 900 < −400".into();
        p.rows.blocked = (true, false);
        p.rows.rows = 120;
        assert_eq!(waiting(&p, 3000).unwrap(), "collecting rows: 120 of 3000");
        p.rows.rows = 3000;
        assert_eq!(waiting(&p, 3000).unwrap(), "starting");
        (p.training_s, p.pace.updates_per_s) = (Some(90.0), 4.0);
        assert_eq!(waiting(&p, 3000), None, "it blocks for a moment");
        p.pace.updates_per_s = 0.0;
        let text = "training waits for rows of the actors";
        assert_eq!(waiting(&p, 3000).unwrap(), text);
        p.rows.blocked = (false, false);
        assert_eq!(waiting(&p, 3000), None, "an update may take that long");
        p.rows.blocked = (true, false);
        p.training_s = Some(2.0);
        assert_eq!(waiting(&p, 3000), None, "rates are not known yet");
        (p.training_s, p.trained) = (Some(90.0), true);
        assert_eq!(waiting(&p, 3000), None, "nothing is left to train");
    }
}
