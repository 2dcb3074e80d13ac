//! The actor as a service: join, act, send, rejoin, drain.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::dataset::Dataset;
use common::imaging::manifest::TrainingManifest;
use common::imaging::scan::Scan;
use proto::messages::hello::Hello;
use proto::messages::insert::Writer;
use proto::messages::join::{JoinReply, JoinRequest, manifest_that_fits};
use proto::transport::serve::Boxed;
use tracing::Instrument as _;

use crate::error::ActorError;
use crate::session::counters::Reading;
use crate::session::driver::Driver;
use crate::session::feed::{Feed, StopOnDrop};
use crate::session::learner_client::{LearnerClient, Order};
use crate::session::{ActorSetup, Event, Session};
use crate::uplink::Phase;

/// Time limit for outstanding rows to be acknowledged after a shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// The same limit when the run is over.
const LET_GO: Duration = Duration::from_millis(200);
/// Time limit for the rollout's current step.
const LAST_STEP: Duration = Duration::from_secs(30);
/// Interval at which to check whether the rollout has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Delay before an actor joins again whose incarnation a shard refused: the learner asks its
/// shards more often than that which incarnations they know.
const REPLACED_PAUSE: Duration = Duration::from_secs(1);
/// Interval of the progress log.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Why an actor ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A shutdown was requested.
    Shutdown,
    /// The learner reported the end of the run.
    RunOver,
}

/// The result of an actor's run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActorSummary {
    /// Why it ended.
    pub ending: Ending,
    /// Its last actor number and incarnation; `None` if it never joined.
    pub writer: Option<Writer>,
    pub counts: Reading,
    /// Rows that were not acknowledged when it ended.
    pub rows_unsent: u64,
}

/// Acts until `shutdown`, or until the learner reports the end of the run.
///
/// The learner and the shards may be unreachable at times: the actor keeps
/// reconnecting, and acts with the weights that it has for at most
/// `actor.max_staleness`.
///
/// # Errors
/// When the learner or a shard permanently refuses this actor, or its rollout fails.
pub async fn run(
    setup: ActorSetup,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ActorSummary, ActorError> {
    boxed(setup, Box::pin(shutdown)).await
}

fn boxed(
    setup: ActorSetup,
    shutdown: Boxed<'static, ()>,
) -> Boxed<'static, Result<ActorSummary, ActorError>> {
    // Several actors may log to one file. The span has the highest level, so
    // that no log filter removes it.
    let span = tracing::error_span!("acting", actor = tracing::field::Empty);
    Box::pin(join_and_act(setup, shutdown).instrument(span))
}

async fn join_and_act(
    setup: ActorSetup,
    mut shutdown: Boxed<'static, ()>,
) -> Result<ActorSummary, ActorError> {
    let scans = numbered(&setup.dataset);
    let request = join_request(&setup, &scans)?;
    let client = LearnerClient::new(&setup.learner, &setup.security)?;
    let joined = tokio::select! {
        joined = client.join(&request) => joined?,
        () = &mut shutdown => {
            let counts = setup.counters.read();
            return Ok(ActorSummary { ending: Ending::Shutdown, writer: None, counts, rows_unsent: 0 });
        }
    };
    let mut acting = Acting::start(setup, request, client, joined, scans)?;
    match acting.until_end(shutdown).await {
        Ok(ending) => acting.finish(ending).await,
        Err(error) => {
            acting.halt().await;
            Err(error)
        }
    }
}

/// An actor that has joined. Dropping it stops everything.
#[derive(Debug)]
struct Acting {
    setup: ActorSetup,
    request: JoinRequest,
    client: LearnerClient,
    joined: JoinReply,
    feed: Arc<Feed>,
    _stop: StopOnDrop,
    session: Session,
    driver: Driver,
}

impl Acting {
    fn start(
        setup: ActorSetup,
        request: JoinRequest,
        client: LearnerClient,
        joined: JoinReply,
        scans: Vec<Arc<Scan>>,
    ) -> Result<Self, ActorError> {
        let bound = max_staleness(&setup.config, joined.lease);
        let feed = Arc::new(Feed::new(bound));
        let stop = StopOnDrop(Arc::clone(&feed));
        let session = Session::start(&setup, &client, &request.hello, &joined, &feed);
        let (config, counters) = (Arc::clone(&setup.config), Arc::clone(&setup.counters));
        let driver = Driver::spawn(config, scans, Arc::clone(&feed), counters)?;
        Ok(Self {
            setup,
            request,
            client,
            joined,
            feed,
            _stop: stop,
            session,
            driver,
        })
    }

    async fn until_end(&mut self, mut shutdown: Boxed<'_, ()>) -> Result<Ending, ActorError> {
        let mut progress = Progress::new(self.setup.counters.read());
        loop {
            let event = tokio::select! {
                () = &mut shutdown => return Ok(Ending::Shutdown),
                ended = self.driver.ended() => return Err(too_early(ended)),
                event = self.session.event() => event,
                () = tokio::time::sleep_until(progress.due.into()) => {
                    progress.report(&self.setup.counters.read());
                    continue;
                }
            };
            let pause = match event {
                Event::Failed(error) => return Err(error),
                Event::Order(Order::Stop) => return Ok(Ending::RunOver),
                Event::Order(Order::Rejoin) => {
                    tracing::warn!("the learner no longer knows this actor; joining again");
                    Duration::ZERO
                }
                Event::Replaced {
                    shard,
                    sentence,
                    rows,
                } => {
                    tracing::warn!(shard, reason = sentence, "joining again");
                    self.setup.counters.dropped(rows);
                    REPLACED_PAUSE
                }
            };
            let (client, request) = (&self.client, &self.request);
            let rejoin = async {
                tokio::time::sleep(pause).await;
                client.join(request).await
            };
            // The old incarnation continues until the new one starts.
            self.joined = tokio::select! {
                () = &mut shutdown => return Ok(Ending::Shutdown),
                ended = self.driver.ended() => return Err(too_early(ended)),
                joined = rejoin => joined?,
            };
            self.start_incarnation().await;
        }
    }

    /// Replaces the session; the unsent rows of the old one are dropped.
    async fn start_incarnation(&mut self) {
        let hello = &self.request.hello;
        let new = Session::start(&self.setup, &self.client, hello, &self.joined, &self.feed);
        let old = std::mem::replace(&mut self.session, new);
        self.setup.counters.dropped(old.end(Phase::Abandon).await);
    }

    /// Stops the rollout and waits for it: a process that exits while a thread is
    /// inside libtorch may crash.
    async fn halt(&self) {
        self.feed.stop();
        let begin = Instant::now();
        while !self.driver.is_gone() && begin.elapsed() < LAST_STEP {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops the rollout, then sends the remaining rows if they are still needed.
    async fn finish(mut self, ending: Ending) -> Result<ActorSummary, ActorError> {
        self.feed.stop();
        let phase = match ending {
            Ending::Shutdown => Phase::Drain(Instant::now() + DRAIN),
            // The learner no longer trains on the rows; this only unblocks the rollout.
            Ending::RunOver => Phase::Drain(Instant::now() + LET_GO),
        };
        let stopped = tokio::time::timeout(LAST_STEP, self.driver.ended());
        let (unsent, stopped) = tokio::join!(self.session.end(phase), stopped);
        if let Ok(ended) = stopped {
            ended?;
        } else {
            let waited_s = LAST_STEP.as_secs();
            tracing::warn!(waited_s, "the rollout did not end its step in time");
        }
        if ending == Ending::Shutdown {
            let counters = &self.setup.counters;
            self.client.leave(self.joined.writer, counters).await;
        }
        let counts = self.setup.counters.read();
        tracing::info!(
            ?ending,
            env_steps = counts.env_steps,
            rows = counts.rows_acked,
            unsent,
            "actor ended"
        );
        let writer = Some(self.joined.writer);
        Ok(ActorSummary {
            ending,
            writer,
            counts,
            rows_unsent: unsent as u64,
        })
    }
}

/// The error of a rollout that ended before it was stopped.
fn too_early(ended: Result<(), ActorError>) -> ActorError {
    ended
        .err()
        .unwrap_or_else(|| ActorError::Panicked("it ended before it was stopped".into()))
}

/// The maximum age of weights. Heartbeats confirm that they are the newest, so it
/// is at least one lease, which spans several heartbeats.
fn max_staleness(config: &Config, lease: Duration) -> Option<Duration> {
    let bound = config.actor.max_staleness;
    (bound > 0.0).then(|| Duration::from_secs_f64(bound).max(lease))
}

/// The scans in the order of the manifest: by content hash.
fn numbered(dataset: &Dataset) -> Vec<Arc<Scan>> {
    let mut scans = dataset.scans.clone();
    scans.sort_by_key(|scan| scan.hash);
    scans
}

fn join_request(setup: &ActorSetup, scans: &[Arc<Scan>]) -> Result<JoinRequest, ActorError> {
    let config = &setup.config;
    let manifest = TrainingManifest::new(scans.iter().map(AsRef::as_ref), RULES_VERSION);
    let run_id = setup.run_id.as_deref().unwrap_or_default();
    let hello = Hello::new(run_id, config, manifest.digest());
    Ok(JoinRequest {
        hello,
        slots: config.actor.slots,
        host: host(&config.log.instance),
        manifest_json: manifest_that_fits(serde_json::to_vec(&manifest)?),
        config_json: Bytes::from(config.shared_json()),
    })
}

/// Host and process. The process is identified by its log instance, which a
/// restart keeps, or else by its process id.
pub(crate) fn host(instance: &str) -> String {
    let host = common::run::machine::host_name();
    if instance.is_empty() {
        format!("{host}/{}", std::process::id())
    } else {
        format!("{host}/{instance}")
    }
}

/// Logs the actor's progress every few seconds.
#[derive(Debug)]
struct Progress {
    before: Reading,
    since: Instant,
    due: Instant,
}

impl Progress {
    fn new(before: Reading) -> Self {
        let since = Instant::now();
        Self {
            before,
            since,
            due: since + REPORT_EVERY,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    fn report(&mut self, now: &Reading) {
        let (before, seconds) = (&self.before, self.since.elapsed().as_secs_f64());
        let episodes = now.errors - before.errors;
        let error = (episodes > 0).then(|| (now.error_sum - before.error_sum) / episodes as f64);
        let forward = now.policy.forward.saturating_sub(before.policy.forward);
        let render = now.policy.render.saturating_sub(before.policy.render);
        tracing::info!(
            steps_per_s =
                format_args!("{:.1}", (now.env_steps - before.env_steps) as f64 / seconds),
            env_steps = now.env_steps,
            episodes = now.episodes,
            error_finest_steps = error,
            rows_acked = now.rows_acked,
            rows_dropped = now.rows_dropped,
            weights_version = now.weights_version,
            weights_age_s = now.weights_age.map(|age| age.as_secs()),
            weights_latency_ms = now.weights_latency.map(|d| d.as_millis()),
            blocked_s = format_args!(
                "{:.1}",
                now.blocked.saturating_sub(before.blocked).as_secs_f64()
            ),
            render_s = format_args!("{:.1}", render.as_secs_f64()),
            forward_s = format_args!("{:.1}", forward.as_secs_f64()),
            "acting"
        );
        *self = Self::new(*now);
    }
}
