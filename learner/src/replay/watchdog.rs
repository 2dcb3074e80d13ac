//! Detects stalls: neither inserts nor samples for some time.

use std::time::Duration;

/// Time without an insert or a sample until the first warning.
const FIRST_WARNING: Duration = Duration::from_secs(30);

/// Watches the limiter's totals. A limiter with a validated range cannot block
/// both sides; failed peers, full disks and bugs can.
#[derive(Debug)]
pub(crate) struct StallWatchdog {
    totals: (u64, u64),
    since: Duration,
    /// Time until the next warning; doubles each time.
    next: Duration,
}

impl StallWatchdog {
    pub(crate) fn new() -> Self {
        Self {
            totals: (0, 0),
            since: Duration::ZERO,
            next: FIRST_WARNING,
        }
    }

    /// Records the totals at a moment; returns how long they have not changed when a
    /// warning is due.
    pub(crate) fn see(&mut self, inserted: u64, sampled: u64, now: Duration) -> Option<Duration> {
        if self.totals != (inserted, sampled) {
            (self.totals, self.since) = ((inserted, sampled), now);
            self.next = FIRST_WARNING;
        }
        let stalled = now.saturating_sub(self.since);
        (stalled >= self.next).then(|| {
            self.next = stalled * 2;
            stalled
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_at_doubling_intervals_and_progress_resets_them() {
        let mut watch = StallWatchdog::new();
        let mut reports = |inserted, sampled, s| {
            let now = Duration::from_secs(s);
            watch.see(inserted, sampled, now).is_some()
        };
        let reported: Vec<u64> = (0..400).filter(|&s| reports(7, 9, s)).collect();
        assert_eq!(reported, [30, 60, 120, 240]);
        let reported = (400..500).filter(|&s| reports(8, 9 + s.min(450), s));
        assert_eq!(reported.collect::<Vec<_>>(), [480]);
    }
}
