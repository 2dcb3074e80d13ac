//! Those that make a service wait for them: connections that are not open yet, and calls whose
//! request is not whole. Where there are too many, the oldest of the address with the most of them
//! goes. It had the most time, while the newest may be that of an honest peer, which needs
//! milliseconds, and so may the only one of another address.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// In all.
    pub(crate) all: usize,
    /// Of one address.
    pub(crate) per_address: usize,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    size: Size,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Oldest first.
    all: VecDeque<Entry>,
    /// Number of the next one.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    address: IpAddr,
    /// Dropped with this entry, which its owner notices.
    _stay: oneshot::Sender<()>,
}

impl Entries {
    /// Removes the oldest one of an address with the most.
    fn make_room(&mut self) {
        let counts = count(self.all.iter().map(|entry| entry.address));
        let most = counts.values().copied().max().unwrap_or(0);
        let of_most = |entry: &Entry| counts.get(&entry.address) == Some(&most);
        let oldest = self.all.iter().position(of_most);
        oldest.and_then(|at| self.all.remove(at));
    }
}

/// How often each address occurs.
pub(crate) fn count(addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, usize> {
    let mut counts = HashMap::new();
    for address in addresses {
        *counts.entry(address).or_default() += 1;
    }
    counts
}

impl Crowd {
    pub(crate) fn new(size: Size) -> Self {
        let entries = Arc::default();
        Self { size, entries }
    }

    /// Adds one of this address, until the result is dropped.
    pub(crate) fn enter(&self, address: IpAddr) -> Waiting {
        let address = network(address);
        let own = |entry: &Entry| entry.address == address;
        let mut entries = self.lock();
        if entries.all.iter().filter(|e| own(e)).count() >= self.size.per_address {
            let oldest = entries.all.iter().position(own);
            oldest.and_then(|at| entries.all.remove(at));
        } else if entries.all.len() >= self.size.all {
            entries.make_room();
        }
        let number = entries.next;
        entries.next += 1;
        let (stay, gone) = oneshot::channel();
        entries.all.push_back(Entry {
            number,
            address,
            _stay: stay,
        });
        let crowd = self.clone();
        Waiting {
            crowd,
            number,
            gone,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every change is complete before the lock is released.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a crowd. As a future it completes when it has to go.
#[derive(Debug)]
pub(crate) struct Waiting {
    crowd: Crowd,
    number: u64,
    gone: oneshot::Receiver<()>,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.gone).poll(context).map(|_| ())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.crowd.lock().all.retain(|e| e.number != self.number);
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, all of whose addresses one machine
/// may use.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_one_machine_may_use_count_as_one() {
        for (one, other, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            let [one, other] = [one, other].map(|a| network(address(a)));
            assert_eq!(one == other, same, "{one} {other}");
        }
    }

    #[test]
    fn the_oldest_makes_room_first_that_of_the_same_address() {
        let crowd = Crowd::new(Size {
            all: 5,
            per_address: 3,
        });
        let enter = |of: &str| crowd.enter(address(of));
        let has_gone = |waiting: &mut Waiting| {
            waiting.gone.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let mut one: Vec<_> = (0..3).map(|_| enter("10.0.0.1")).collect();
        assert!(!has_gone(&mut one[0]));
        one.push(enter("10.0.0.1"));
        let gone: Vec<_> = one.iter_mut().map(has_gone).collect();
        assert_eq!(gone, [true, false, false, false]);
        // One that is done makes room.
        drop(one.pop());
        one.push(enter("10.0.0.1"));
        assert!(!has_gone(&mut one[1]));
        let _others = [enter("10.0.0.2"), enter("10.0.0.3")];
        assert!(!has_gone(&mut one[1]));
        let _last = enter("10.0.0.4");
        assert!(has_gone(&mut one[1]) && !has_gone(&mut one[2]));
        assert_eq!(crowd.lock().all.len(), 5);
        drop(one);
        assert_eq!(crowd.lock().all.len(), 3);
    }

    #[test]
    fn an_address_with_many_takes_the_place_of_none_that_has_fewer() {
        let crowd = Crowd::new(Size {
            all: 6,
            per_address: 6,
        });
        let enter = |of: &str| crowd.enter(address(of));
        let mut honest = enter("10.0.0.1");
        let _flood: Vec<_> = (0..20).map(|_| enter("10.0.0.2")).collect();
        let _other_flood: Vec<_> = (0..20).map(|_| enter("10.0.0.3")).collect();
        let gone = honest.gone.try_recv();
        assert_eq!(gone, Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(crowd.lock().all.len(), 6);
    }
}
