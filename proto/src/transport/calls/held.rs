//! What the calls of one connection share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::Budget;
use super::replies::Unread;

/// Streams of large replies (weights, checkpoints) of one connection.
const REPLY_STREAMS: usize = 8;

/// What the calls of one connection share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(super) budget: Budget,
    pub(super) unread: Unread,
    streams: Arc<Semaphore>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            unread: Unread::default(),
            streams: Arc::new(Semaphore::new(REPLY_STREAMS)),
        }
    }
}

impl Held {
    /// A place for a stream of large replies; `None` if there are [`REPLY_STREAMS`].
    pub(in crate::transport) fn reply_stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
