//! Bytes of messages that are on their way, in either direction: per connection, per address and in
//! all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::security::crowd::network;

/// Of one connection: room for one message of the largest size.
const CONNECTION_BYTES: usize = 16 << 20;
/// Of all connections of one address: half of all, so that the messages of others arrive.
const ADDRESS_BYTES: usize = 48 << 20;
/// Of all connections of a process.
const PROCESS_BYTES: usize = 96 << 20;
/// Budgets are counted in units of this many bytes.
const UNIT: usize = 1 << 10;

/// What all connections of a process share.
struct Pool {
    process: Arc<Semaphore>,
    /// Of the addresses that have connections.
    addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

static REQUESTS: LazyLock<Pool> = LazyLock::new(Pool::new);
static REPLIES: LazyLock<Pool> = LazyLock::new(Pool::new);

impl Pool {
    fn new() -> Self {
        Self {
            process: Arc::new(Semaphore::new(PROCESS_BYTES / UNIT)),
            addresses: Mutex::default(),
        }
    }

    /// The part of all connections of this address.
    fn address(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut known = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if let Some(shared) = known.get(&address).and_then(Weak::upgrade) {
            return shared;
        }
        known.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Semaphore::new(ADDRESS_BYTES / UNIT));
        known.insert(address, Arc::downgrade(&shared));
        shared
    }

    fn budget(&self, address: IpAddr) -> Budget {
        Budget {
            connection: Arc::new(Semaphore::new(CONNECTION_BYTES / UNIT)),
            address: self.address(address),
            process: Arc::clone(&self.process),
        }
    }
}

/// What one connection may hold. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    connection: Arc<Semaphore>,
    address: Arc<Semaphore>,
    process: Arc<Semaphore>,
}

/// A part of each budget, returned on drop.
#[derive(Debug)]
pub(super) struct Reserved {
    _connection: Option<OwnedSemaphorePermit>,
    _address: Option<OwnedSemaphorePermit>,
    _process: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// For the requests of a new connection of this address.
    pub(crate) fn requests(address: IpAddr) -> Self {
        REQUESTS.budget(address)
    }

    /// For the streams of large replies of a new connection of this address.
    pub(crate) fn replies(address: IpAddr) -> Self {
        REPLIES.budget(address)
    }

    /// Waits until this many bytes are free; those who wait are served in order.
    pub(super) async fn reserve(self, bytes: usize) -> Reserved {
        let units = bytes.div_ceil(UNIT).min(CONNECTION_BYTES / UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // Neither is ever closed.
        Reserved {
            _connection: self.connection.acquire_many_owned(units).await.ok(),
            _address: self.address.acquire_many_owned(units).await.ok(),
            _process: self.process.acquire_many_owned(units).await.ok(),
        }
    }

    /// One connection of a process with these budgets.
    #[cfg(test)]
    pub(super) fn of(connection: usize, process: &Arc<Semaphore>) -> Self {
        Self {
            connection: Arc::new(Semaphore::new(connection / UNIT)),
            address: Arc::new(Semaphore::new(ADDRESS_BYTES / UNIT)),
            process: Arc::clone(process),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn one_connection_leaves_a_part_to_others_and_each_gets_its_turn() {
        let process = Arc::new(Semaphore::new(4));
        let [one, other] = [3 * UNIT, 3 * UNIT].map(|bytes| Budget::of(bytes, &process));
        let tries = async |budget: &Budget, bytes| {
            let wait = std::time::Duration::from_millis(20);
            timeout(wait, budget.clone().reserve(bytes)).await.ok()
        };
        let held = tries(&one, 2 * UNIT + 1).await;
        assert!(held.is_some());
        assert!(tries(&one, 1).await.is_none(), "its own budget is used up");
        let small = tries(&other, UNIT).await;
        assert!(small.is_some());
        assert!(tries(&other, UNIT).await.is_none(), "that of the process");
        drop(held);
        assert!(tries(&other, 2 * UNIT).await.is_some());
    }

    #[tokio::test]
    async fn a_message_of_the_largest_size_fits() {
        let most = crate::transport::channel::MESSAGE_BYTES_MAX;
        Budget::requests([10, 0, 0, 1].into()).reserve(most).await;
    }

    #[tokio::test]
    async fn all_connections_of_one_address_leave_half_to_others() {
        let new = |last| Budget::requests([203, 0, 113, last].into());
        let mut flood: Vec<_> = (0..20)
            .map(|_| Box::pin(new(1).reserve(CONNECTION_BYTES)))
            .collect();
        let mut held = Vec::new();
        for reserve in &mut flood {
            let wait = std::time::Duration::from_millis(5);
            held.extend(timeout(wait, reserve).await.ok());
        }
        assert_eq!(held.len(), ADDRESS_BYTES / CONNECTION_BYTES);
        let wait = std::time::Duration::from_secs(10);
        let other = timeout(wait, new(2).reserve(CONNECTION_BYTES)).await;
        assert!(other.is_ok(), "the address that has nothing waits");
        drop((held, flood));
        drop(new(3));
        let known = REQUESTS.addresses.lock().unwrap();
        assert!(!known.contains_key(&IpAddr::from([203, 0, 113, 1])));
    }
}
