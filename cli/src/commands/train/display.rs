//! What a person sees while training goes on: one bar on a terminal, a line
//! every ten seconds elsewhere.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::output::console;

/// Between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Weight of the newest rate in the smoothed one.
const SMOOTHING: f64 = 0.3;

/// The state of the training at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moment {
    pub updates: u64,
    pub updates_total: u64,
    pub env_steps: u64,
    pub samples_per_insert: f64,
    pub loss: Option<f64>,
    /// Best and last mean error on the selection scans.
    pub validation_mm: Option<(f64, f64)>,
    /// What the limiter or the learner waits for.
    pub waiting: Option<String>,
}

/// A count that grows, and how fast.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    per_s: Option<f64>,
}

impl Rate {
    fn note(&mut self, now: Instant, count: u64) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, count));
            return;
        };
        let seconds = now.duration_since(then).as_secs_f64();
        if seconds < 0.5 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let newest = count.saturating_sub(before) as f64 / seconds;
        self.per_s = Some(
            self.per_s
                .map_or(newest, |old| old + SMOOTHING * (newest - old)),
        );
        self.last = Some((now, count));
    }
}

/// Shows moments.
#[derive(Debug)]
pub struct Display {
    bar: Option<ProgressBar>,
    updates: Rate,
    steps: Rate,
    last_line: Option<Instant>,
}

impl Display {
    pub fn new(total: u64) -> Self {
        let template = "{bar:30} {pos}/{len} updates  {msg}";
        Self {
            bar: console::is_live().then(|| console::bar(total, template)),
            updates: Rate::default(),
            steps: Rate::default(),
            last_line: None,
        }
    }

    /// Shows `moment`, if it is time to.
    pub fn show(&mut self, now: Instant, moment: &Moment) {
        self.updates.note(now, moment.updates);
        self.steps.note(now, moment.env_steps);
        let words = self.words(moment);
        if let Some(bar) = &self.bar {
            bar.set_length(moment.updates_total);
            bar.set_position(moment.updates);
            bar.set_message(words);
            return;
        }
        if self
            .last_line
            .is_none_or(|at| now.duration_since(at) >= LINE_EVERY)
        {
            self.last_line = Some(now);
            console::note(&format!(
                "{}/{} updates  {words}",
                moment.updates, moment.updates_total
            ));
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn words(&self, m: &Moment) -> String {
        if let Some(waiting) = m.waiting.as_ref().filter(|_| m.updates == 0) {
            return format!("{waiting}  {}", rate(self.steps.per_s, "steps/s"));
        }
        let mut parts = vec![
            rate(self.updates.per_s, "updates/s"),
            rate(self.steps.per_s, "steps/s"),
            format!("{:.1} samples/insert", m.samples_per_insert),
        ];
        parts.extend(m.loss.map(|l| format!("loss {l:.4}")));
        parts.extend(
            m.validation_mm
                .map(|(best, last)| format!("validation {last:.2} mm (best {best:.2})")),
        );
        parts.extend(self.left(m));
        parts.join("  ")
    }

    fn left(&self, m: &Moment) -> Option<String> {
        let per_s = self.updates.per_s.filter(|r| *r > 1e-3)?;
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        let seconds = m.updates_total.saturating_sub(m.updates) as f64 / per_s;
        let minutes = seconds / 60.0;
        Some(if minutes < 1.0 {
            format!("{seconds:.0} s left")
        } else if minutes < 90.0 {
            format!("{minutes:.0} min left")
        } else {
            format!("{:.1} h left", minutes / 60.0)
        })
    }
}

fn rate(per_s: Option<f64>, unit: &str) -> String {
    match per_s {
        None => format!("– {unit}"),
        Some(r) if r >= 100.0 => format!("{r:.0} {unit}"),
        Some(r) => format!("{r:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_the_time_left() {
        let mut display = Display {
            bar: None,
            updates: Rate::default(),
            steps: Rate::default(),
            last_line: None,
        };
        let start = Instant::now();
        display.updates.note(start, 100);
        display.updates.note(start + Duration::from_secs(2), 120);
        let moment = Moment {
            updates: 120,
            updates_total: 1320,
            samples_per_insert: 5.04,
            loss: Some(0.1234),
            validation_mm: Some((1.5, 2.0)),
            ..Moment::default()
        };
        assert_eq!(
            display.words(&moment),
            "10.0 updates/s  – steps/s  5.0 samples/insert  loss 0.1234  validation 2.00 mm (best 1.50)  2 min left"
        );
        let waiting = Moment {
            waiting: Some("filling the table".into()),
            ..Moment::default()
        };
        assert_eq!(display.words(&waiting), "filling the table  – steps/s");
    }
}
