//! Runs shards, learner, actors and evaluator in one process until the learner is
//! done or the user presses Ctrl-C.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actor::ActorSetup;
use actor::evaluation::evaluator::{self, EvaluatorSetup};
use actor::session::counters::Counters;
use actor::session::metrics::{ActorMetrics, EvaluatorMetrics};
use anyhow::Context as _;
use common::run::run_folder::RunFolder;
use common::run::telemetry::{Control, InProcess, service_span};
use learner::actors::evaluations::BEST;
use learner::checkpoint::files::CheckpointFiles;
use learner::report::metrics::LearnerMetrics;
use learner::{LearnerError, LearnerSetup, LearnerSummary, Progress};
use proto::messages::status::Evaluation;
use proto::transport::entry::{self, Service};
use proto::transport::health::Health;
use proto::transport::metrics::Metrics;
use proto::transport::security::Security;
use replay_server::ShardConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument as _;

use super::display::{Display, Moment, waiting};
use super::plan::Plan;
use super::shards::{configs, loopback};
use crate::output::console;

const DISPLAY_INTERVAL: Duration = Duration::from_millis(500);
/// The time that the learner has to save a checkpoint after another task failed.
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);

/// The result of a training.
#[derive(Debug)]
pub struct Ended {
    pub updates: u64,
    pub interrupted: bool,
    /// The best and the last error on the validation scans.
    pub validation_mm: Option<(f64, f64)>,
    /// The mean-position baseline on the validation scans.
    pub baseline_mm: Option<f64>,
    /// The weights file to evaluate next.
    pub weights: PathBuf,
}

impl Ended {
    /// Names the best weights of the run if there are any, else the last ones.
    pub fn new(
        (updates, interrupted): (u64, bool),
        (best, last): (Option<Evaluation>, Option<Evaluation>),
        folder: &RunFolder,
        weights: PathBuf,
    ) -> Self {
        let mm = |e: Option<Evaluation>| e.map(|e| e.mean_error_mm);
        let best_file = folder.checkpoints().join(BEST);
        Self {
            updates,
            interrupted,
            validation_mm: mm(best).zip(mm(last)),
            baseline_mm: last.and_then(|e| e.baseline_error_mm),
            weights: Some(best_file).filter(|f| f.is_file()).unwrap_or(weights),
        }
    }
}

/// Runs the cluster on its own runtime.
pub fn train(plan: Plan, log: &Control) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(Box::pin(async {
        let (metrics, health) = (Metrics::default(), Health::default());
        let shutdown = entry::shutdown_signal();
        // The configured certificates are for the processes of a cluster; here only HTTP
        // is reachable from outside.
        let mut service = Service::with_log("landmarl", log.clone(), &plan.run.config).await?;
        let folder = plan.run.folder.path();
        let http = service.http_address();
        let _web = service.serve_http(metrics.clone(), &health, Some(("run", folder)), None);
        run(plan, (&metrics, &health, http), shutdown).await
    }))
}

/// The running tasks and their stop signals.
struct Cluster {
    learner: JoinHandle<Result<LearnerSummary, LearnerError>>,
    shards: JoinSet<anyhow::Result<()>>,
    actors: JoinSet<anyhow::Result<()>>,
    evaluators: JoinSet<anyhow::Result<()>>,
    progress: watch::Receiver<Progress>,
    errors: watch::Receiver<Errors>,
    /// Rows that the first update needs.
    min_rows: u64,
    stop_learner: watch::Sender<bool>,
    /// Stops actors and evaluator.
    stop_members: watch::Sender<bool>,
    stop_shards: watch::Sender<bool>,
}

fn actor_setup(plan: &Plan, learner: &str, counters: &Arc<Counters>) -> ActorSetup {
    ActorSetup {
        config: Arc::clone(&plan.run.config),
        dataset: Arc::clone(&plan.run.dataset),
        learner: learner.to_owned(),
        run_id: Some(plan.run.hello.run_id.clone()),
        security: Security::none(),
        counters: Arc::clone(counters),
    }
}

/// The best and the last mean error (mm) on the validation scans.
type Errors = Option<(f64, f64)>;

fn evaluator_setup(plan: &Plan, learner: &str, errors: watch::Sender<Errors>) -> EvaluatorSetup {
    EvaluatorSetup {
        config: Arc::clone(&plan.run.config),
        validation: plan.validation.clone(),
        device: plan.run.config.learner.device.clone(),
        // The learner and the actors need the other cores.
        threads: 1,
        learner: learner.to_owned(),
        security: Security::none(),
        errors,
        run_id: Some(plan.run.hello.run_id.clone()),
    }
}

async fn serve_shard(
    shard: ShardConfig,
    listener: TcpListener,
    (metrics, health): (Metrics, Health),
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let observed = (&metrics, &health);
    Ok(replay_server::run_observed(shard, listener, observed, stop).await?)
}

async fn run(
    plan: Plan,
    observed: (&Metrics, &Health, Option<String>),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<Ended> {
    let mut cluster = Cluster::start(&plan, observed)?;
    let mut display = Display::new(plan.run.config.learner.updates);
    let ended = cluster.watch(&mut display, shutdown).await;
    display.finish();
    let _ = cluster.stop_learner.send(true);
    let _ = cluster.stop_members.send(true);
    let (summary, interrupted) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            // The learner may still save its state.
            if !cluster.learner.is_finished() {
                let _ = tokio::time::timeout(LAST_CHECKPOINT, &mut cluster.learner).await;
            }
            // A process that exits while a thread computes in libtorch may crash instead.
            drain(&mut cluster.evaluators).await;
            cluster.actors.shutdown().await;
            cluster.shards.shutdown().await;
            return Err(error);
        }
    };
    cluster.finish().await;
    Ok(Ended::new(
        (summary.updates, interrupted && summary.stopped_early),
        (summary.best_evaluation, summary.last_evaluation),
        &plan.run.folder,
        summary.weights,
    ))
}

/// Names the signal, which may come from a batch system or a closed terminal.
pub(super) fn note_stopping() {
    let signal = entry::stopped_by().unwrap_or("stopping");
    console::note(&format!(
        "{signal}: saving a checkpoint before exit; press Ctrl-C to exit now"
    ));
}

/// Resolves when the sender sends true or is dropped.
async fn stopped(mut signal: watch::Receiver<bool>) {
    let _ = signal.wait_for(|stop| *stop).await;
}

impl Cluster {
    fn start(
        plan: &Plan,
        (metrics, health, http): (&Metrics, &Health, Option<String>),
    ) -> anyhow::Result<Self> {
        let (stop_learner, learner_stops) = watch::channel(false);
        let (stop_members, members_stop) = watch::channel(false);
        let (stop_shards, shards_stop) = watch::channel(false);
        let tasks = JoinSet::<anyhow::Result<()>>::new;
        let (mut shards, mut actors, mut evaluators) = (tasks(), tasks(), tasks());
        let (config, hello) = (&plan.run.config, &plan.run.hello);
        let mut addresses = Vec::new();
        for shard in configs(config, hello, plan.incarnation, &plan.run.folder.replay()) {
            let (listener, address) = loopback()?;
            addresses.push(address);
            let (metrics, stop) = (metrics.clone(), stopped(shards_stop.clone()));
            let serving = serve_shard(shard, listener, (metrics, health.part()), stop);
            shards.spawn(serving.instrument(service_span(InProcess::ReplayServer)));
        }
        let (listener, learner) = loopback()?;
        let (sender, progress) = watch::channel(Progress {
            updates_total: config.learner.updates,
            ..Progress::default()
        });
        metrics.add(LearnerMetrics::new(progress.clone()));
        let setup = LearnerSetup {
            run: Arc::clone(&plan.run),
            checkpoints: Arc::new(CheckpointFiles::new(&plan.run.folder.checkpoints())),
            shards: addresses,
            security: Security::none(),
            progress: sender,
            http,
            health: health.part(),
        };
        for place in 0..config.actor.count {
            let counters = Arc::default();
            metrics.add(ActorMetrics::new(Arc::clone(&counters), place));
            let setup = actor_setup(plan, &learner, &counters);
            let stop = stopped(members_stop.clone());
            let acting = async move {
                actor::run(setup, stop).await?;
                Ok(())
            };
            actors.spawn(acting.instrument(service_span(InProcess::Actor)));
        }
        let (sender, errors) = watch::channel(None);
        metrics.add(EvaluatorMetrics::new(errors.clone()));
        if !plan.validation.is_empty() {
            let setup = evaluator_setup(plan, &learner, sender);
            let stop = stopped(members_stop);
            let evaluating = async move {
                evaluator::run(setup, stop).await.context("validate")?;
                Ok(())
            };
            evaluators.spawn(evaluating.instrument(service_span(InProcess::Evaluator)));
        }
        let learning = learner::run(setup, listener, stopped(learner_stops));
        Ok(Self {
            learner: tokio::spawn(learning.instrument(service_span(InProcess::Learner))),
            shards,
            actors,
            evaluators,
            progress,
            errors,
            min_rows: config.replay.min_rows,
            stop_learner,
            stop_members,
            stop_shards,
        })
    }

    /// Shows the progress until the learner is done; the flag is true if the user
    /// interrupted the training.
    async fn watch(
        &mut self,
        display: &mut Display,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<(LearnerSummary, bool)> {
        tokio::pin!(shutdown);
        let mut interrupted = false;
        let mut ticks = tokio::time::interval(DISPLAY_INTERVAL);
        loop {
            tokio::select! {
                ended = &mut self.learner => {
                    return Ok((ended.context("learner task")??, interrupted));
                }
                Some(ended) = self.shards.join_next() => ended.context("shard task")??,
                Some(ended) = self.actors.join_next() => ended.context("actor task")??,
                Some(ended) = self.evaluators.join_next() => ended.context("evaluator task")??,
                () = &mut shutdown, if !interrupted => {
                    interrupted = true;
                    note_stopping();
                    let _ = self.stop_learner.send(true);
                }
                _ = ticks.tick() => {
                    display.show(Instant::now(), &self.moment(interrupted));
                }
            }
        }
    }

    fn moment(&self, interrupted: bool) -> Moment {
        let progress = self.progress.borrow().clone();
        let waiting = if progress.trained && !interrupted && !self.evaluators.is_empty() {
            Some("waiting for the evaluation of the final weights".to_owned())
        } else {
            waiting(&progress, self.min_rows)
        };
        Moment {
            progress,
            validation_mm: *self.errors.borrow(),
            waiting,
        }
    }

    /// Stops everything else after the learner has ended.
    async fn finish(mut self) {
        drain(&mut self.evaluators).await;
        drain(&mut self.actors).await;
        let _ = self.stop_shards.send(true);
        drain(&mut self.shards).await;
    }
}

/// Waits for tasks whose results no longer matter.
async fn drain(tasks: &mut JoinSet<anyhow::Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.context("cluster task").and_then(|r| r) {
            let error = format!("{error:#}");
            tracing::warn!(error, "a task failed after the training");
        }
    }
}
