//! A sign of life of an actor, with what it did.

use crate::error::ProtocolError;
use crate::messages::insert::Writer;
use crate::messages::pack;
use crate::wire;

/// What an actor tells. Counters count from the start of its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
    /// Whose life.
    pub writer: Writer,
    /// Environment steps, all slots together.
    pub env_steps: u64,
    /// Episodes that ended.
    pub episodes: u64,
    /// Rows sent to shards.
    pub rows_sent: u64,
    /// Rows given up because their shard was gone for too long.
    pub rows_dropped: u64,
    /// The weights it acts with.
    pub weights_version: u64,
    /// Seconds since the last heartbeat that it waited for the shards.
    pub blocked_s: f64,
    /// Mean error (finest steps) of the episodes that ended since the last heartbeat.
    pub episode_error: f64,
    /// How many episodes that mean is over.
    pub episode_errors: u64,
    /// Seconds since its weights arrived.
    pub weights_age_s: f64,
    /// What it does.
    pub state: ActorState,
    /// Mean probability of a random action over its slots now, 0 to 1.
    pub exploration: f64,
    /// Seconds from the publication of the newest weights acted with to the end
    /// of the first step with them, by the two hosts' clocks; 0 before the first.
    pub weights_latency_s: f64,
}

/// What an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActorState {
    /// No weights have come yet.
    #[default]
    Starting,
    /// It walks.
    Acting,
    /// It waits for shards to take rows.
    Blocked,
    /// It waits for newer weights: its own are older than `actor.max_staleness` allows.
    Stale,
    /// It was told to stop: this is its last heartbeat, and nobody misses it.
    Left,
}

impl ActorState {
    /// One word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Acting => "acting",
            Self::Blocked => "blocked",
            Self::Stale => "stale",
            Self::Left => "left",
        }
    }

    /// As an earlier version said nothing: starting.
    pub(crate) fn of_wire(value: i32) -> Self {
        match wire::ActorState::try_from(value) {
            Ok(wire::ActorState::Acting) => Self::Acting,
            Ok(wire::ActorState::Blocked) => Self::Blocked,
            Ok(wire::ActorState::Stale) => Self::Stale,
            Ok(wire::ActorState::Left) => Self::Left,
            Ok(wire::ActorState::Starting | wire::ActorState::Unspecified) | Err(_) => {
                Self::Starting
            }
        }
    }
}

impl From<ActorState> for wire::ActorState {
    fn from(state: ActorState) -> Self {
        match state {
            ActorState::Starting => Self::Starting,
            ActorState::Acting => Self::Acting,
            ActorState::Blocked => Self::Blocked,
            ActorState::Stale => Self::Stale,
            ActorState::Left => Self::Left,
        }
    }
}

/// What the learner answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The lease had expired: join again.
    pub rejoin: bool,
    /// The run is over: stop.
    pub stop: bool,
    /// Updates done, for schedules on the actor's side.
    pub updates: u64,
    /// The newest weights.
    pub weights_version: u64,
}

impl From<Heartbeat> for wire::HeartbeatRequest {
    fn from(heartbeat: Heartbeat) -> Self {
        Self {
            actor: heartbeat.writer.actor.into(),
            incarnation: heartbeat.writer.incarnation,
            env_steps: heartbeat.env_steps,
            episodes: heartbeat.episodes,
            rows_sent: heartbeat.rows_sent,
            rows_dropped: heartbeat.rows_dropped,
            weights_version: heartbeat.weights_version,
            blocked_s: heartbeat.blocked_s,
            episode_error: heartbeat.episode_error,
            episode_errors: heartbeat.episode_errors,
            weights_age_s: heartbeat.weights_age_s,
            state: wire::ActorState::from(heartbeat.state).into(),
            exploration: heartbeat.exploration,
            weights_latency_s: heartbeat.weights_latency_s,
        }
    }
}

impl TryFrom<wire::HeartbeatRequest> for Heartbeat {
    type Error = ProtocolError;

    fn try_from(request: wire::HeartbeatRequest) -> Result<Self, ProtocolError> {
        Ok(Self {
            writer: Writer {
                actor: pack::narrow("actor", request.actor)?,
                incarnation: request.incarnation,
            },
            env_steps: request.env_steps,
            episodes: request.episodes,
            rows_sent: request.rows_sent,
            rows_dropped: request.rows_dropped,
            weights_version: request.weights_version,
            blocked_s: pack::measure("blocked_s", request.blocked_s)?,
            episode_error: pack::measure("episode_error", request.episode_error)?,
            episode_errors: request.episode_errors,
            weights_age_s: pack::measure("weights_age_s", request.weights_age_s)?,
            state: ActorState::of_wire(request.state),
            exploration: pack::measure("exploration", request.exploration)?,
            weights_latency_s: pack::measure("weights_latency_s", request.weights_latency_s)?,
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
            env_steps: 3,
            episodes: 4,
            rows_sent: 5,
            rows_dropped: 6,
            weights_version: 7,
            blocked_s: 8.5,
            episode_error: 9.5,
            episode_errors: 10,
            weights_age_s: 0.5,
            state: ActorState::Stale,
            exploration: 0.25,
            weights_latency_s: 0.125,
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
