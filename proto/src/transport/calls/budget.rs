//! Bytes of messages that are on their way, per connection and in all.

use std::sync::{Arc, LazyLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of one connection: room for one message of the largest size.
const CONNECTION_BYTES: usize = 16 << 20;
/// Of all connections of a process.
const PROCESS_BYTES: usize = 96 << 20;
/// Budgets are counted in units of this many bytes.
const UNIT: usize = 1 << 10;

static PROCESS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(PROCESS_BYTES / UNIT)));

/// What one connection may hold. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    connection: Arc<Semaphore>,
    process: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            connection: Arc::new(Semaphore::new(CONNECTION_BYTES / UNIT)),
            process: Arc::clone(&PROCESS),
        }
    }
}

/// A part of both budgets, returned on drop.
#[derive(Debug)]
pub(super) struct Reserved {
    _connection: Option<OwnedSemaphorePermit>,
    _process: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Waits until this many bytes are free; those who wait are served in order.
    pub(super) async fn reserve(self, bytes: usize) -> Reserved {
        let units = bytes.div_ceil(UNIT).min(CONNECTION_BYTES / UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // Neither is ever closed.
        Reserved {
            _connection: self.connection.acquire_many_owned(units).await.ok(),
            _process: self.process.acquire_many_owned(units).await.ok(),
        }
    }

    /// One connection of a process with these budgets.
    #[cfg(test)]
    pub(super) fn of(connection: usize, process: &Arc<Semaphore>) -> Self {
        Self {
            connection: Arc::new(Semaphore::new(connection / UNIT)),
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
        Budget::default().reserve(most).await;
    }
}
