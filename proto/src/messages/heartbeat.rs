//! An actor's heartbeat, with its counters.

use crate::error::ProtocolError;
use crate::messages::insert::Writer;
use crate::messages::pack;
use crate::messages::status::{ActorReport, ActorState};

pub use crate::wire::HeartbeatReply;

/// What an actor sends. Counters count since it joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
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

pack::wire_form! {
    Heartbeat, HeartbeatRequest, same: [episodes, rows_sent, episode_errors],
    heartbeat => {
        actor: heartbeat.writer.actor.into(),
        incarnation: heartbeat.writer.incarnation,
        report: Some(heartbeat.report),
        blocked_s: heartbeat.blocked_s,
        episode_error: heartbeat.episode_error,
    },
    request => {
        writer: Writer::checked("actor", request.actor, request.incarnation)?,
        report: checked(pack::required("report", request.report)?)?,
        blocked_s: pack::measure("blocked_s", request.blocked_s)?,
        episode_error: pack::measure("episode_error", request.episode_error)?,
    },
}

fn checked(mut report: ActorReport) -> Result<ActorReport, ProtocolError> {
    // An unknown value reads as `Starting`, and is passed on as that.
    report.set_state(report.state());
    if report.state() == ActorState::Lost {
        let why = "only the learner reports a lost actor";
        return Err(ProtocolError::invalid("report.state", why));
    }
    pack::measure("weights_age_s", report.weights_age_s)?;
    pack::measure("exploration", report.exploration)?;
    pack::measure("weights_latency_s", report.weights_latency_s)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::pack::tests::{reads_back, refuses};
    use crate::wire;

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
        reads_back::<wire::HeartbeatRequest, _>(heartbeat);
        let request = wire::HeartbeatRequest::from(heartbeat);
        refuses::<Heartbeat, _>(
            &request,
            &[
                (|r| r.episode_error = f64::NAN, "episode_error"),
                (
                    |r| r.report.as_mut().unwrap().set_state(ActorState::Lost),
                    "report.state",
                ),
            ],
        );
        let mut unknown = request;
        unknown.report.as_mut().unwrap().state = 99;
        let report = Heartbeat::try_from(unknown).unwrap().report;
        assert_eq!(report.state, i32::from(ActorState::Starting));
    }
}
