//! The rollout thread: owns the tensors and acts until the feed stops it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use common::config::Config;
use common::imaging::scan::Scan;
use model::DeviceChoice;
use tch::Device;
use tokio::sync::oneshot;

use crate::error::ActorError;
use crate::rollout::Rollout;
use crate::rollout::exploration;
use crate::rollout::network_policy::{NetworkPolicy, Samples};
use crate::session::counters::Counters;
use crate::session::feed::{Feed, Incarnation};
use proto::messages::weights::Published;

/// Windows of one pass on a CPU, per thread: with all 48 of `mouse-small` in one
/// pass, the first step with new weights came three times as late (`cargo xtask bench system`).
const WINDOWS_PER_THREAD: usize = 8;

/// A running rollout thread.
#[derive(Debug)]
pub(crate) struct Driver {
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<Result<(), ActorError>>,
}

impl Driver {
    pub(crate) fn spawn(
        config: Arc<Config>,
        scans: Vec<Arc<Scan>>,
        feed: Arc<Feed>,
        counters: Arc<Counters>,
    ) -> Result<Self, ActorError> {
        let (sender, ended) = oneshot::channel();
        let span = tracing::Span::current();
        let body = move || {
            let _in = span.enter();
            if let Err(error) = common::run::machine::give_way(config.actor.nice) {
                tracing::debug!(%error, nice = config.actor.nice, "priority left as it is");
            }
            // Per thread, because several actors may share one process.
            model::device::set_threads(config.actor.threads);
            let result = act(&config, &scans, &feed, &counters);
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new()
            .name("rollout".into())
            .spawn(body)
            .map_err(ActorError::Thread)?;
        Ok(Self {
            thread: Some(thread),
            ended,
        })
    }

    /// Whether the thread has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the thread ends; a panic in it is an error. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Result<(), ActorError> {
        if let Ok(result) = (&mut self.ended).await {
            return result;
        }
        // The sender was dropped without a result: the thread is unwinding.
        let thread = self.thread.take();
        let joined = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
        let text = match joined {
            Ok(Some(Err(panic))) => panic_text(panic.as_ref()),
            _ => "it ended without a result".to_owned(),
        };
        Err(ActorError::Panicked(text))
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Steps the slots, some at a time, until the feed is stopped.
fn act(
    config: &Config,
    scans: &[Arc<Scan>],
    feed: &Feed,
    counters: &Counters,
) -> Result<(), ActorError> {
    let start = Instant::now();
    let choice: DeviceChoice = config.actor.device.parse().map_err(ActorError::Device)?;
    let device = choice.resolve();
    let windows = windows_per_pass(config, device);
    let bf16 = model::device::wants_bf16(config.actor.precision, device);
    let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, device).with_bf16(bf16);
    let mut policy = policy.with_clock(move || start.elapsed());
    let mut current: Option<(Arc<Incarnation>, Rollout)> = None;
    let mut held: Option<Arc<Published>> = None;
    let mut over = None;
    loop {
        let next = counters.starved(|| feed.next(over.as_ref(), counters));
        let Some((incarnation, weights)) = next else {
            return Ok(());
        };
        over = None;
        let mut new = None;
        if held.as_ref().is_none_or(|h| !Arc::ptr_eq(h, &weights)) {
            let begun = weights.age();
            take(&mut policy, &weights, counters)?;
            new = Some((Arc::clone(&weights), begun, weights.age()));
            held = Some(weights);
        }
        let exploration = &incarnation.exploration;
        let rollout = match &mut current {
            Some((same, rollout)) if Arc::ptr_eq(same, &incarnation) => rollout,
            _ => {
                let rollout = Rollout::new(config, scans, exploration, incarnation.writer)?;
                &mut current.insert((Arc::clone(&incarnation), rollout)).1
            }
        };
        let progress = exploration::progress(config, counters.updates());
        let epsilon_start = config.actor.epsilon_start;
        counters.set_exploration(exploration::mean(epsilon_start, exploration, progress));
        let report = rollout.step_some(&mut policy, progress, windows)?;
        if let Some((weights, begun, taken)) = new {
            let acted = weights.age();
            counters.acted(acted);
            let [begun_ms, taken_ms, acted_ms] =
                [begun, taken, acted].map(|d| d.as_secs_f64() * 1e3);
            tracing::debug!(
                version = weights.version,
                begun_ms,
                taken_ms,
                acted_ms,
                "first step with new weights"
            );
        }
        counters.stepped(&report, policy.take_times());
        if !incarnation.send(report.rows, counters) {
            over = Some(incarnation);
        }
    }
}

/// New weights wait for at most one pass, so a CPU makes small ones, and gains little
/// from larger ones; a GPU steps all slots in one pass.
fn windows_per_pass(config: &Config, device: Device) -> usize {
    if device.is_cuda() {
        return usize::MAX;
    }
    config.actor.threads * WINDOWS_PER_THREAD
}

fn take(
    policy: &mut NetworkPolicy,
    weights: &Published,
    counters: &Counters,
) -> Result<(), ActorError> {
    let version = weights.version;
    let read = model::files::weights::from_bytes(&weights.bytes);
    let network = read
        .map_err(|source| ActorError::Weights { version, source })?
        .network;
    policy.take_network(network, version)?;
    counters.new_weights(version);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_thread_is_an_error_with_its_message() {
        let (sender, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _sender = sender;
            panic!("out of {}", "luck");
        });
        let mut driver = Driver {
            thread: Some(thread),
            ended,
        };
        let error = driver.ended().await.unwrap_err();
        assert_eq!(error.to_string(), "the rollout thread failed: out of luck");
    }
}
