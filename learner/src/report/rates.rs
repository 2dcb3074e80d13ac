//! Rates and shares over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::report::progress::Progress;

/// Rates are means over this window: heartbeats arrive every few seconds.
const WINDOW: Duration = Duration::from_secs(15);

/// Totals at one moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    updates: u64,
    env_steps: u64,
    episodes: u64,
    train_wait_s: f64,
    limited_s: f64,
    collate_busy_s: f64,
}

impl Mark {
    fn new(at: Instant, p: &Progress) -> Self {
        Self {
            at,
            updates: p.train.updates,
            env_steps: p.actors.env_steps,
            episodes: p.actors.episodes,
            train_wait_s: p.train.train_wait_s,
            limited_s: p.train.limited_s,
            collate_busy_s: p.collate.collate_busy_s,
        }
    }
}

/// Turns totals into rates.
#[derive(Debug)]
pub struct Rates {
    /// Oldest first.
    marks: VecDeque<Mark>,
    requests: f64,
}

impl Rates {
    /// Counts from the totals of `begin`; `prefetch` requests for batches run concurrently.
    pub fn new(now: Instant, begin: &Progress, prefetch: usize) -> Self {
        Self {
            marks: VecDeque::from([Mark::new(now, begin)]),
            requests: prefetch.max(1) as f64,
        }
    }

    /// Fills in the rates and shares of `progress`, whose totals are those at `now`.
    pub fn fill(&mut self, now: Instant, progress: &mut Progress) {
        while let Some(next) = self.marks.get(1)
            && now.duration_since(next.at) >= WINDOW
        {
            self.marks.pop_front();
        }
        let now = Mark::new(now, progress);
        if let Some(then) = self.marks.front() {
            let seconds = now.at.duration_since(then.at).as_secs_f64().max(1e-3);
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            let pace = &mut progress.pace;
            pace.updates_per_s = rate(now.updates, then.updates);
            pace.env_steps_per_s = rate(now.env_steps, then.env_steps);
            pace.episodes_per_s = rate(now.episodes, then.episodes);
            let share = |new: f64, old: f64| ((new - old) / seconds).clamp(0.0, 1.0);
            pace.train_wait_share = share(now.train_wait_s, then.train_wait_s);
            pace.collate_share = share(now.collate_busy_s, then.collate_busy_s);
            let limited = |m: &Mark| m.limited_s / self.requests;
            pace.limited_share = share(limited(&now), limited(then));
        }
        self.marks.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::stats::TrainStats;

    #[test]
    fn rates_are_means_over_the_last_fifteen_seconds() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let with = |updates: u64, limited_s: f64| Progress {
            train: TrainStats {
                updates,
                limited_s,
                ..TrainStats::default()
            },
            ..Progress::default()
        };
        let resumed = with(1000, 0.0);
        let mut rates = Rates::new(begin, &resumed, 4);
        let mut fill = |s: u64, updates: u64, limited_s: f64| {
            let mut progress = with(updates, limited_s);
            rates.fill(at(s), &mut progress);
            (progress.pace.updates_per_s, progress.pace.limited_share)
        };
        assert_eq!(fill(5, 1010, 0.0), (2.0, 0.0));
        assert_eq!(fill(10, 1020, 0.0), (2.0, 0.0));
        assert_eq!(fill(15, 1030, 0.0), (2.0, 0.0));
        // The first five seconds have left the window.
        assert_eq!(fill(20, 1080, 30.0), (70.0 / 15.0, 0.5));
    }
}
