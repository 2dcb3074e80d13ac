//! The evaluator as a service: watches the learner's weights, walks the
//! selection scans with them now and then, and tells the learner what it found.
//!
//! It joins nothing: no lease, no rows. A learner that is away is waited for.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::manifest::TrainingManifest;
use common::imaging::scan::Scan;
use common::transition::row::RowShape;
use proto::messages::evaluator::EvaluatorBeatReply;
use proto::messages::hello::Hello;
use proto::messages::weights::Published;
use proto::transport::security::Security;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::error::ActorError;
use crate::evaluation::baseline::Guess;
use crate::evaluation::newest::{Follow, Newest};
use crate::evaluation::report::{Found, Reporter};
use crate::evaluation::validate::Validator;
use crate::run::{Ending, host};
use crate::session::weights;

/// Time between signs of life.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How long the last weights of a run may take to come.
const LAST_WEIGHTS: Duration = Duration::from_secs(30);

/// What an evaluator needs.
#[derive(Debug)]
pub struct EvaluatorSetup {
    /// The resolved configuration: the learner's in all that shapes windows.
    pub config: Arc<Config>,
    /// Scans with known landmarks that nobody trains on.
    pub selection: Vec<Arc<Scan>>,
    /// What errors are compared with.
    pub guess: Guess,
    /// The learner, `host:port`.
    pub learner: String,
    /// How to prove who asks.
    pub security: Security,
    /// Hears the best and the last mean error in mm.
    pub errors: watch::Sender<Option<(f64, f64)>>,
    /// The run to evaluate; `None` for whatever the learner runs.
    pub run_id: Option<String>,
    /// The run's folder, where this host has it; else the learner keeps what is found.
    pub run_dir: Option<PathBuf>,
}

/// What an evaluator did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluatorSummary {
    /// Why it ended.
    pub ending: Ending,
    /// Evaluations of this process.
    pub evaluations: u64,
    /// The best and the last mean error in mm, as far as this process knows.
    pub errors_mm: Option<(f64, f64)>,
}

/// Evaluates until `shutdown`, or until the run is over and its last weights
/// are evaluated.
///
/// # Errors
/// When the learner refuses this evaluator for good, or its walks fail.
pub async fn run(
    setup: EvaluatorSetup,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<EvaluatorSummary, ActorError> {
    let mut shutdown = pin!(shutdown);
    let hello = hello(&setup);
    let config_json = Bytes::from(setup.config.shared_json());
    let keeps = setup.run_dir.is_some();
    let mut reporter = Reporter::new(
        (&setup.learner, &setup.security),
        hello,
        config_json,
        host(&setup.config.log.instance),
        keeps,
    )?;
    let validator = validator(&setup)?;
    let stop = StopOnDrop(validator.stop());
    let first = tokio::select! {
        first = reporter.meet() => first?,
        () = &mut shutdown => {
            return Ok(EvaluatorSummary { ending: Ending::Shutdown, evaluations: 0, errors_mm: validator.errors_mm() });
        }
    };
    let evaluated = validator.last_updates().max(first.last_updates);
    tracing::info!(
        run = first.run_id,
        evaluated_updates = evaluated,
        every = setup.config.validation.every,
        "found the run"
    );
    let (sender, newest) = watch::channel(Newest::default());
    let follow = Follow {
        hello: reporter.hello().clone(),
        untrained_first: evaluated.is_none(),
        newest: sender,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(weights::watch(reporter.client(), follow));
    let mut evaluating = Evaluating {
        every: setup.config.validation.every,
        threads: setup.config.actor.threads,
        evaluated,
        evaluations: 0,
        newest,
        state: State::Idle(Box::new(validator)),
        reporter,
        errors: setup.errors,
        _tasks: tasks,
    };
    let ending = tokio::select! {
        ending = evaluating.until_over() => ending?,
        () = &mut shutdown => Ending::Shutdown,
    };
    drop(stop);
    evaluating.finish(ending).await
}

/// Ends walks that go on when its owner goes away.
#[derive(Debug)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn validator(setup: &EvaluatorSetup) -> Result<Validator, ActorError> {
    let made = Validator::new(
        Arc::clone(&setup.config),
        setup.selection.clone(),
        setup.guess.clone(),
        &setup.config.actor.device,
        setup.run_dir.as_deref(),
    );
    made.map_err(|e| ActorError::Evaluation(format!("{e:#}")))
}

fn hello(setup: &EvaluatorSetup) -> Hello {
    let config = &setup.config;
    let scans = setup.selection.iter().map(AsRef::as_ref);
    Hello {
        run_id: setup.run_id.clone().unwrap_or_default(),
        manifest: TrainingManifest::new(scans, RULES_VERSION).digest(),
        config_digest: config.digest(),
        shape: RowShape {
            agents: config.row_agents(),
            history: u8::try_from(config.rules.history).unwrap_or(u8::MAX),
        },
    }
}

type Walked = (Box<Validator>, anyhow::Result<Found>);

/// The validator is here, or at work on a thread.
#[derive(Debug)]
enum State {
    Idle(Box<Validator>),
    Walking(JoinHandle<Walked>),
    /// Between the two.
    Moved,
}

/// An evaluator that has found its run.
#[derive(Debug)]
struct Evaluating {
    every: u64,
    threads: usize,
    /// Updates of the weights that were evaluated last.
    evaluated: Option<u64>,
    evaluations: u64,
    newest: watch::Receiver<Newest>,
    state: State,
    reporter: Reporter,
    errors: watch::Sender<Option<(f64, f64)>>,
    _tasks: JoinSet<()>,
}

impl Evaluating {
    /// Evaluates whenever it is time to, until the learner says that the run is over.
    async fn until_over(&mut self) -> Result<Ending, ActorError> {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = EvaluatorBeatReply {
            run_id: String::new(),
            stop: false,
            wanted: false,
            last_version: None,
            last_updates: None,
        };
        while !told.stop {
            self.begin();
            let answer = tokio::select! {
                walked = walked(&mut self.state) => {
                    self.take(walked)?;
                    self.reporter.beat().await?
                }
                _ = self.newest.changed(), if matches!(self.state, State::Idle(_)) => continue,
                _ = ticks.tick() => self.reporter.beat().await?,
            };
            told = answer.unwrap_or(told);
        }
        if let Some(version) = told.last_version {
            self.last(version).await?;
        }
        Ok(Ending::RunOver)
    }

    /// Evaluates the last weights of the run, where that was not done yet.
    async fn last(&mut self, version: u64) -> Result<(), ActorError> {
        if matches!(self.state, State::Walking(_)) {
            self.walk_on().await?;
            self.reporter.beat().await?;
        }
        let last = |n: &Newest| n.newest.as_ref().is_some_and(|p| p.version >= version);
        let came = tokio::time::timeout(LAST_WEIGHTS, self.newest.wait_for(last)).await;
        let weights = came
            .ok()
            .and_then(Result::ok)
            .and_then(|n| n.newest.clone());
        let Some(weights) = weights else {
            tracing::warn!(version, "the last weights of the run did not come");
            return Ok(());
        };
        if self.evaluated != Some(weights.updates) {
            self.start(weights);
            self.walk_on().await?;
        }
        self.reporter.deliver().await
    }

    /// Waits for the end of the walks; the learner, which waits too, hears that
    /// they go on.
    async fn walk_on(&mut self) -> Result<(), ActorError> {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = walked(&mut self.state) => return self.take(done),
                _ = ticks.tick() => {
                    self.reporter.beat().await?;
                }
            }
        }
    }

    /// Starts an evaluation if it is time for one.
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
        if let Some(weights) = chosen
            && matches!(self.state, State::Idle(_))
        {
            self.start(weights);
        }
    }

    fn start(&mut self, weights: Arc<Published>) {
        let State::Idle(mut validator) = std::mem::replace(&mut self.state, State::Moved) else {
            return;
        };
        self.reporter.evaluating(Some(weights.version));
        let threads = self.threads;
        self.state = State::Walking(tokio::task::spawn_blocking(move || {
            model::device::set_threads(threads);
            let found = validator.validate(&weights).and_then(|validation| {
                let line_json = serde_json::to_vec(validation)?.into();
                Ok(Found {
                    evaluation: validation.into(),
                    line_json,
                    weights: Arc::clone(&weights),
                })
            });
            (validator, found)
        }));
    }

    fn take(&mut self, (validator, found): Walked) -> Result<(), ActorError> {
        self.errors.send_replace(validator.errors_mm());
        self.state = State::Idle(validator);
        self.reporter.evaluating(None);
        let found = found.map_err(|e| ActorError::Evaluation(format!("{e:#}")))?;
        self.evaluated = Some(found.evaluation.updates);
        self.evaluations += 1;
        self.reporter.push(found);
        Ok(())
    }

    async fn finish(mut self, ending: Ending) -> Result<EvaluatorSummary, ActorError> {
        if matches!(self.state, State::Walking(_)) {
            // Told to stop, it ends within a forward pass; what it had is worth nothing.
            let (validator, _) = walked(&mut self.state).await;
            self.state = State::Idle(validator);
        }
        let errors_mm = match &self.state {
            State::Idle(validator) => validator.errors_mm(),
            State::Walking(_) | State::Moved => None,
        };
        let (evaluations, unsent) = (self.evaluations, self.reporter.pending());
        tracing::info!(?ending, evaluations, unsent, "evaluator ended");
        Ok(EvaluatorSummary {
            ending,
            evaluations,
            errors_mm,
        })
    }
}

/// The end of the walks that go on; never where there are none. May be dropped
/// and called again.
async fn walked(state: &mut State) -> Walked {
    let State::Walking(task) = state else {
        return std::future::pending().await;
    };
    match task.await {
        Ok(walked) => walked,
        // A panic in the walks is a defect, and nothing is left to go on with.
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
