//! The learner as a service: everything wired together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::config::Config;
use common::run::run_folder::{Announced, Endpoints, reachable};
use proto::messages::status::Evaluation;
use proto::messages::weights::Published;
use proto::transport::channel::{self, Channel};
use proto::transport::health::Health;
use proto::transport::security::{Role, Security};
use proto::transport::serve::Boxed;
use proto::wire::replay_client::ReplayClient as ShardClient;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tracing::Instrument as _;

use crate::actors::broadcast::{Digests, Newest};
use crate::actors::evaluations::Evaluations;
use crate::actors::incarnations::Incarnations;
use crate::actors::registry::{Registry, Settings};
use crate::batch::collate::CollateCounts;
use crate::batch::sampler::Sampler;
use crate::checkpoint::files::CheckpointFiles;
use crate::error::LearnerError;
use crate::prepare::PreparedRun;
use crate::replay::limiter::{Limits, RateLimiter};
use crate::replay::priorities::priorities;
use crate::replay::shards::ReplayClient;
use crate::report::progress::Progress;
use crate::report::reporter::Reporter;
use crate::service::LearnerService;
use crate::shared::Shared;
use crate::training::stop::StopRules;
use crate::training::thread::{Done, TrainSetup};

/// How long the learner waits for actors to receive the end of the run.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// The same for a run that ended by itself, when no caller waits for the process to exit.
const COMPLETION_GRACE: Duration = Duration::from_secs(15);
/// How long evaluators have for the last weights of a run that ended by itself; longer if
/// evaluations take long.
const LAST_EVALUATION: Duration = Duration::from_secs(120);
/// How often leases are checked.
const LEASES_EVERY: Duration = Duration::from_secs(1);

/// Inputs of [`run`].
#[derive(Debug)]
pub struct LearnerSetup {
    /// The run; shards and actors of other runs are refused.
    pub run: Arc<PreparedRun>,
    /// Its checkpoints for download; shared with the HTTP server, so that each
    /// digest is computed once.
    pub checkpoints: Arc<CheckpointFiles>,
    /// Shard addresses as actors and learner reach them.
    pub shards: Vec<String>,
    /// TLS settings: which peers are accepted, and this process's identity for the shards.
    pub security: Security,
    /// Where progress is published.
    pub progress: watch::Sender<Progress>,
    /// `host:port` of this process's metrics, where they are served.
    pub http: Option<String>,
    /// Gets the checks of the learner's tasks.
    pub health: Health,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct LearnerSummary {
    /// Updates done, including those before a resume.
    pub updates: u64,
    /// True if it was stopped before its last update.
    pub stopped_early: bool,
    pub checkpoint: PathBuf,
    pub weights: PathBuf,
    pub last_evaluation: Option<Evaluation>,
    pub best_evaluation: Option<Evaluation>,
    pub progress: Progress,
}

/// Runs until the last update, the time limit, or `shutdown`; always writes a
/// final checkpoint. Refuses invalid settings before anything starts.
pub async fn run(
    setup: LearnerSetup,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<LearnerSummary, LearnerError> {
    boxed(setup, listener, Box::pin(shutdown)).await
}

fn boxed(
    setup: LearnerSetup,
    listener: TcpListener,
    shutdown: Boxed<'static, ()>,
) -> Boxed<'static, Result<LearnerSummary, LearnerError>> {
    Box::pin(learn(setup, listener, shutdown))
}

async fn learn(
    setup: LearnerSetup,
    listener: TcpListener,
    mut shutdown: Boxed<'static, ()>,
) -> Result<LearnerSummary, LearnerError> {
    let parts = Parts::start(&setup).await?;
    let address = listener.local_addr().ok();
    let _announced = announce(&setup, address);
    let address = address.map(|a| a.to_string());
    tracing::info!(address, run = setup.run.hello.run_id, "learner listens");
    let (close, closed) = oneshot::channel::<()>();
    let served = serve(
        listener,
        setup.security.clone(),
        (Arc::clone(&parts.shared), setup.health.clone()),
        closed,
    );
    let server = tokio::spawn(served.in_current_span());
    let Parts {
        shared,
        stop,
        mut done,
        reporter,
        tasks,
    } = parts;
    let mut stopping = false;
    let summary = tokio::select! {
        ended = &mut done => ended,
        () = &mut shutdown => {
            stopping = true;
            tracing::info!("stopping: writing the final checkpoint");
            stop.store(true, Ordering::Relaxed);
            done.await
        }
    };
    let summary = summary.map_err(|_| LearnerError::Thread("train"))?;
    if summary.as_ref().is_ok_and(|s| s.finished) {
        let last = shared.newest.borrow().as_ref().map_or(0, |p| p.version);
        shared.last_version.store(last, Ordering::Relaxed);
    }
    shared.over.store(true, Ordering::Relaxed);
    tokio::select! {
        () = wait_for_members(&shared) => {}
        () = &mut shutdown, if !stopping => {
            tracing::info!("stopping without the last evaluation");
        }
    }
    let progress = reporter.finish().await;
    drop(close);
    let served = server.await.map_err(|_| LearnerError::Thread("server"))?;
    drop(tasks);
    let trained = summary?;
    served?;
    let (last_evaluation, best_evaluation) = {
        let evaluations = shared.evaluations();
        (evaluations.last(), evaluations.best())
    };
    Ok(LearnerSummary {
        updates: trained.updates,
        stopped_early: !trained.finished,
        checkpoint: trained.checkpoint,
        weights: trained.weights,
        last_evaluation,
        best_evaluation,
        progress,
    })
}

/// Writes `endpoints.json` into the run folder, for `landmarl status`. Training does not depend
/// on it.
fn announce(setup: &LearnerSetup, address: Option<SocketAddr>) -> Option<Announced> {
    let endpoints = Endpoints {
        grpc: address.map(reachable),
        tls: setup.security.has_tls(),
        http: setup.http.clone(),
        ..Endpoints::of_this_process(SystemTime::now())
    };
    let announced = setup.run.folder.announce(endpoints);
    announced
        .inspect_err(|error| {
            tracing::warn!(%error, "`landmarl status` will not find this run; training continues");
        })
        .ok()
}

/// Everything that runs alongside the server.
struct Parts {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    done: Done,
    reporter: Reporter,
    /// Aborted when dropped.
    tasks: JoinSet<()>,
}

impl Parts {
    async fn start(setup: &LearnerSetup) -> Result<Self, LearnerError> {
        let (config, hello) = (&setup.run.config, setup.run.hello.clone());
        let limiter = RateLimiter::new(Limits::new(config, setup.shards.len()))?;
        let clients = clients(&setup.shards, &setup.security)?;
        let incarnations = Incarnations::open(setup.run.folder.path(), SystemTime::now())?;
        let (first, learner) = (incarnations.first(), incarnations.learner());
        let replay = Arc::new(ReplayClient::new(&setup.shards, limiter));
        let stop = Arc::new(AtomicBool::new(false));
        let updates = Arc::new(AtomicU64::new(0));
        let episodes = Arc::new(AtomicU64::new(0));
        let collate_counts = Arc::new(CollateCounts::default());
        let (publisher, newest) = watch::channel(None);
        let published = Arc::new(Digests::default());
        let (sink, priority_counts, priority_task) =
            priorities(hello.clone(), learner, clients.clone());
        let (sampled_in, sampled) = mpsc::channel(config.learner.prefetch);
        let (mut train, mut done) = TrainSetup {
            run: Arc::clone(&setup.run),
            replay: Arc::clone(&replay),
            stop: Arc::clone(&stop),
            updates: Arc::clone(&updates),
            episodes: Arc::clone(&episodes),
            collate_counts: Arc::clone(&collate_counts),
            publisher,
            published: Arc::clone(&published),
            sink,
        }
        .start(sampled)?;
        // No actor may join before the weights exist: a refusal to resume comes first.
        train.ready(&mut done).await?;
        let counts = (Arc::clone(&updates), Arc::clone(&episodes));
        let shared = shared(setup, &replay, newest, counts, (published, first));
        let sampler = Sampler::new(replay, clients, hello, learner, config.learner.batch);
        let mut tasks = JoinSet::new();
        let sampling = sampler.run(config.learner.prefetch, config.run.seed, sampled_in);
        let actors = watch_actors(Arc::clone(&shared), incarnations);
        let watch = &setup.health;
        tasks.spawn(watch.watched("sampling", sampling.in_current_span()));
        tasks.spawn(watch.watched("priorities", priority_task.in_current_span()));
        tasks.spawn(watch.watched("actors", actors.in_current_span()));
        let progress = setup.progress.clone();
        let counts = (priority_counts, collate_counts);
        let stats = train.stats();
        let reporter = Reporter::start(
            setup.run.folder.path(),
            progress,
            &shared,
            counts,
            stats,
            config.learner.prefetch,
        )?;
        Ok(Self {
            shared,
            stop,
            done,
            reporter,
            tasks,
        })
    }
}

/// The service's state, once the learner has its first weights.
fn shared(
    setup: &LearnerSetup,
    replay: &Arc<ReplayClient>,
    newest: Newest,
    (updates, episodes): (Arc<AtomicU64>, Arc<AtomicU64>),
    (published, first_incarnation): (Arc<Digests>, u32),
) -> Arc<Shared> {
    let run = &setup.run;
    let config = &run.config;
    let untrained = newest.borrow().clone().filter(|p| p.updates == 0);
    let before = episodes.load(Ordering::Relaxed);
    let registry = Registry::new(registry_settings(config, first_incarnation)).after(before);
    let evaluations = Evaluations::new(run.folder.path(), run.manifest.clone());
    Arc::new(Shared {
        untrained: untrained.filter(|_| config.validation.period > 0),
        hello: run.hello.clone(),
        manifest: run.manifest.clone(),
        baseline: run.baseline.clone(),
        config_json: config.shared_json(),
        shards: setup.shards.clone(),
        lease: Duration::from_secs_f64(config.cluster.lease_s),
        stop_rules: StopRules::new(&config.learner),
        updates,
        episodes,
        over: AtomicBool::new(false),
        registry: Mutex::new(registry),
        replay: Arc::clone(replay),
        newest,
        began: Instant::now(),
        actors_expected: config.actors_expected(),
        min_rows: config.replay.min_rows,
        evaluations: Mutex::new(evaluations.of_published(published)),
        checkpoints: Arc::clone(&setup.checkpoints),
        progress: setup.progress.subscribe(),
        last_version: AtomicU64::new(0),
        comparing: Mutex::default(),
    })
}

fn clients(
    addresses: &[String],
    security: &Security,
) -> Result<Vec<ShardClient<Channel>>, proto::transport::endpoint::AddressError> {
    addresses
        .iter()
        .map(|a| Ok(channel::replay_client(security.connect(a, Role::Replay)?)))
        .collect()
}

fn registry_settings(config: &Config, first_incarnation: u32) -> Settings {
    Settings {
        lease: Duration::from_secs_f64(config.cluster.lease_s),
        epsilon_low: config.actor.epsilon_low,
        epsilon_high: config.actor.epsilon_high,
        first_incarnation,
    }
}

async fn serve(
    listener: TcpListener,
    security: Security,
    (shared, health): (Arc<Shared>, Health),
    closed: oneshot::Receiver<()>,
) -> Result<(), proto::transport::serve::ServeError> {
    let service = LearnerService::new(shared, half_precision);
    let routes = Routes::new(channel::learner_server(service));
    let closed = async {
        let _ = closed.await;
    };
    let names = &["landmarl.v1.Learner"];
    proto::transport::serve::run_server(listener, security, routes, names, &health, closed).await
}

/// The same weights in bf16; `None` if the conversion fails: f32 is sent then.
fn half_precision(p: &Published) -> Option<Published> {
    let weights = model::files::weights::from_bytes(&p.bytes).ok()?;
    let bytes = model::files::weights::to_bytes_bf16(&weights.network, &weights.metadata).ok()?;
    Some(Published::at(p.published_us, p.version, p.updates, bytes))
}

/// Expires leases, and reserves incarnations before actors use them.
async fn watch_actors(shared: Arc<Shared>, mut incarnations: Incarnations) {
    loop {
        tokio::time::sleep(LEASES_EVERY).await;
        let now = shared.now();
        let newest = {
            let mut registry = shared.registry();
            registry.expire(now);
            registry.newest_incarnation()
        };
        // It writes a small file once in hundreds of restarts.
        if let Err(error) = incarnations.used(newest) {
            tracing::warn!(%error, "incarnations of actors are not saved; trying again");
        }
    }
}

/// Waits until every live actor has received the end of the run and, if the run ended by itself,
/// until every evaluator has received it too and reported on the last weights.
async fn wait_for_members(shared: &Arc<Shared>) {
    let begin = Instant::now();
    let by_itself = shared.last_version.load(Ordering::Relaxed) > 0;
    let grace = if by_itself {
        COMPLETION_GRACE
    } else {
        SHUTDOWN_GRACE
    };
    while begin.elapsed() < grace && !shared.registry().stop_sent_to_all() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = shared.newest.borrow().clone();
    let Some(last) = last.filter(|_| by_itself) else {
        return;
    };
    // `evaluations()` is locked during disk writes, so it runs on a blocking thread.
    let awaited = || {
        let (shared, last) = (Arc::clone(shared), Arc::clone(&last));
        let look = move || shared.evaluations().awaited(shared.now(), &last);
        async { tokio::task::spawn_blocking(look).await.unwrap_or(false) }
    };
    if awaited().await {
        tracing::info!(
            version = last.version,
            updates = last.updates,
            "waiting for the evaluation of the last weights"
        );
    }
    let others = Arc::clone(shared);
    let took = move || others.evaluations().last().map(|e| e.seconds);
    let took = tokio::task::spawn_blocking(took).await.ok().flatten();
    let limit = last_evaluation(took);
    while awaited().await {
        if begin.elapsed() >= limit {
            tracing::warn!(
                waited_s = limit.as_secs_f64(),
                "the last weights were not evaluated in time"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long to wait for the evaluation of the last weights if the previous one took this
/// many seconds: the evaluator may have started another one just before the end.
fn last_evaluation(took: Option<f64>) -> Duration {
    let three = took.and_then(|s| Duration::try_from_secs_f64(3.0 * s).ok());
    three.unwrap_or_default().max(LAST_EVALUATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_longer_for_slow_evaluators() {
        let s = Duration::from_secs;
        let took = [None, Some(2.0), Some(100.0), Some(f64::NAN)];
        assert_eq!(took.map(last_evaluation), [s(120), s(120), s(300), s(120)]);
    }
}
