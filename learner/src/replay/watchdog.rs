//! Notices when rows neither come nor go.

use std::time::Duration;

/// So long without an insert or a sample is worth a line.
const NOTICED: Duration = Duration::from_secs(30);

/// Watches the ledger's totals. A limiter whose range is checked cannot block
/// both sides; dead peers, full disks and mistakes of ours can.
#[derive(Debug)]
pub(crate) struct Standstill {
    totals: (u64, u64),
    since: Duration,
    /// The next line comes after so long; twice as long each time.
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

    /// Takes note of the totals at a moment; how long they have stood, where
    /// that is worth a line.
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
    fn what_stands_is_told_again_after_twice_as_long_and_anew_after_a_move() {
        let mut watch = Standstill::new();
        let told: Vec<u64> = (0..400)
            .filter(|&s| watch.see(7, 9, Duration::from_secs(s)).is_some())
            .collect();
        assert_eq!(told, [30, 60, 120, 240]);
        let told: Vec<u64> = (400..500)
            .filter(|&s| {
                watch
                    .see(8, 9 + s.min(450), Duration::from_secs(s))
                    .is_some()
            })
            .collect();
        assert_eq!(told, [480]);
    }
}
