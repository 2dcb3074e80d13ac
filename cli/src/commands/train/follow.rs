//! The evaluator's rim: the newest weights by gRPC, and the thread that walks.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actor::evaluation::validate::Validator;
use actor::session::weights::receive;
use proto::messages::hello::Hello;
use proto::messages::weights::{Published, WatchRequest};
use proto::transport::channel::Channel;
use proto::wire::learner_client::LearnerClient;
use tokio::runtime::Handle;
use tokio::sync::watch;

const RETRY: Duration = Duration::from_millis(500);

/// The newest weights; `None` before the first.
pub type Newest = Option<Arc<Published>>;

/// Receives every newest version until it is dropped.
pub async fn follow(
    mut learner: LearnerClient<Channel>,
    hello: Hello,
    newest: watch::Sender<Newest>,
) {
    loop {
        let request = WatchRequest {
            hello: hello.clone(),
            newer_than: newest.borrow().as_ref().map_or(0, |p| p.version),
            bf16: false,
            untrained_first: false,
        };
        let ended = receive(&mut learner, request, |weights| {
            newest.send_replace(Some(Arc::new(weights)));
        })
        .await;
        let why = ended.message();
        tracing::debug!(why, "the evaluator watches the weights again");
        tokio::time::sleep(RETRY).await;
    }
}

/// The thread that validates.
#[derive(Debug)]
pub struct Evaluator {
    thread: JoinHandle<anyhow::Result<Validator>>,
}

impl Evaluator {
    /// Validates the newest weights whenever `every` more updates were made,
    /// until `newest` has no sender any more. Tells `errors` the best and the
    /// last error (mm).
    pub fn spawn(
        mut validator: Validator,
        every: u64,
        mut newest: watch::Receiver<Newest>,
        errors: watch::Sender<Option<(f64, f64)>>,
    ) -> std::io::Result<Self> {
        let runtime = Handle::current();
        let body = move || {
            // The learner and the actors need the other cores.
            model::device::set_threads(1);
            errors.send_replace(validator.errors_mm());
            let mut due = next_due(validator.last_updates().unwrap_or(0), every);
            loop {
                let wanted = |p: &Newest| p.as_ref().is_some_and(|p| p.updates >= due);
                let found = runtime.block_on(newest.wait_for(wanted)).map(|p| p.clone());
                let Ok(Some(published)) = found else {
                    return Ok(validator);
                };
                validator.validate(&published)?;
                errors.send_replace(validator.errors_mm());
                due = next_due(published.updates, every);
            }
        };
        let thread = std::thread::Builder::new()
            .name("evaluator".into())
            .spawn(body)?;
        Ok(Self { thread })
    }

    /// Whether it ended before its time, which only an error does.
    pub fn failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end; the validator is ready for more.
    pub fn join(self) -> anyhow::Result<Validator> {
        let joined = self.thread.join();
        joined.unwrap_or_else(|_| Err(anyhow::anyhow!("the evaluator's thread panicked")))
    }
}

/// The next multiple of `every` after `updates`.
fn next_due(updates: u64, every: u64) -> u64 {
    (updates / every + 1) * every
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validations_fall_on_multiples() {
        assert_eq!([0, 9, 10, 11].map(|u| next_due(u, 10)), [10, 10, 20, 20]);
    }
}
