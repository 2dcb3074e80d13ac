//! The actor's client of the learner: joins and sends heartbeats.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::BackoffBuilder;
use common::run::run_folder::run_name;
use proto::messages::heartbeat::{Heartbeat, HeartbeatReply};
use proto::messages::insert::Writer;
use proto::messages::join::{JoinReply, JoinRequest};
use proto::messages::status::ActorState;
use proto::transport::channel::{Channel, learner_client};
use proto::transport::retry::{CALL_DEADLINE, JOIN_DEADLINE, backoff, is_refusal, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient as Stub;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::Status;

use crate::error::ActorError;
use crate::session::counters::{Counters, Reading};
use crate::session::feed::Feed;
use crate::session::unreachable::Unreachable;

/// Heartbeats per lease.
const BEATS_PER_LEASE: u32 = 4;
/// The shortest time between heartbeats, whatever the lease.
const BEAT_MIN: Duration = Duration::from_millis(50);
/// The longest one: a learner that ends waits a few seconds for every actor's next heartbeat.
const BEAT_MAX: Duration = Duration::from_secs(2);
/// Deadline of the last heartbeat.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// The client of one learner.
#[derive(Debug, Clone)]
pub(crate) struct LearnerClient {
    address: String,
    client: Stub<Channel>,
    reported: Arc<Mutex<Reported>>,
}

/// What the learner has acknowledged: counters outlive incarnations, and each
/// step is reported once.
#[derive(Debug, Default, Clone, Copy)]
struct Reported {
    /// At the start of this incarnation.
    begin: Reading,
    /// At the last acknowledged heartbeat, of any incarnation.
    last: Reading,
}

/// The learner's order to an actor that has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The lease had expired.
    Rejoin,
    /// The run is over.
    Stop,
}

impl LearnerClient {
    pub(crate) fn new(address: &str, security: &Security) -> Result<Self, ActorError> {
        let channel = security.connect(address, Role::Learner)?;
        Ok(Self {
            address: address.to_owned(),
            client: learner_client(channel),
            reported: Arc::default(),
        })
    }

    pub(crate) fn client(&self) -> Stub<Channel> {
        self.client.clone()
    }

    /// Joins; retries until the learner replies.
    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<JoinReply, ActorError> {
        let mut waits = backoff(usize::MAX).build();
        let mut unreachable = Unreachable::default();
        loop {
            match self.try_join(request).await {
                Ok(reply) => {
                    let Writer { actor, incarnation } = reply.writer;
                    common::run::telemetry::name_run(run_name(&reply.run_id));
                    tracing::Span::current().record("actor", actor);
                    tracing::info!(actor, incarnation, run = %reply.run_id, shards = reply.shards.len(), "joined the run");
                    return Ok(reply);
                }
                Err(status) if is_refusal(&status) => {
                    let sentence = status.message().to_owned();
                    return Err(ActorError::Refused {
                        learner: self.address.clone(),
                        sentence,
                    });
                }
                Err(status) => unreachable.warn(&self.address, &status),
            }
            sleep(waits.next().unwrap_or(CALL_DEADLINE)).await;
        }
    }

    async fn try_join(&self, request: &JoinRequest) -> Result<JoinReply, Status> {
        let mut client = self.client();
        let message = wire::JoinRequest::from(request.clone());
        let reply = unary(message, JOIN_DEADLINE, |r| client.join(r)).await?;
        Ok(JoinReply::try_from(reply)?)
    }

    /// Sends heartbeats until the learner gives an order. While the learner is
    /// unreachable, the actor continues with the weights that it has.
    pub(crate) async fn beat(
        self,
        joined: JoinReply,
        counters: Arc<Counters>,
        feed: Arc<Feed>,
    ) -> Order {
        let every = (joined.lease / BEATS_PER_LEASE).clamp(BEAT_MIN, BEAT_MAX);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        {
            let mut reported = self.reported();
            reported.begin = reported.last;
        }
        let mut unreachable = Unreachable::default();
        loop {
            ticks.tick().await;
            let now = counters.read();
            let heartbeat = report(joined.writer, &now, &self.reported());
            let within = (joined.lease / 2).min(CALL_DEADLINE);
            match self.try_beat(heartbeat, within).await {
                Ok(reply) => {
                    if !reply.rejoin {
                        self.reported().last = now;
                    }
                    unreachable.is_back(&self.address);
                    counters.set_updates(reply.updates);
                    feed.newest_is(reply.weights_version);
                    if reply.stop {
                        return Order::Stop;
                    }
                    if reply.rejoin {
                        return Order::Rejoin;
                    }
                }
                Err(status) => unreachable.warn(&self.address, &status),
            }
        }
    }

    /// Sends the last heartbeat, once: if it is lost, the learner gives the actor
    /// up when its lease expires.
    pub(crate) async fn leave(&self, writer: Writer, counters: &Counters) {
        let mut heartbeat = report(writer, &counters.read(), &self.reported());
        heartbeat.report.set_state(ActorState::Left);
        if let Err(status) = self.try_beat(heartbeat, LEAVE_WITHIN).await {
            tracing::debug!(learner = self.address, code = ?status.code(), "the learner was not informed that this actor left");
        }
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_beat(
        &self,
        heartbeat: Heartbeat,
        within: Duration,
    ) -> Result<HeartbeatReply, Status> {
        let mut client = self.client();
        let message = wire::HeartbeatRequest::from(heartbeat);
        unary(message, within, |r| client.heartbeat(r)).await
    }
}

/// Totals since this incarnation began; means and waits since the last
/// acknowledged heartbeat.
fn report(writer: Writer, now: &Reading, reported: &Reported) -> Heartbeat {
    let Reported { begin, last } = reported;
    let errors = now.errors - last.errors;
    #[expect(clippy::cast_precision_loss, reason = "episodes of a few seconds")]
    let mean = if errors == 0 {
        0.0
    } else {
        (now.error_sum - last.error_sum).max(0.0) / errors as f64
    };
    Heartbeat {
        writer,
        report: now.report(begin),
        episodes: now.episodes - begin.episodes,
        rows_sent: now.rows_acked - begin.rows_acked,
        blocked_s: now.blocked.saturating_sub(last.blocked).as_secs_f64(),
        episode_error: mean,
        episode_errors: errors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_carry_totals_and_what_is_new() {
        let last = Reading {
            env_steps: 10,
            blocked: Duration::from_secs(1),
            error_sum: 8.0,
            errors: 2,
            ..Reading::default()
        };
        let now = Reading {
            env_steps: 30,
            blocked: Duration::from_secs(3),
            error_sum: 20.0,
            errors: 5,
            rows_acked: 7,
            ..last
        };
        let writer = Writer {
            actor: 1,
            incarnation: 2,
        };
        let heartbeat = |begin, last| report(writer, &now, &Reported { begin, last });
        let h = heartbeat(Reading::default(), last);
        assert_eq!((h.report.env_steps, h.rows_sent, h.blocked_s), (30, 7, 2.0));
        assert_eq!((h.episode_error, h.episode_errors), (4.0, 3));
        let quiet = heartbeat(now, now);
        // A new incarnation starts from the counters that the previous one reported.
        assert_eq!((quiet.report.env_steps, quiet.rows_sent), (0, 0));
        assert_eq!((quiet.episode_error, quiet.episode_errors), (0.0, 0));
        assert_eq!(quiet.blocked_s, 0.0);
    }
}
