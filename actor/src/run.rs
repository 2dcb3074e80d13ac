//! The actor as a service: join, act, send, rejoin, drain.

use std::future::Future;
use std::pin::{Pin, pin};
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
use proto::messages::join::{JoinReply, JoinRequest};
use proto::transport::security::Security;
use tracing::Instrument as _;

use crate::error::ActorError;
use crate::session::counters::{Counters, Reading};
use crate::session::driver::Driver;
use crate::session::feed::{Feed, StopOnDrop};
use crate::session::learner_client::{Link, Order};
use crate::session::{Event, Session};
use crate::uplink::Phase;

/// How long rows on their way may take to be acknowledged after a shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// The same when the run is over.
const LET_GO: Duration = Duration::from_millis(200);
/// How long the rollout may take for the step that it is in.
const LAST_STEP: Duration = Duration::from_secs(30);
/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Time between two lines of progress in the log.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What an actor needs.
#[derive(Debug, Clone)]
pub struct ActorSetup {
    /// The resolved configuration, the learner's but for the keys that shape
    /// neither rows nor windows.
    pub config: Arc<Config>,
    /// The training scans, the same as the learner's.
    pub dataset: Arc<Dataset>,
    /// The learner, `host:port`.
    pub learner: String,
    /// The run to join; `None` for whatever the learner runs.
    pub run_id: Option<String>,
    /// Who we are.
    pub security: Security,
    /// Where to count; keep a clone to watch the actor from outside.
    pub counters: Arc<Counters>,
}

/// Why an actor ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was told to shut down.
    Shutdown,
    /// The learner said that the run is over.
    RunOver,
}

/// What an actor did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActorSummary {
    /// Why it ended.
    pub ending: Ending,
    /// Its last name; `None` when it never joined.
    pub writer: Option<Writer>,
    pub counts: Reading,
    /// Rows that were on their way when it ended.
    pub rows_unsent: u64,
}

/// Acts until `shutdown`, or until the learner says that the run is over.
///
/// The learner and the shards may come and go: the actor tries again as long
/// as it lives, and acts on as long as it has weights.
///
/// # Errors
/// When the learner or a shard refuses this actor for good, or its rollout fails.
pub async fn run(
    setup: ActorSetup,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ActorSummary, ActorError> {
    // Several actors may log into one file. Of the highest level, so that
    // whatever is logged is logged with it.
    let span = tracing::error_span!("acting", actor = tracing::field::Empty);
    join_and_act(setup, shutdown).instrument(span).await
}

async fn join_and_act(
    setup: ActorSetup,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ActorSummary, ActorError> {
    let mut shutdown = pin!(shutdown);
    let scans = numbered(&setup.dataset);
    let request = join_request(&setup, &scans)?;
    let link = Link::new(&setup.learner, setup.security.clone())?;
    let joined = tokio::select! {
        joined = link.join(&request) => joined?,
        () = &mut shutdown => {
            let counts = setup.counters.read();
            return Ok(ActorSummary { ending: Ending::Shutdown, writer: None, counts, rows_unsent: 0 });
        }
    };
    let mut acting = Acting::start(setup, request, link, joined, scans)?;
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
    link: Link,
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
        link: Link,
        joined: JoinReply,
        scans: Vec<Arc<Scan>>,
    ) -> Result<Self, ActorError> {
        let bound = max_staleness(&setup.config, joined.lease);
        let feed = Arc::new(Feed::new(bound));
        let stop = StopOnDrop(Arc::clone(&feed));
        let hello = request.hello.clone();
        let session = Session::start(&setup.config, &link, hello, &joined, &feed, &setup.counters);
        let (config, counters) = (Arc::clone(&setup.config), Arc::clone(&setup.counters));
        let driver = Driver::spawn(config, scans, Arc::clone(&feed), counters)?;
        Ok(Self {
            setup,
            request,
            link,
            joined,
            feed,
            _stop: stop,
            session,
            driver,
        })
    }

    async fn until_end(
        &mut self,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Ending, ActorError> {
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
            match event {
                Event::Failed(error) => return Err(error),
                Event::Order(Order::Stop) => return Ok(Ending::RunOver),
                Event::Order(Order::Rejoin) => {
                    tracing::warn!("the learner gave this actor up; joining again");
                }
            }
            // The old life goes on until there is a new one.
            self.joined = tokio::select! {
                () = &mut shutdown => return Ok(Ending::Shutdown),
                ended = self.driver.ended() => return Err(too_early(ended)),
                joined = self.link.join(&self.request) => joined?,
            };
            self.live_again().await;
        }
    }

    /// A new session in the place of the old one, whose rows nobody may send any more.
    async fn live_again(&mut self) {
        let hello = self.request.hello.clone();
        let (config, counters) = (&self.setup.config, &self.setup.counters);
        let new = Session::start(
            config,
            &self.link,
            hello,
            &self.joined,
            &self.feed,
            counters,
        );
        let old = std::mem::replace(&mut self.session, new);
        counters.dropped(old.end(Phase::Abandon).await);
    }

    /// Stops the rollout and waits for it: a process that ends while a thread
    /// computes in libtorch may crash instead.
    async fn halt(&self) {
        self.feed.stop();
        let begin = Instant::now();
        while !self.driver.is_gone() && begin.elapsed() < LAST_STEP {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops the rollout, then sends what it left, as far as that is still wanted.
    async fn finish(mut self, ending: Ending) -> Result<ActorSummary, ActorError> {
        self.feed.stop();
        let phase = match ending {
            Ending::Shutdown => Phase::Drain(Instant::now() + DRAIN),
            // Nobody trains on them any more; only let the rollout go.
            Ending::RunOver => Phase::Drain(Instant::now() + LET_GO),
        };
        let stopped = tokio::time::timeout(LAST_STEP, self.driver.ended());
        let (unsent, stopped) = tokio::join!(self.session.end(phase), stopped);
        match stopped {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::warn!(
                    waited_s = LAST_STEP.as_secs(),
                    "the rollout does not end its step; leaving it behind"
                );
            }
        }
        if ending == Ending::Shutdown {
            self.link
                .leave(self.joined.writer, &self.setup.counters)
                .await;
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

/// The rollout ends well only after it was told to stop.
fn too_early(ended: Result<(), ActorError>) -> ActorError {
    ended
        .err()
        .unwrap_or_else(|| ActorError::Panicked("it ended before its time".into()))
}

/// How old weights may be. Heartbeats tell that they are the newest, so no less
/// than a lease, in which there are some.
fn max_staleness(config: &Config, lease: Duration) -> Option<Duration> {
    let bound = config.actor.max_staleness;
    (bound > 0.0).then(|| Duration::from_secs_f64(bound).max(lease))
}

/// The scans in the order of the manifest: by content.
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
        manifest_json: Bytes::from(serde_json::to_vec(&manifest)?),
        config_json: Bytes::from(config.shared_json()),
    })
}

/// Host, and this process there: by its name in the logs where it has one, which
/// its next life bears too, else by its number.
pub(crate) fn host(instance: &str) -> String {
    let host = common::run::run_folder::host_name();
    if instance.is_empty() {
        format!("{host}/{}", std::process::id())
    } else {
        format!("{host}/{instance}")
    }
}

/// One line every few seconds.
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
