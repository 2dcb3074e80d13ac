//! The newest weights for an evaluator, which takes its time: it skips those in
//! between, but not the untrained ones that all others are compared with.

use std::sync::Arc;

use proto::messages::hello::Hello;
use proto::messages::weights::{Published, WatchRequest};
use tokio::sync::watch;

use crate::session::weights::Watcher;

/// What has been received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest {
    /// The untrained weights, if they were received.
    pub(crate) untrained: Option<Arc<Published>>,
    /// The newest version.
    pub(crate) newest: Option<Arc<Published>>,
}

/// Keeps the newest weights for an evaluator.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) hello: Hello,
    pub(crate) untrained_first: bool,
    pub(crate) newest: watch::Sender<Newest>,
}

impl Watcher for Follow {
    /// A learner that was restarted may count from an older version, so each
    /// stream begins with the newest.
    fn request(&self) -> WatchRequest {
        WatchRequest {
            hello: self.hello.clone(),
            newer_than: 0,
            bf16: false,
            untrained_first: self.untrained_first && self.newest.borrow().untrained.is_none(),
        }
    }

    fn take(&mut self, weights: Published) {
        let weights = Arc::new(weights);
        self.newest.send_modify(|n| {
            if weights.updates == 0 {
                n.untrained.get_or_insert_with(|| Arc::clone(&weights));
            }
            n.newest = Some(weights);
        });
    }
}
