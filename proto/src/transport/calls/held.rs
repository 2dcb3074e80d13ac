//! What the calls of one connection share.

use std::net::IpAddr;
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
    /// For streams of large replies.
    pub(super) replies: Budget,
    pub(super) unread: Unread,
    streams: Arc<Semaphore>,
}

impl Held {
    /// That of a new connection of this address.
    pub(in crate::transport) fn new(address: IpAddr) -> Self {
        Self {
            budget: Budget::requests(address),
            replies: Budget::replies(address),
            unread: Unread::default(),
            streams: Arc::new(Semaphore::new(REPLY_STREAMS)),
        }
    }

    /// A place for a stream of large replies; `None` if there are [`REPLY_STREAMS`].
    pub(in crate::transport) fn reply_stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
