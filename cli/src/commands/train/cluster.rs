//! Shards, learner, actors and evaluator side by side, until the learner is
//! done or somebody presses Ctrl-C.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actor::evaluation::validate::Validator;
use actor::session::counters::Counters;
use actor::session::metrics::{ActorMetrics, EvaluatorMetrics};
use actor::{ActorSetup, Ending};
use anyhow::Context as _;
use common::run::durable::write_atomic;
use common::run::telemetry::Control;
use learner::checkpoint::files::CheckpointFiles;
use learner::report::metrics::LearnerMetrics;
use learner::{LearnerError, LearnerSetup, LearnerSummary, Progress};
use proto::messages::weights::Published;
use proto::transport::channel::{connect_lazy, learner_client};
use proto::transport::http::{self, Serving};
use proto::transport::metrics::{Metrics, Process};
use proto::transport::security::Security;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::display::{Display, Moment};
use super::follow::{Evaluator, Newest, follow};
use super::plan::Plan;
use super::shards::{configs, loopback, serve};
use crate::output::console;
use crate::output::failure::{Advice, Exit};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the learner may take for a checkpoint after something else failed.
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);

/// How a training ended.
#[derive(Debug)]
pub struct Ended {
    pub updates: u64,
    pub interrupted: bool,
    /// The best and the last error on the selection scans.
    pub validation_mm: Option<(f64, f64)>,
    pub constant_guess_mm: Option<f64>,
    /// What to evaluate next.
    pub weights: Option<PathBuf>,
}

/// Runs everything on its own runtime.
pub fn train(plan: Plan, log: &Control) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(Box::pin(async {
        let metrics = Metrics::default();
        let _web = observe(&plan, log, metrics.clone()).await?;
        run(plan, &metrics).await
    }))
}

/// Everything that runs.
struct Cluster {
    learner: JoinHandle<Result<LearnerSummary, LearnerError>>,
    shards: JoinSet<anyhow::Result<()>>,
    actors: JoinSet<anyhow::Result<()>>,
    evaluator: Option<Evaluator>,
    follower: JoinHandle<()>,
    progress: watch::Receiver<Progress>,
    /// Updates to do.
    total: u64,
    counters: Vec<Arc<Counters>>,
    errors: watch::Receiver<Option<(f64, f64)>>,
    newest: watch::Receiver<Newest>,
    stop_learner: watch::Sender<bool>,
    stop_actors: watch::Sender<bool>,
    stop_shards: watch::Sender<bool>,
}

/// The learner of this process, with the shards at these addresses.
fn learner_setup(
    plan: &Plan,
    shards: Vec<String>,
    progress: watch::Sender<Progress>,
) -> LearnerSetup {
    LearnerSetup {
        config: Arc::clone(&plan.config),
        dataset: Arc::clone(&plan.dataset),
        run_id: plan.hello.run_id.clone(),
        run_dir: plan.folder.path().to_owned(),
        checkpoints: Arc::new(CheckpointFiles::new(&plan.folder.checkpoints())),
        shards,
        resume: plan.resume,
        security: Security::none(),
        progress,
    }
}

/// Serves metrics, health and the log level, where the configuration says so.
async fn observe(plan: &Plan, log: &Control, metrics: Metrics) -> anyhow::Result<Option<Serving>> {
    let config = &plan.config;
    let insecure = config.cluster.insecure;
    // The configuration's certificates are those of a cluster's processes; here
    // only HTTP can be reached from outside.
    let security = Security::from_config(&config.cluster)?;
    let listener = http::bind(&config.http.listen, &security, insecure).await?;
    let process = Process::new("landmarl", Some(log.clone()));
    metrics.add(process.writes_to("run", plan.folder.path()));
    Ok(http::spawn(
        listener,
        http::standard(metrics, log.clone()),
        &security,
    ))
}

async fn run(mut plan: Plan, metrics: &Metrics) -> anyhow::Result<Ended> {
    let signals = Signals::listen()?;
    let validator = plan.validator.take();
    let mut cluster = Cluster::start(&plan, validator, metrics)?;
    let total = plan.config.learner.updates;
    let mut display = Display::new(total);
    let outcome = cluster.watch(&mut display, signals).await;
    display.finish();
    let _ = cluster.stop_learner.send(true);
    let _ = cluster.stop_actors.send(true);
    let (summary, interrupted) = match outcome {
        Ok(ended) => ended,
        Err(error) => {
            // What went wrong is known; the learner may still save its state.
            if !cluster.learner.is_finished() {
                let _ = tokio::time::timeout(LAST_CHECKPOINT, &mut cluster.learner).await;
            }
            cluster.actors.shutdown().await;
            cluster.shards.shutdown().await;
            return Err(error);
        }
    };
    cluster.finish(&plan, &summary, interrupted).await
}

/// Ends when the sender says so, or is gone.
async fn stopped(mut signal: watch::Receiver<bool>) {
    let _ = signal.wait_for(|stop| *stop).await;
}

impl Cluster {
    fn start(plan: &Plan, validator: Option<Validator>, metrics: &Metrics) -> anyhow::Result<Self> {
        let (stop_learner, learner_stops) = watch::channel(false);
        let (stop_actors, actors_stop) = watch::channel(false);
        let (stop_shards, shards_stop) = watch::channel(false);
        let (mut shards, mut actors) = (JoinSet::new(), JoinSet::new());
        let mut addresses = Vec::new();
        for config in configs(
            &plan.config,
            &plan.hello,
            plan.incarnation,
            &plan.folder.replay(),
        ) {
            let (listener, address) = loopback()?;
            addresses.push(address);
            let stop = stopped(shards_stop.clone());
            shards.spawn(serve(config, listener, metrics.clone(), stop));
        }
        let (listener, address) = loopback()?;
        let (tell, progress) = watch::channel(Progress::default());
        metrics.add(LearnerMetrics::new(progress.clone()));
        let setup = learner_setup(plan, addresses, tell);
        let learner = tokio::spawn(learner::run(setup, listener, stopped(learner_stops)));
        let mut counters = Vec::new();
        for place in 0..plan.config.actor.count {
            counters.push(Arc::new(Counters::default()));
            metrics.add(ActorMetrics::new(Arc::clone(&counters[place]), place));
            let setup = ActorSetup {
                config: Arc::clone(&plan.config),
                dataset: Arc::clone(&plan.dataset),
                learner: address.clone(),
                run_id: Some(plan.hello.run_id.clone()),
                security: Security::none(),
                counters: Arc::clone(&counters[place]),
            };
            actors.spawn(act(setup, stopped(actors_stop.clone())));
        }
        let (tell_newest, newest) = watch::channel(None);
        let (tell_errors, errors) = watch::channel(None);
        metrics.add(EvaluatorMetrics::new(errors.clone()));
        let every = plan.config.validation.every;
        let evaluator = validator
            .map(|v| Evaluator::spawn(v, every, newest.clone(), tell_errors))
            .transpose()?;
        let follower = tokio::spawn(follow(
            learner_client(connect_lazy(&address)?),
            plan.hello.clone(),
            tell_newest,
        ));
        Ok(Self {
            learner,
            shards,
            actors,
            evaluator,
            follower,
            progress,
            total: plan.config.learner.updates,
            counters,
            errors,
            newest,
            stop_learner,
            stop_actors,
            stop_shards,
        })
    }

    /// Shows how it goes until the learner is done; the flag says whether
    /// somebody interrupted it.
    async fn watch(
        &mut self,
        display: &mut Display,
        mut signals: Signals,
    ) -> anyhow::Result<(LearnerSummary, bool)> {
        let mut interrupted = false;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                ended = &mut self.learner => {
                    return Ok((ended.context("the learner's task")??, interrupted));
                }
                Some(ended) = self.shards.join_next() => {
                    ended.context("a shard's task")??;
                }
                Some(ended) = self.actors.join_next() => {
                    ended.context("an actor's task")??;
                }
                () = signals.next(), if !interrupted => {
                    interrupted = true;
                    console::note("stopping with a checkpoint; Ctrl-C again stops at once");
                    let _ = self.stop_learner.send(true);
                    signals.exit_at_next();
                }
                _ = ticks.tick() => {
                    display.show(Instant::now(), &self.moment());
                    if self.evaluator.as_ref().is_some_and(Evaluator::failed) {
                        let evaluator = self.evaluator.take().context("the evaluator")?;
                        join(evaluator).await.context("validate")?;
                    }
                }
            }
        }
    }

    fn moment(&self) -> Moment {
        let p = self.progress.borrow();
        let waiting = (p.train.updates == 0).then(|| match p.rows.limiter.as_str() {
            "" | "open" => "starting".to_owned(),
            why => why.to_owned(),
        });
        Moment {
            updates: p.train.updates,
            updates_total: self.total,
            env_steps: self.counters.iter().map(|c| c.read().env_steps).sum(),
            samples_per_insert: p.rows.samples_per_insert,
            loss: (p.train.updates > 0).then_some(p.train.loss),
            validation_mm: *self.errors.borrow(),
            waiting,
        }
    }

    /// After the learner: everything else stops, the final weights are kept and validated.
    async fn finish(
        mut self,
        plan: &Plan,
        summary: &LearnerSummary,
        interrupted: bool,
    ) -> anyhow::Result<Ended> {
        drain(&mut self.actors).await;
        let _ = self.stop_shards.send(true);
        drain(&mut self.shards).await;
        // Its sender goes with the follower: that is how the evaluator learns
        // that no more weights will come.
        self.follower.abort();
        let last = self.newest.borrow().clone();
        let mut ended = Ended {
            updates: summary.updates,
            interrupted,
            validation_mm: None,
            constant_guess_mm: None,
            weights: None,
        };
        if let Some(last) = &last {
            let path = plan.folder.checkpoints().join("final.safetensors");
            write_atomic(&path, &last.bytes)?;
            ended.weights = Some(path);
        }
        if let Some(evaluator) = self.evaluator.take() {
            let mut validator = join(evaluator).await?;
            let last = last.filter(|l| !interrupted && Some(l.updates) != validator.last_updates());
            if let Some(last) = last {
                validator = validate_last(validator, last).await?;
            }
            ended.validation_mm = validator.errors_mm();
            ended.constant_guess_mm = validator.constant_guess_mm();
        }
        let best = plan.folder.checkpoints().join("best.safetensors");
        ended.weights = Some(best).filter(|b| b.is_file()).or(ended.weights);
        Ok(ended)
    }
}

/// Waits for tasks whose results matter no more.
async fn drain(tasks: &mut JoinSet<anyhow::Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.context("a task of the cluster").and_then(|r| r) {
            let error = format!("{error:#}");
            tracing::warn!(error, "ended with an error after the training");
        }
    }
}

async fn validate_last(
    mut validator: Validator,
    last: Arc<Published>,
) -> anyhow::Result<Validator> {
    console::note("validating the final weights");
    let task = tokio::task::spawn_blocking(move || {
        validator.validate(&last)?;
        anyhow::Ok(validator)
    });
    task.await.context("the last validation")?
}

async fn join(evaluator: Evaluator) -> anyhow::Result<Validator> {
    tokio::task::spawn_blocking(move || evaluator.join())
        .await
        .context("the evaluator's task")?
}

async fn act(
    setup: ActorSetup,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let summary = actor::run(setup, stop).await?;
    match summary.ending {
        Ending::RunOver | Ending::Shutdown => Ok(()),
    }
}

/// Ctrl-C, and what `docker stop` sends.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |e| Advice::new(Exit::Failed, format!("cannot listen for Ctrl-C: {e}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The second one does not wait for anything.
    fn exit_at_next(&self) {
        let again = Self::listen();
        tokio::spawn(async move {
            if let Ok(mut signals) = again {
                signals.next().await;
                // Whoever presses Ctrl-C twice wants no more waiting.
                std::process::exit(Exit::Interrupted as i32);
            }
        });
    }
}
