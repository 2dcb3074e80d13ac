//! The evaluator as a service: watches the learner's weights, evaluates them on the validation
//! scans now and then, and reports to the learner, which keeps the results and the best weights.
//!
//! It does not join: it has no lease and sends no rows. It waits while the learner is
//! unreachable.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::manifest::TrainingManifest;
use common::imaging::scan::Scan;
use common::run::telemetry::in_current_span;
use proto::messages::evaluator::EvaluatorBeatReply;
use proto::messages::hello::Hello;
use proto::messages::join::manifest_that_fits;
use proto::messages::status::Evaluation;
use proto::messages::weights::Published;
use proto::transport::security::Security;
use proto::transport::serve::Boxed;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument as _;

use crate::error::ActorError;
use crate::evaluation::newest::{Follow, Newest};
use crate::evaluation::report::{Found, Identity, Reporter};
use crate::evaluation::validate::Validator;
use crate::run::{Ending, host};
use crate::session::weights;

/// Interval of the beats to the learner.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// Time limit for the last weights of a run to arrive.
const LAST_WEIGHTS: Duration = Duration::from_secs(30);

/// An evaluator's inputs.
#[derive(Debug)]
pub struct EvaluatorSetup {
    /// The resolved configuration: the learner's in all that shapes windows.
    pub config: Arc<Config>,
    /// Scans with known landmarks that the learner does not train on.
    pub validation: Vec<Arc<Scan>>,
    /// `cpu`, `cuda`, `cuda:N` or `auto`.
    pub device: String,
    /// libtorch threads.
    pub threads: usize,
    /// The learner, `host:port`.
    pub learner: String,
    /// How this evaluator authenticates.
    pub security: Security,
    /// Receives the best and the last mean error of the run in mm.
    pub errors: watch::Sender<Option<(f64, f64)>>,
    /// The run to evaluate; `None` for whatever the learner runs.
    pub run_id: Option<String>,
}

/// The result of an evaluator's run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluatorSummary {
    /// Why it ended.
    pub ending: Ending,
    /// Evaluations of this process.
    pub evaluations: u64,
    /// The best and the last mean error of the run in mm, as the learner reported them last.
    pub errors_mm: Option<(f64, f64)>,
}

/// Evaluates until `shutdown`, or until the run is over and its last weights
/// are evaluated.
///
/// # Errors
/// When the learner permanently refuses this evaluator, or an evaluation fails.
pub async fn run(
    setup: EvaluatorSetup,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<EvaluatorSummary, ActorError> {
    boxed(setup, Box::pin(shutdown)).await
}

fn boxed(
    setup: EvaluatorSetup,
    shutdown: Boxed<'static, ()>,
) -> Boxed<'static, Result<EvaluatorSummary, ActorError>> {
    Box::pin(evaluate(setup, shutdown))
}

async fn evaluate(
    setup: EvaluatorSetup,
    mut shutdown: Boxed<'static, ()>,
) -> Result<EvaluatorSummary, ActorError> {
    let mut reporter = Reporter::new(&setup.learner, &setup.security, identity(&setup)?)?;
    let mut validator = Validator::new(
        Arc::clone(&setup.config),
        setup.validation.clone(),
        &setup.device,
    )
    .map_err(|e| ActorError::Evaluation(format!("{e:#}")))?;
    let stop = StopOnDrop(validator.stop());
    let first = tokio::select! {
        first = reporter.meet() => first?,
        () = &mut shutdown => {
            return Ok(EvaluatorSummary { ending: Ending::Shutdown, evaluations: 0, errors_mm: None });
        }
    };
    let evaluated = first.last_evaluation.map(|e| e.updates);
    tracing::info!(
        run = first.run_id,
        evaluated_updates = evaluated,
        every = setup.config.validation.period,
        "found the run"
    );
    setup.errors.send_replace(errors_mm(&first));
    validator.set_baseline(first.baseline);
    let (sender, newest) = watch::channel(Newest::default());
    let follow = Follow {
        hello: reporter.hello().clone(),
        untrained_first: evaluated.is_none(),
        newest: sender,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(weights::watch(reporter.client(), follow).in_current_span());
    let mut evaluating = Evaluating {
        every: setup.config.validation.period,
        threads: setup.threads,
        evaluated,
        evaluations: 0,
        newest,
        validator: Some(Box::new(validator)),
        running: None,
        reporter,
        errors: setup.errors,
        _tasks: tasks,
    };
    let ending = tokio::select! {
        ending = evaluating.until_over() => ending?,
        () = &mut shutdown => Ending::Shutdown,
    };
    drop(stop);
    Ok(evaluating.finish(ending).await)
}

fn identity(setup: &EvaluatorSetup) -> Result<Identity, ActorError> {
    let config = &setup.config;
    let scans = setup.validation.iter().map(AsRef::as_ref);
    let manifest = TrainingManifest::new(scans, RULES_VERSION);
    let run_id = setup.run_id.as_deref().unwrap_or_default();
    Ok(Identity {
        hello: Hello::new(run_id, config, manifest.digest()),
        config_json: Bytes::from(config.shared_json()),
        manifest_json: manifest_that_fits(serde_json::to_vec(&manifest)?),
        host: host(&config.log.instance),
    })
}

/// The best and the last mean error.
fn errors_mm(reply: &EvaluatorBeatReply) -> Option<(f64, f64)> {
    let mm = |e: Option<Evaluation>| e.map(|e| e.mean_error_mm);
    mm(reply.best_evaluation).zip(mm(reply.last_evaluation))
}

/// Stops a running evaluation when its owner is dropped.
#[derive(Debug)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The result of an evaluation, and the validator that made it.
type Evaluated = (Box<Validator>, anyhow::Result<Found>);

/// An evaluator that has found its run.
#[derive(Debug)]
struct Evaluating {
    every: u64,
    threads: usize,
    /// Updates of the weights that were evaluated last.
    evaluated: Option<u64>,
    evaluations: u64,
    newest: watch::Receiver<Newest>,
    /// `None` while an evaluation runs.
    validator: Option<Box<Validator>>,
    running: Option<JoinHandle<Evaluated>>,
    reporter: Reporter,
    errors: watch::Sender<Option<(f64, f64)>>,
    _tasks: JoinSet<()>,
}

impl Evaluating {
    /// Evaluates whenever an evaluation is due, until the learner reports the end of the run.
    async fn until_over(&mut self) -> Result<Ending, ActorError> {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin();
            let reply = tokio::select! {
                evaluated = evaluated(&mut self.running) => {
                    self.take(evaluated)?;
                    self.beat().await?
                }
                _ = self.newest.changed(), if self.running.is_none() => continue,
                _ = ticks.tick() => self.beat().await?,
            };
            let Some(reply) = reply.filter(|r| r.stop) else {
                continue;
            };
            if let Some(version) = reply.last_version {
                self.last(version).await?;
            }
            return Ok(Ending::RunOver);
        }
    }

    /// Reports to the learner; `None` if it is unreachable.
    async fn beat(&mut self) -> Result<Option<EvaluatorBeatReply>, ActorError> {
        let reply = self.reporter.beat().await?;
        self.note(reply.as_ref());
        Ok(reply)
    }

    fn note(&self, reply: Option<&EvaluatorBeatReply>) {
        if let Some(reply) = reply {
            self.errors.send_replace(errors_mm(reply));
        }
    }

    /// Evaluates the last weights of the run, where that was not done yet.
    async fn last(&mut self, version: u64) -> Result<(), ActorError> {
        if self.running.is_some() {
            self.until_evaluated().await?;
            self.beat().await?;
        }
        let last = |n: &Newest| n.newest.as_ref().is_some_and(|p| p.version >= version);
        let received = tokio::time::timeout(LAST_WEIGHTS, self.newest.wait_for(last)).await;
        let newest = received.ok().and_then(Result::ok);
        let Some(weights) = newest.and_then(|n| n.newest.clone()) else {
            tracing::warn!(version, "the last weights of the run did not arrive");
            return Ok(());
        };
        if self.evaluated != Some(weights.updates) {
            self.start(weights);
            self.until_evaluated().await?;
        }
        let reply = self.reporter.deliver().await?;
        self.note(reply.as_ref());
        Ok(())
    }

    /// Waits until the evaluation ends, and keeps sending beats to the learner, which waits too.
    async fn until_evaluated(&mut self) -> Result<(), ActorError> {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                evaluated = evaluated(&mut self.running) => return self.take(evaluated),
                _ = ticks.tick() => {
                    self.beat().await?;
                }
            }
        }
    }

    /// Starts an evaluation if one is due.
    fn begin(&mut self) {
        let due = match self.evaluated {
            None => 0,
            Some(updates) => next_due(updates, self.every),
        };
        let chosen = {
            let newest = self.newest.borrow_and_update();
            let untrained = newest.untrained.clone().filter(|_| due == 0);
            untrained.or_else(|| newest.newest.clone().filter(|p| p.updates >= due))
        };
        if let Some(weights) = chosen {
            self.start(weights);
        }
    }

    /// Starts an evaluation, unless one runs.
    fn start(&mut self, weights: Arc<Published>) {
        let Some(mut validator) = self.validator.take() else {
            return;
        };
        self.reporter.evaluating(Some(weights.version));
        let threads = self.threads;
        let evaluate = move || {
            model::device::set_threads(threads);
            let found = validator.validate(&weights).and_then(|validation| {
                let line_json = serde_json::to_vec(&validation)?.into();
                Ok(Found {
                    evaluation: (&validation).into(),
                    line_json,
                    weights: Arc::clone(&weights),
                })
            });
            (validator, found)
        };
        self.running = Some(tokio::task::spawn_blocking(in_current_span(evaluate)));
    }

    fn take(&mut self, (validator, found): Evaluated) -> Result<(), ActorError> {
        (self.validator, self.running) = (Some(validator), None);
        self.reporter.evaluating(None);
        let found = found.map_err(|e| ActorError::Evaluation(format!("{e:#}")))?;
        self.evaluated = Some(found.evaluation.updates);
        self.evaluations += 1;
        self.reporter.push(found);
        Ok(())
    }

    async fn finish(mut self, ending: Ending) -> EvaluatorSummary {
        // Its stop flag is set: it ends within a forward pass, and its result is incomplete.
        if self.running.is_some() {
            let _ = evaluated(&mut self.running).await;
        }
        let (evaluations, unsent) = (self.evaluations, self.reporter.pending());
        tracing::info!(?ending, evaluations, unsent, "evaluator ended");
        EvaluatorSummary {
            ending,
            evaluations,
            errors_mm: *self.errors.borrow(),
        }
    }
}

/// The end of the running evaluation; pending forever without one. Cancel-safe.
async fn evaluated(running: &mut Option<JoinHandle<Evaluated>>) -> Evaluated {
    let Some(task) = running else {
        return std::future::pending().await;
    };
    match task.await {
        Ok(evaluated) => evaluated,
        // A panic in the evaluation is a defect, and the validator is lost with it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The next multiple of `every` after `updates`.
fn next_due(updates: u64, every: u64) -> u64 {
    (updates / every.max(1) + 1) * every.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_fall_on_multiples() {
        assert_eq!([0, 9, 10, 11].map(|u| next_due(u, 10)), [10, 10, 20, 20]);
    }
}
