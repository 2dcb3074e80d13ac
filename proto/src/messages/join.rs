//! An actor joins the run: who it is, where the shards are, how it explores.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::insert::Writer;
use crate::messages::pack;
use crate::wire;
use bytes::Bytes;
use std::time::Duration;

/// Environment slots of one actor, at most.
pub const SLOTS_MAX: usize = 65_536;

/// The request of a new actor, or of a new incarnation of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which run (empty: whatever the learner runs), data, configuration and row shape.
    pub hello: Hello,
    /// Environment slots that it steps at once, 1 to [`SLOTS_MAX`].
    pub slots: usize,
    /// For people: host and process.
    pub host: String,
    /// The whole manifest, so that a refusal can name the scans that differ; may be empty.
    pub manifest_json: Bytes,
    /// What the config digest was made from, so that a refusal can name the keys; may be empty.
    pub config_json: Bytes,
}

/// The learner's reply.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinReply {
    /// The id and incarnation that the actor writes with.
    pub writer: Writer,
    /// Shard addresses in the order of the shards' numbers. At least one.
    pub shards: Vec<String>,
    /// Final probability of a random action, one per environment slot, each in 0..=1.
    pub exploration: Vec<f32>,
    /// Without a heartbeat for this long the lease expires.
    pub lease: Duration,
    /// The run joined, for the hello to the shards. Not empty.
    pub run_id: String,
}

impl From<JoinRequest> for wire::JoinRequest {
    fn from(request: JoinRequest) -> Self {
        Self {
            hello: Some(request.hello.into()),
            slots: u32::try_from(request.slots).unwrap_or(u32::MAX),
            host: request.host,
            manifest_json: request.manifest_json,
            config_json: request.config_json,
        }
    }
}

impl TryFrom<wire::JoinRequest> for JoinRequest {
    type Error = ProtocolError;

    fn try_from(request: wire::JoinRequest) -> Result<Self, ProtocolError> {
        let slots: usize = pack::narrow("slots", request.slots)?;
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(ProtocolError::invalid(
                "slots",
                format!("{slots} is not within 1..={SLOTS_MAX}"),
            ));
        }
        Ok(Self {
            hello: hello::required_by_join(request.hello)?,
            slots,
            host: request.host,
            manifest_json: request.manifest_json,
            config_json: request.config_json,
        })
    }
}

impl From<JoinReply> for wire::JoinReply {
    fn from(reply: JoinReply) -> Self {
        Self {
            actor: reply.writer.actor.into(),
            incarnation: reply.writer.incarnation,
            shards: reply.shards,
            exploration: reply.exploration,
            lease_s: reply.lease.as_secs_f64(),
            run_id: reply.run_id,
        }
    }
}

impl TryFrom<wire::JoinReply> for JoinReply {
    type Error = ProtocolError;

    fn try_from(reply: wire::JoinReply) -> Result<Self, ProtocolError> {
        if reply.shards.is_empty() {
            return Err(ProtocolError::Missing("shards"));
        }
        if reply.run_id.is_empty() {
            return Err(ProtocolError::Missing("run_id"));
        }
        if let Some(slot) = reply
            .exploration
            .iter()
            .position(|p| !(0.0..=1.0).contains(p))
        {
            let why = format!(
                "slot {slot} has {}, a probability is needed",
                reply.exploration[slot]
            );
            return Err(ProtocolError::invalid("exploration", why));
        }
        let lease = Duration::try_from_secs_f64(reply.lease_s)
            .ok()
            .filter(|lease| !lease.is_zero())
            .ok_or_else(|| {
                ProtocolError::invalid("lease_s", format!("{} is not a lease", reply.lease_s))
            })?;
        Ok(Self {
            writer: Writer {
                actor: pack::narrow("actor", reply.actor)?,
                incarnation: reply.incarnation,
            },
            shards: reply.shards,
            exploration: reply.exploration,
            lease,
            run_id: reply.run_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;

    fn reply() -> JoinReply {
        JoinReply {
            writer: Writer {
                actor: 1,
                incarnation: 4,
            },
            shards: vec!["127.0.0.1:7100".into()],
            exploration: vec![0.4, 0.01],
            lease: Duration::from_millis(15_500),
            run_id: "skulls-1".into(),
        }
    }

    #[test]
    fn joins_read_back() {
        let request = JoinRequest {
            hello: hello(),
            slots: 16,
            host: "lab3/711".into(),
            manifest_json: Bytes::from_static(b"{}"),
            config_json: Bytes::new(),
        };
        assert_eq!(
            JoinRequest::try_from(wire::JoinRequest::from(request.clone())),
            Ok(request.clone())
        );
        assert_eq!(
            JoinReply::try_from(wire::JoinReply::from(reply())),
            Ok(reply())
        );
        let none = JoinRequest {
            slots: 0,
            ..request
        };
        assert!(JoinRequest::try_from(wire::JoinRequest::from(none)).is_err());
    }

    #[test]
    fn replies_outside_the_contract_are_refused_by_field() {
        for (change, field) in [
            ((|r| r.shards.clear()) as fn(&mut wire::JoinReply), "shards"),
            (|r| r.exploration[1] = 1.5, "slot 1 has 1.5"),
            (|r| r.exploration[0] = f32::NAN, "slot 0 has NaN"),
            (|r| r.run_id.clear(), "run_id"),
            (|r| r.lease_s = 0.0, "lease_s"),
            (|r| r.lease_s = f64::NAN, "lease_s"),
            (|r| r.actor = 70_000, "actor"),
        ] {
            let mut message = wire::JoinReply::from(reply());
            change(&mut message);
            let error = JoinReply::try_from(message).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
