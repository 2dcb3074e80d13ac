//! The newest weights for an evaluator, which takes its time: those in between
//! are skipped, but not the untrained ones that all others are compared with.

use std::sync::Arc;
use std::time::Duration;

use proto::messages::assembly::Published;
use proto::messages::hello::Hello;
use proto::messages::weights::WatchRequest;
use proto::transport::channel::Channel;
use proto::wire::learner_client::LearnerClient;
use tokio::sync::watch;

use crate::session::weights::receive;

const RETRY: Duration = Duration::from_millis(500);

/// What has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest {
    /// The weights that nothing was learned in, if they came.
    pub(crate) untrained: Option<Arc<Published>>,
    /// The newest version.
    pub(crate) newest: Option<Arc<Published>>,
}

/// Receives every newest version until it is dropped. A learner that comes back
/// may count from an older version, so each stream begins with the newest.
pub(crate) async fn follow(
    mut client: LearnerClient<Channel>,
    hello: Hello,
    untrained_first: bool,
    tell: watch::Sender<Newest>,
) {
    loop {
        let wanted = untrained_first && tell.borrow().untrained.is_none();
        let request = WatchRequest {
            hello: hello.clone(),
            newer_than: 0,
            bf16: false,
            untrained_first: wanted,
        };
        let ended = receive(&mut client, request, |weights| {
            let weights = Arc::new(weights);
            tell.send_modify(|n| {
                if weights.updates == 0 {
                    n.untrained.get_or_insert_with(|| Arc::clone(&weights));
                }
                n.newest = Some(weights);
            });
        })
        .await;
        let (code, reason) = (ended.code(), ended.message());
        tracing::debug!(?code, reason, "weights stream ended; watching again");
        tokio::time::sleep(RETRY).await;
    }
}
