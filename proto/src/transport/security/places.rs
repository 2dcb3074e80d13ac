//! How many connections there may be. All limits follow from how many files the process may
//! open, less a reserve: without one left, a journal or a checkpoint could not be written.

use super::crowd::{Crowd, Size, Waiting, network};
use common::run::machine;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Connections of all gRPC ports of a process, at most.
const GRPC_MAX: usize = 16_384;
/// Connections of its HTTP port, at most.
const HTTP_MAX: usize = 256;
/// Of one address, at most: an actor has one per service.
const PER_ADDRESS_MAX: usize = 1024;
/// Of one address and not open yet, at most. Opening takes an honest peer milliseconds.
const OPENING_PER_ADDRESS_MAX: usize = 64;
/// Files that connections leave to journals, checkpoints, scans and logs, at most.
const RESERVE_MAX: usize = 1024;

/// Connections of all gRPC ports of this process.
static GRPC: LazyLock<Places> =
    LazyLock::new(|| Places::new(Limits::of_files(machine::open_files_max()).0));
/// Connections of all HTTP ports of this process.
static HTTP: LazyLock<Places> =
    LazyLock::new(|| Places::new(Limits::of_files(machine::open_files_max()).1));

/// Limits on the connections of one kind of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) connections: usize,
    /// Of one address.
    pub(crate) per_address: usize,
    /// Not open yet.
    pub(crate) opening: Size,
}

impl Limits {
    /// The limits of gRPC and of HTTP in a process that may open this many files. Together they
    /// leave a quarter of them, up to [`RESERVE_MAX`], to everything else.
    fn of_files(files: usize) -> (Self, Self) {
        let free = files - (files / 4).min(RESERVE_MAX);
        let http = (free / 8).min(HTTP_MAX);
        let http = Self::of(http, HTTP_MAX);
        // Its server makes room for new connections. A few places are left to other addresses
        // while it does, also when one address opens many at once.
        let others = http.connections / 8;
        let http = Self {
            per_address: http.connections - others,
            opening: Size {
                per_address: others.max(1),
                ..http.opening
            },
            ..http
        };
        let rest = free.saturating_sub(http.connections);
        (Self::of(rest, GRPC_MAX), http)
    }

    /// No address has more than half of the connections, and those that say nothing are never
    /// more than a quarter.
    fn of(free: usize, most: usize) -> Self {
        let connections = free.min(most).max(1);
        let per_address = (connections / 2).clamp(1, PER_ADDRESS_MAX);
        Self {
            connections,
            per_address,
            opening: Size {
                all: (connections / 4).max(1),
                per_address: (per_address / 4).clamp(1, OPENING_PER_ADDRESS_MAX),
            },
        }
    }
}

/// Connections that an HTTP port serves. The places that are left are for new ones that take
/// the place of others.
pub(crate) fn http_served() -> usize {
    let places = HTTP.limits().connections;
    (places - places / 4).max(1)
}

/// The connections of one kind of port, by address. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
    opening: Crowd,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Arc::default(),
            opening: Crowd::new(limits.opening),
        }
    }

    /// Those of all gRPC ports of this process.
    pub(super) fn grpc() -> Self {
        GRPC.clone()
    }

    /// Those of all HTTP ports of this process.
    pub(super) fn http() -> Self {
        HTTP.clone()
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// A place for a connection of this address, freed on drop; `None` if there are too many.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or(0);
        if own >= self.limits.per_address || taken.all >= self.limits.connections {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        let places = self.clone();
        Some(Place { places, address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A panic elsewhere leaves no count half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place, freed on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Place {
    /// Counts the connection as not open yet until the result is dropped; it completes when the
    /// connection has to make room for newer ones.
    pub(super) fn opening(&self) -> Waiting {
        self.places.opening.enter(self.address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SMALL: Limits = Limits {
        connections: 10,
        per_address: 6,
        opening: Size {
            all: 5,
            per_address: 3,
        },
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_limit_on_files_leaves_some_for_journals_and_checkpoints() {
        for (files, grpc, http, reserve) in [
            (64, 42, 6, 16),
            (256, 168, 24, 64),
            (1024, 672, 96, 256),
            (4096, 2816, 256, 1024),
            (20_000, 16_384, 256, 3360),
            (usize::MAX, 16_384, 256, usize::MAX - 16_640),
        ] {
            let (of_grpc, of_http) = Limits::of_files(files);
            assert_eq!((of_grpc.connections, of_http.connections), (grpc, http));
            assert_eq!(files - grpc - http, reserve, "{files}");
            assert!(of_grpc.per_address * 2 <= grpc);
            // One address holds all that are served, and some that open; others find places.
            let of_one = http - http / 4 + of_http.opening.per_address;
            assert!(http < 8 || of_one <= of_http.per_address);
            assert!(http < 8 || of_http.per_address < http);
            for limits in [of_grpc, of_http] {
                let Size { all, per_address } = limits.opening;
                assert!(per_address <= all && all < limits.connections, "{limits:?}");
            }
        }
        let (grpc, _) = Limits::of_files(20_000);
        assert_eq!((grpc.per_address, grpc.opening.per_address), (1024, 64));
        assert!(Limits::of_files(0).0.connections > 0);
    }

    #[test]
    fn connections_of_one_address_and_in_all_are_limited_and_freed_on_drop() {
        let places = Places::new(SMALL);
        let [one, two, three] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(address);
        let take = |address, count: usize| -> Vec<Place> {
            (0..count).filter_map(|_| places.take(address)).collect()
        };
        let mut held = take(one, 7);
        assert_eq!(held.len(), 6);
        let others = take(two, 5);
        assert_eq!(others.len(), 4);
        assert!(take(three, 1).is_empty());
        held.pop();
        held.extend(take(three, 2));
        assert_eq!(held.len(), 6);
        drop((held, others));
        assert_eq!(take(one, 7).len(), 6);
    }

    #[test]
    fn nothing_is_kept_of_addresses_without_connections() {
        let places = Places::new(SMALL);
        drop(places.take(address("10.0.0.1")).unwrap());
        let taken = places.lock();
        assert!(taken.by_address.is_empty() && taken.all == 0);
    }
}
