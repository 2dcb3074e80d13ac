//! What a run is doing: its progress, its actors, its shards.

use crate::error::ProtocolError;
use crate::messages::evaluator::{Evaluation, EvaluatorStatus};
use crate::messages::heartbeat::ActorState;
use crate::messages::insert::Writer;
use crate::messages::pack;
use crate::messages::sample::ShardSummary;
use crate::wire;

/// Rows are counted by how many versions their weights were behind: up to each
/// of these, and beyond the last.
pub const WEIGHTS_AGE_BOUNDS: [u64; 4] = [1, 3, 10, 30];

/// The learner's answer to `Status`.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Actors that there should be.
    pub actors_expected: u32,
    /// What the last seconds were like.
    pub pace: Pace,
    /// Seconds since the learner began.
    pub elapsed_s: f64,
    /// Seconds to the last update or the time limit at this pace.
    pub left_s: Option<f64>,
    /// The run is over.
    pub over: bool,
    /// Seconds since the newest weights were published.
    pub weights_age_s: f64,
    /// Evaluators that were heard of lately.
    pub evaluators: Vec<EvaluatorStatus>,
    /// The newest evaluation.
    pub last_evaluation: Option<Evaluation>,
    /// The one with the least mean error.
    pub best_evaluation: Option<Evaluation>,
    /// Rows that actors sent by [`WEIGHTS_AGE_BOUNDS`].
    pub rows_by_weights_age: [u64; 5],
    /// Rows before the first update.
    pub min_rows: u64,
    /// Rows in the living shards.
    pub rows: u64,
}

/// Rates and shares of the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Updates per second.
    pub updates_per_s: f64,
    /// Environment steps per second, all actors.
    pub env_steps_per_s: f64,
    /// Part of the time, 0 to 1, that the train thread waited for batches.
    pub train_wait_share: f64,
    /// Part of the time that requests for batches were held back by the limiter.
    pub limited_share: f64,
    /// Part of the time that the collate thread worked.
    pub collate_share: f64,
}

/// One actor, as the learner sees it.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Environment steps per second lately.
    pub env_steps_per_s: f64,
    /// Seconds since its weights arrived.
    pub weights_age_s: f64,
    /// What it does.
    pub state: ActorState,
    /// Mean probability of a random action over its slots.
    pub exploration: f64,
    /// From the publication of its newest weights to the end of the first step with them.
    pub weights_latency_s: f64,
    /// Part of the time, lately, that it waited for the shards.
    pub blocked_share: f64,
    /// Lives under this id before this one.
    pub restarts: u32,
    /// Rows given up because their shard was away.
    pub rows_dropped: u64,
}

/// One shard, as the learner sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardLink {
    /// Where it listens.
    pub address: String,
    /// Whether it answers.
    pub alive: bool,
    /// What it said last, if it ever did.
    pub summary: Option<ShardSummary>,
    /// Seconds since it answered; since the learner's start if it never did.
    pub silent_s: f64,
    /// Why the last call failed; empty while it answers.
    pub why: String,
    /// Lives before this one that the learner saw.
    pub restarts: u32,
}

impl From<LearnerStatus> for wire::LearnerStatus {
    fn from(status: LearnerStatus) -> Self {
        let pace = status.pace;
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
            actors_expected: status.actors_expected,
            updates_per_s: pace.updates_per_s,
            env_steps_per_s: pace.env_steps_per_s,
            elapsed_s: status.elapsed_s,
            left_s: status.left_s,
            over: status.over,
            train_wait_share: pace.train_wait_share,
            limited_share: pace.limited_share,
            collate_share: pace.collate_share,
            weights_age_s: status.weights_age_s,
            evaluators: status.evaluators.into_iter().map(Into::into).collect(),
            last_evaluation: status.last_evaluation.map(Into::into),
            best_evaluation: status.best_evaluation.map(Into::into),
            rows_by_weights_age: status.rows_by_weights_age.to_vec(),
            min_rows: status.min_rows,
            rows: status.rows,
        }
    }
}

/// All of a list, each checked.
fn all<T, U: TryFrom<T, Error = ProtocolError>>(list: Vec<T>) -> Result<Vec<U>, ProtocolError> {
    list.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<wire::LearnerStatus> for LearnerStatus {
    type Error = ProtocolError;

    fn try_from(status: wire::LearnerStatus) -> Result<Self, ProtocolError> {
        let mut rows_by_weights_age = [0; 5];
        for (count, told) in rows_by_weights_age
            .iter_mut()
            .zip(&status.rows_by_weights_age)
        {
            *count = *told;
        }
        Ok(Self {
            pace: pace(&status)?,
            run_id: status.run_id,
            updates: status.updates,
            updates_total: status.updates_total,
            weights_version: status.weights_version,
            actors: all(status.actors)?,
            shards: all(status.shards)?,
            samples_per_insert: pack::measure("samples_per_insert", status.samples_per_insert)?,
            limiter: status.limiter,
            version: status.version,
            actors_expected: status.actors_expected,
            elapsed_s: pack::measure("elapsed_s", status.elapsed_s)?,
            left_s: status
                .left_s
                .map(|s| pack::measure("left_s", s))
                .transpose()?,
            over: status.over,
            weights_age_s: pack::measure("weights_age_s", status.weights_age_s)?,
            evaluators: all(status.evaluators)?,
            last_evaluation: status.last_evaluation.map(TryInto::try_into).transpose()?,
            best_evaluation: status.best_evaluation.map(TryInto::try_into).transpose()?,
            rows_by_weights_age,
            min_rows: status.min_rows,
            rows: status.rows,
        })
    }
}

fn pace(status: &wire::LearnerStatus) -> Result<Pace, ProtocolError> {
    Ok(Pace {
        updates_per_s: pack::measure("updates_per_s", status.updates_per_s)?,
        env_steps_per_s: pack::measure("env_steps_per_s", status.env_steps_per_s)?,
        train_wait_share: pack::measure("train_wait_share", status.train_wait_share)?,
        limited_share: pack::measure("limited_share", status.limited_share)?,
        collate_share: pack::measure("collate_share", status.collate_share)?,
    })
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
            env_steps_per_s: actor.env_steps_per_s,
            weights_age_s: actor.weights_age_s,
            state: wire::ActorState::from(actor.state).into(),
            exploration: actor.exploration,
            weights_latency_s: actor.weights_latency_s,
            blocked_share: actor.blocked_share,
            restarts: actor.restarts,
            rows_dropped: actor.rows_dropped,
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
            env_steps_per_s: pack::measure("env_steps_per_s", actor.env_steps_per_s)?,
            weights_age_s: pack::measure("weights_age_s", actor.weights_age_s)?,
            state: ActorState::of_wire(actor.state),
            exploration: pack::measure("exploration", actor.exploration)?,
            weights_latency_s: pack::measure("weights_latency_s", actor.weights_latency_s)?,
            blocked_share: pack::measure("blocked_share", actor.blocked_share)?,
            restarts: actor.restarts,
            rows_dropped: actor.rows_dropped,
        })
    }
}

impl From<ShardLink> for wire::ShardLink {
    fn from(link: ShardLink) -> Self {
        Self {
            address: link.address,
            alive: link.alive,
            summary: link.summary.map(Into::into),
            silent_s: link.silent_s,
            why: link.why,
            restarts: link.restarts,
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
            silent_s: pack::measure("silent_s", link.silent_s)?,
            why: link.why,
            restarts: link.restarts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::evaluator::tests::evaluation;
    use crate::messages::sample::tests::summary;

    fn status() -> LearnerStatus {
        LearnerStatus {
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
                env_steps_per_s: 31.5,
                weights_age_s: 4.5,
                state: ActorState::Blocked,
                exploration: 0.25,
                weights_latency_s: 0.125,
                blocked_share: 0.75,
                restarts: 6,
                rows_dropped: 7,
            }],
            shards: vec![
                ShardLink {
                    address: "127.0.0.1:7100".into(),
                    alive: true,
                    summary: Some(summary()),
                    restarts: 2,
                    ..ShardLink::default()
                },
                ShardLink {
                    address: "127.0.0.1:7101".into(),
                    silent_s: 12.5,
                    why: "connection refused".into(),
                    ..ShardLink::default()
                },
            ],
            samples_per_insert: 7.9,
            limiter: "open".into(),
            version: "0.1.0".into(),
            actors_expected: 4,
            pace: Pace {
                updates_per_s: 8.5,
                env_steps_per_s: 120.0,
                train_wait_share: 0.5,
                limited_share: 0.25,
                collate_share: 0.125,
            },
            elapsed_s: 60.0,
            left_s: Some(11.0),
            over: true,
            weights_age_s: 0.5,
            evaluators: vec![EvaluatorStatus {
                host: "lab3/9".into(),
                heard_s: 0.5,
                evaluating: Some(3),
            }],
            last_evaluation: Some(evaluation()),
            best_evaluation: None,
            rows_by_weights_age: [5, 4, 3, 2, 1],
            min_rows: 400,
            rows: 600,
        }
    }

    #[test]
    fn status_reads_back_and_measures_are_checked() {
        assert_eq!(
            LearnerStatus::try_from(wire::LearnerStatus::from(status())),
            Ok(status())
        );
        let broken = LearnerStatus {
            samples_per_insert: f64::NAN,
            ..status()
        };
        assert!(LearnerStatus::try_from(wire::LearnerStatus::from(broken)).is_err());
    }
}
