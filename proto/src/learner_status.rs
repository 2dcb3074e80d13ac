//! What a run is doing: its progress, its actors, its shards.

use crate::error::ProtocolError;
use crate::insert::Writer;
use crate::sample::ShardSummary;
use crate::{pack, wire};

/// The learner's answer to `Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnerStatus {
    /// The training run.
    pub run_id: String,
    /// Updates done.
    pub updates: u64,
    /// Updates after which the run is over.
    pub updates_total: u64,
    /// The newest weights.
    pub weights_version: u64,
    /// Every actor that ever joined.
    pub actors: Vec<ActorStatus>,
    /// Every shard, in the order of their numbers.
    pub shards: Vec<ShardLink>,
    /// Samples per insert so far.
    pub samples_per_insert: f64,
    /// What the limiter says, with numbers.
    pub limiter: String,
    /// The learner's version.
    pub version: String,
}

/// One actor, as the learner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActorStatus {
    /// Its id and its life.
    pub writer: Writer,
    /// Host and process.
    pub host: String,
    /// Whether its lease holds.
    pub alive: bool,
    /// Seconds since its last heartbeat.
    pub heartbeat_age_s: f64,
    /// Environment steps.
    pub env_steps: u64,
    /// The weights it acts with.
    pub weights_version: u64,
}

/// One shard, as the learner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardLink {
    /// Where it listens.
    pub address: String,
    /// Whether it answers.
    pub alive: bool,
    /// What it said last, if it ever did.
    pub summary: Option<ShardSummary>,
}

impl From<LearnerStatus> for wire::LearnerStatus {
    fn from(status: LearnerStatus) -> Self {
        Self {
            run_id: status.run_id,
            updates: status.updates,
            updates_total: status.updates_total,
            weights_version: status.weights_version,
            actors: status.actors.into_iter().map(Into::into).collect(),
            shards: status.shards.into_iter().map(Into::into).collect(),
            samples_per_insert: status.samples_per_insert,
            limiter: status.limiter,
            version: status.version,
        }
    }
}

impl TryFrom<wire::LearnerStatus> for LearnerStatus {
    type Error = ProtocolError;

    fn try_from(status: wire::LearnerStatus) -> Result<Self, ProtocolError> {
        Ok(Self {
            run_id: status.run_id,
            updates: status.updates,
            updates_total: status.updates_total,
            weights_version: status.weights_version,
            actors: status
                .actors
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            shards: status
                .shards
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            samples_per_insert: pack::measure("samples_per_insert", status.samples_per_insert)?,
            limiter: status.limiter,
            version: status.version,
        })
    }
}

impl From<ActorStatus> for wire::ActorStatus {
    fn from(actor: ActorStatus) -> Self {
        Self {
            actor: actor.writer.actor.into(),
            incarnation: actor.writer.incarnation,
            host: actor.host,
            alive: actor.alive,
            heartbeat_age_s: actor.heartbeat_age_s,
            env_steps: actor.env_steps,
            weights_version: actor.weights_version,
        }
    }
}

impl TryFrom<wire::ActorStatus> for ActorStatus {
    type Error = ProtocolError;

    fn try_from(actor: wire::ActorStatus) -> Result<Self, ProtocolError> {
        Ok(Self {
            writer: Writer {
                actor: pack::narrow("actor", actor.actor)?,
                incarnation: actor.incarnation,
            },
            host: actor.host,
            alive: actor.alive,
            heartbeat_age_s: pack::measure("heartbeat_age_s", actor.heartbeat_age_s)?,
            env_steps: actor.env_steps,
            weights_version: actor.weights_version,
        })
    }
}

impl From<ShardLink> for wire::ShardLink {
    fn from(link: ShardLink) -> Self {
        Self {
            address: link.address,
            alive: link.alive,
            summary: link.summary.map(Into::into),
        }
    }
}

impl TryFrom<wire::ShardLink> for ShardLink {
    type Error = ProtocolError;

    fn try_from(link: wire::ShardLink) -> Result<Self, ProtocolError> {
        let summary = link.summary.map(TryInto::try_into).transpose()?;
        Ok(Self {
            address: link.address,
            alive: link.alive,
            summary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tests::summary;

    #[test]
    fn status_reads_back_and_measures_are_checked() {
        let status = LearnerStatus {
            run_id: "skulls-1".into(),
            updates: 10,
            updates_total: 100,
            weights_version: 3,
            actors: vec![ActorStatus {
                writer: Writer {
                    actor: 1,
                    incarnation: 2,
                },
                host: "lab3/711".into(),
                alive: true,
                heartbeat_age_s: 1.5,
                env_steps: 900,
                weights_version: 2,
            }],
            shards: vec![
                ShardLink {
                    address: "127.0.0.1:7100".into(),
                    alive: true,
                    summary: Some(summary()),
                },
                ShardLink {
                    address: "127.0.0.1:7101".into(),
                    alive: false,
                    summary: None,
                },
            ],
            samples_per_insert: 7.9,
            limiter: "open".into(),
            version: "0.1.0".into(),
        };
        assert_eq!(
            LearnerStatus::try_from(wire::LearnerStatus::from(status.clone())),
            Ok(status.clone())
        );
        let broken = LearnerStatus {
            samples_per_insert: f64::NAN,
            ..status
        };
        assert!(LearnerStatus::try_from(wire::LearnerStatus::from(broken)).is_err());
    }
}
