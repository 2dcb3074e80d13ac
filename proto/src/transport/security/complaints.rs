//! What goes wrong with a peer is said once per interval, not once per attempt:
//! a peer decides how often it tries, and must not fill our disk.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same trouble with the same peer.
const EVERY: Duration = Duration::from_secs(60);
/// Peers and troubles that are told apart; more share one line per interval.
const APART_MAX: usize = 4096;

/// Everybody beyond [`APART_MAX`].
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[derive(Debug)]
struct Said {
    at: Instant,
    /// Times it happened since, without a word.
    since: u64,
}

/// What was said about whom, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<(IpAddr, &'static str), Said>>);

impl Complaints {
    /// How often it happened without a word, if it is time to say it again.
    pub(super) fn due(&self, peer: IpAddr, what: &'static str, now: Instant) -> Option<u64> {
        // Times and counts: a panic elsewhere leaves nothing half done.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (peer, what);
        if !said.contains_key(&key) && said.len() >= APART_MAX {
            said.retain(|_, said| now.duration_since(said.at) < EVERY);
            if said.len() >= APART_MAX {
                key = (OTHERS, what);
            }
        }
        match said.get_mut(&key) {
            Some(said) if now.duration_since(said.at) < EVERY => {
                said.since += 1;
                None
            }
            before => {
                let since = before.map_or(0, |said| said.since);
                said.insert(key, Said { at: now, since: 0 });
                Some(since)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_per_interval_with_a_count() {
        let complaints = Complaints::default();
        let begin = Instant::now();
        let [one, two] = [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)));
        assert_eq!(complaints.due(one, "token", begin), Some(0));
        for _ in 0..3 {
            assert_eq!(complaints.due(one, "token", begin + EVERY / 2), None);
        }
        assert_eq!(complaints.due(one, "role", begin), Some(0));
        assert_eq!(complaints.due(two, "token", begin), Some(0));
        assert_eq!(complaints.due(one, "token", begin + EVERY), Some(3));
        assert_eq!(complaints.due(one, "token", begin + 2 * EVERY), Some(0));
    }

    #[test]
    fn a_crowd_shares_one_line_and_bounded_memory() {
        let complaints = Complaints::default();
        let now = Instant::now();
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from(n + 1));
        let crowd = u32::try_from(APART_MAX).unwrap();
        assert!((0..crowd).all(|n| complaints.due(peer(n), "tls", now) == Some(0)));
        assert_eq!(complaints.due(peer(crowd), "tls", now), Some(0));
        assert_eq!(complaints.due(peer(crowd + 1), "tls", now), None);
        assert!(complaints.0.lock().unwrap().len() <= APART_MAX + 1);
        // Old ones make room.
        assert_eq!(complaints.due(peer(crowd), "tls", now + EVERY), Some(0));
        assert_eq!(complaints.0.lock().unwrap().len(), 1);
    }
}
