//! An actor's heartbeat, with its counters.

use crate::error::ProtocolError;
use crate::messages::insert::Writer;
use crate::messages::pack;
use crate::messages::status::{ActorReport, ActorState};
use crate::wire;

/// What an actor sends. Counters count since it joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
    /// Which actor and incarnation.
    pub writer: Writer,
    /// What the learner shows in its status.
    pub report: ActorReport,
    /// Episodes that ended.
    pub episodes: u64,
    /// Rows that shards acknowledged.
    pub rows_sent: u64,
    /// Seconds that it waited for the shards since the last heartbeat.
    pub blocked_s: f64,
    /// Mean error (finest steps) of the episodes that ended since the last heartbeat.
    pub episode_error: f64,
    /// How many episodes that mean is over.
    pub episode_errors: u64,
}

/// What the learner replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The lease had expired: join again.
    pub rejoin: bool,
    /// The run is over: stop.
    pub stop: bool,
    /// Updates done, for the actor's schedules.
    pub updates: u64,
    /// The newest weights.
    pub weights_version: u64,
}

impl From<Heartbeat> for wire::HeartbeatRequest {
    fn from(heartbeat: Heartbeat) -> Self {
        Self {
            actor: heartbeat.writer.actor.into(),
            incarnation: heartbeat.writer.incarnation,
            report: Some(heartbeat.report),
            episodes: heartbeat.episodes,
            rows_sent: heartbeat.rows_sent,
            blocked_s: heartbeat.blocked_s,
            episode_error: heartbeat.episode_error,
            episode_errors: heartbeat.episode_errors,
        }
    }
}

impl TryFrom<wire::HeartbeatRequest> for Heartbeat {
    type Error = ProtocolError;

    fn try_from(request: wire::HeartbeatRequest) -> Result<Self, ProtocolError> {
        let mut report = request.report.ok_or(ProtocolError::Missing("report"))?;
        // An unknown value reads as `Starting`, and is passed on as that.
        report.set_state(report.state());
        if report.state() == ActorState::Lost {
            let why = "only the learner reports a lost actor";
            return Err(ProtocolError::invalid("report.state", why));
        }
        pack::measure("weights_age_s", report.weights_age_s)?;
        pack::measure("exploration", report.exploration)?;
        pack::measure("weights_latency_s", report.weights_latency_s)?;
        Ok(Self {
            writer: Writer {
                actor: pack::narrow("actor", request.actor)?,
                incarnation: request.incarnation,
            },
            report,
            episodes: request.episodes,
            rows_sent: request.rows_sent,
            blocked_s: pack::measure("blocked_s", request.blocked_s)?,
            episode_error: pack::measure("episode_error", request.episode_error)?,
            episode_errors: request.episode_errors,
        })
    }
}

impl From<HeartbeatReply> for wire::HeartbeatReply {
    fn from(reply: HeartbeatReply) -> Self {
        Self {
            rejoin: reply.rejoin,
            stop: reply.stop,
            updates: reply.updates,
            weights_version: reply.weights_version,
        }
    }
}

impl From<wire::HeartbeatReply> for HeartbeatReply {
    fn from(reply: wire::HeartbeatReply) -> Self {
        Self {
            rejoin: reply.rejoin,
            stop: reply.stop,
            updates: reply.updates,
            weights_version: reply.weights_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_read_back_and_measures_are_checked() {
        let heartbeat = Heartbeat {
            writer: Writer {
                actor: 1,
                incarnation: 2,
            },
            report: ActorReport {
                env_steps: 3,
                rows_dropped: 6,
                weights_version: 7,
                weights_age_s: 0.5,
                state: ActorState::Stale.into(),
                exploration: 0.25,
                weights_latency_s: 0.125,
            },
            episodes: 4,
            rows_sent: 5,
            blocked_s: 8.5,
            episode_error: 9.5,
            episode_errors: 10,
        };
        assert_eq!(
            Heartbeat::try_from(wire::HeartbeatRequest::from(heartbeat)),
            Ok(heartbeat)
        );
        let broken = Heartbeat {
            episode_error: f64::NAN,
            ..heartbeat
        };
        let error = Heartbeat::try_from(wire::HeartbeatRequest::from(broken))
            .unwrap_err()
            .to_string();
        assert!(error.contains("episode_error"), "{error}");
        let with_state = |state: i32| {
            let mut request = wire::HeartbeatRequest::from(heartbeat);
            request.report.as_mut().unwrap().state = state;
            Heartbeat::try_from(request)
        };
        let error = with_state(ActorState::Lost.into()).unwrap_err().to_string();
        assert!(error.contains("report.state"), "{error}");
        let unknown = with_state(99).unwrap().report;
        assert_eq!(unknown.state, i32::from(ActorState::Starting));
        let reply = HeartbeatReply {
            rejoin: true,
            stop: false,
            updates: 11,
            weights_version: 12,
        };
        assert_eq!(
            HeartbeatReply::from(wire::HeartbeatReply::from(reply)),
            reply
        );
    }
}
