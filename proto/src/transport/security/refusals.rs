//! Refusals of a peer are logged once per interval, not once per attempt: a peer decides how
//! often it tries, and must not fill the disk with logs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::run::throttle::Throttle;

/// Interval between log lines about one kind of refusal of one peer.
const INTERVAL: Duration = Duration::from_secs(60);
/// Peers and kinds with a throttle of their own; more share one per kind.
const SEPARATE_MAX: usize = 4096;

/// The address in place of all peers beyond [`SEPARATE_MAX`].
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One throttle for each peer and kind of refusal.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<(IpAddr, &'static str), Throttle>>);

impl Refusals {
    /// The number of refusals suppressed before this one; `None` if it should not be logged now.
    pub(super) fn warning(&self, peer: IpAddr, kind: &'static str, now: Instant) -> Option<u64> {
        // A panic elsewhere leaves no throttle half changed.
        let mut throttles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (peer, kind);
        if !throttles.contains_key(&key) && throttles.len() >= SEPARATE_MAX {
            throttles.retain(|_, throttle| !throttle.is_due(now));
            if throttles.len() >= SEPARATE_MAX {
                key = (OTHERS, kind);
            }
        }
        let throttle = throttles
            .entry(key)
            .or_insert_with(|| Throttle::new(INTERVAL));
        Some(throttle.warning(now)?.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_logged_once_per_interval_with_a_count() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let [one, two] = [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)));
        assert_eq!(refusals.warning(one, "token", begin), Some(0));
        for _ in 0..3 {
            assert_eq!(refusals.warning(one, "token", begin + INTERVAL / 2), None);
        }
        assert_eq!(refusals.warning(one, "role", begin), Some(0));
        assert_eq!(refusals.warning(two, "token", begin), Some(0));
        assert_eq!(refusals.warning(one, "token", begin + INTERVAL), Some(3));
        assert_eq!(
            refusals.warning(one, "token", begin + 2 * INTERVAL),
            Some(0)
        );
    }

    #[test]
    fn a_crowd_shares_one_line_and_bounded_memory() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from(n + 1));
        let crowd = u32::try_from(SEPARATE_MAX).unwrap();
        assert!((0..crowd).all(|n| refusals.warning(peer(n), "tls", now) == Some(0)));
        assert_eq!(refusals.warning(peer(crowd), "tls", now), Some(0));
        assert_eq!(refusals.warning(peer(crowd + 1), "tls", now), None);
        assert!(refusals.0.lock().unwrap().len() <= SEPARATE_MAX + 1);
        // Old ones make room.
        assert_eq!(
            refusals.warning(peer(crowd), "tls", now + INTERVAL),
            Some(0)
        );
        assert_eq!(refusals.0.lock().unwrap().len(), 1);
    }
}
