//! An actor joins the run: who it is, where the shards are, how it explores.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::insert::Writer;
use crate::messages::pack;
use bytes::Bytes;
use std::time::Duration;

/// Environment slots of one actor, at most.
pub const SLOTS_MAX: usize = 65_536;

/// A manifest as JSON, at most: more than ten thousand scans. A larger one is left out.
pub const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// What a config digest was made from, at most.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;

/// A manifest for a request: empty if it is larger than [`MANIFEST_BYTES_MAX`]. It only serves to
/// name the scans that differ.
#[must_use]
pub fn manifest_that_fits(json: Vec<u8>) -> Bytes {
    if json.len() > MANIFEST_BYTES_MAX {
        return Bytes::new();
    }
    json.into()
}

/// The request of a new actor, or of a new incarnation of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which run (empty: whatever the learner runs), data, configuration and row shape.
    pub hello: Hello,
    /// Environment slots that it steps at once, 1 to [`SLOTS_MAX`].
    pub slots: usize,
    /// For people: host and process, at most 256 bytes.
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

pack::wire_form! {
    JoinRequest, JoinRequest, same: [],
    request => {
        hello: Some(request.hello.into()),
        host: request.host,
        manifest_json: request.manifest_json,
        config_json: request.config_json,
        slots: u32::try_from(request.slots).unwrap_or(u32::MAX),
    },
    request => {
        hello: hello::required_by_join(request.hello)?,
        slots: pack::within("slots", pack::narrow("slots", request.slots)?, "slots", 1..=SLOTS_MAX)?,
        host: pack::host(request.host)?,
        manifest_json: pack::at_most("manifest_json", request.manifest_json, MANIFEST_BYTES_MAX)?,
        config_json: pack::at_most("config_json", request.config_json, CONFIG_BYTES_MAX)?,
    },
}

pack::wire_form! {
    JoinReply, JoinReply, same: [],
    reply => {
        actor: reply.writer.actor.into(),
        incarnation: reply.writer.incarnation,
        shards: reply.shards,
        exploration: reply.exploration,
        lease_s: reply.lease.as_secs_f64(),
        run_id: reply.run_id,
    },
    reply => {
        writer: Writer::checked("actor", reply.actor, reply.incarnation)?,
        shards: pack::required("shards", Some(reply.shards).filter(|s| !s.is_empty()))?,
        exploration: pack::each("exploration", "slot", reply.exploration, "a probability", |p| {
            (0.0..=1.0).contains(&p)
        })?,
        lease: lease(reply.lease_s)?,
        run_id: pack::text("run_id", reply.run_id)?,
    },
}

fn lease(seconds: f64) -> Result<Duration, ProtocolError> {
    let lease = Duration::try_from_secs_f64(seconds).ok();
    lease.filter(|lease| !lease.is_zero()).ok_or_else(|| {
        let why = format!("{seconds} is not a lease");
        ProtocolError::invalid("lease_s", why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::{reads_back, refuses};
    use crate::wire;

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
        reads_back::<wire::JoinRequest, _>(request.clone());
        refuses::<JoinRequest, _>(
            &wire::JoinRequest::from(request),
            &[
                (|r| r.slots = 0, "slots"),
                (
                    |r| r.host = "h".repeat(257),
                    "257 bytes, allowed are 0..=256",
                ),
                (|r| r.host = "two\nlines".into(), "control characters"),
                (
                    |r| r.manifest_json = vec![b' '; MANIFEST_BYTES_MAX + 1].into(),
                    "manifest_json",
                ),
                (
                    |r| r.config_json = vec![b' '; CONFIG_BYTES_MAX + 1].into(),
                    "config_json",
                ),
            ],
        );
        reads_back::<wire::JoinReply, _>(reply());
    }

    #[test]
    fn replies_outside_the_contract_are_refused_by_field() {
        refuses::<JoinReply, _>(
            &wire::JoinReply::from(reply()),
            &[
                (|r| r.shards.clear(), "shards"),
                (|r| r.exploration[1] = 1.5, "slot 1 has 1.5"),
                (|r| r.exploration[0] = f32::NAN, "slot 0 has NaN"),
                (|r| r.run_id.clear(), "run_id"),
                (|r| r.lease_s = 0.0, "lease_s"),
                (|r| r.lease_s = f64::NAN, "lease_s"),
                (|r| r.actor = 70_000, "actor"),
            ],
        );
    }
}
