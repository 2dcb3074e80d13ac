//! Detects stalls: neither inserts nor samples for some time.

use std::time::Duration;

/// Time without an insert or a sample until the first warning.
const NOTICED: Duration = Duration::from_secs(30);

/// Watches the limiter's totals. A limiter with a validated range cannot block
/// both sides; failed peers, full disks and bugs can.
#[derive(Debug)]
pub(crate) struct Standstill {
    totals: (u64, u64),
    since: Duration,
    /// Time until the next warning; doubles each time.
    next: Duration,
}

impl Standstill {
    pub(crate) fn new() -> Self {
        Self {
            totals: (0, 0),
            since: Duration::ZERO,
            next: NOTICED,
        }
    }

    /// Records the totals at a moment; returns how long they have not changed when a
    /// warning is due.
    pub(crate) fn see(&mut self, inserted: u64, sampled: u64, now: Duration) -> Option<Duration> {
        if self.totals != (inserted, sampled) {
            *self = Self {
                totals: (inserted, sampled),
                since: now,
                next: NOTICED,
            };
        }
        let stood = now.saturating_sub(self.since);
        (stood >= self.next).then(|| {
            self.next = stood * 2;
            stood
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_at_doubling_intervals_and_progress_resets_them() {
        let mut watch = Standstill::new();
        let reported: Vec<u64> = (0..400)
            .filter(|&s| watch.see(7, 9, Duration::from_secs(s)).is_some())
            .collect();
        assert_eq!(reported, [30, 60, 120, 240]);
        let reported: Vec<u64> = (400..500)
            .filter(|&s| {
                watch
                    .see(8, 9 + s.min(450), Duration::from_secs(s))
                    .is_some()
            })
            .collect();
        assert_eq!(reported, [480]);
    }
}
