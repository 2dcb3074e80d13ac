//! Health of this host's actor or evaluator, as the learner sees it.

use common::run::machine::host_name;
use proto::messages::status::{ActorStatus, EvaluatorStatus};
use proto::transport::channel::learner_client;
use proto::transport::endpoint::AddressError;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::transport::security::{Role, Security};
use proto::wire;

/// What this host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An actor whose lease holds.
    Actor,
    /// An evaluator whose last beat is recent.
    Evaluator,
}

/// Why this host is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The learner is unreachable.
    #[error("the learner at {learner} does not answer: {why}")]
    NoReply { learner: String, why: String },
    /// The learner does not know this host.
    #[error("the learner at {learner} has no actor of host {host} with a valid lease; see its log")]
    NoLease { learner: String, host: String },
    /// No evaluator of this host sent a beat lately.
    #[error(
        "the learner at {learner} has received no recent beat of an evaluator of host {host}; see the log of that evaluator"
    )]
    NoEvaluator { learner: String, host: String },
}

/// Asks the learner about this host.
///
/// # Errors
/// When the learner is unreachable, or knows no such process of this host.
pub async fn check(learner: &str, security: &Security, part: Part) -> Result<String, HealthError> {
    let host = host_name();
    let mut client = learner_client(security.connect(learner, Role::Learner)?);
    let request = wire::LearnerStatusRequest { host: host.clone() };
    let reply = unary(request, CALL_DEADLINE, |r| client.status(r)).await;
    let learner = learner.to_owned();
    let status = reply.map_err(|status| HealthError::NoReply {
        learner: learner.clone(),
        why: reason(&status),
    })?;
    match part {
        Part::Actor => {
            let actor = status.actors.iter().find(|a| a.alive);
            let actor = actor.ok_or(HealthError::NoLease { learner, host })?;
            Ok(actor_words(actor))
        }
        Part::Evaluator => {
            let evaluator = status.evaluators.first();
            let evaluator = evaluator.ok_or(HealthError::NoEvaluator { learner, host })?;
            Ok(evaluator_words(evaluator))
        }
    }
}

fn actor_words(a: &ActorStatus) -> String {
    let report = a.report();
    format!(
        "actor {} on {} is {}, with weights version {}",
        a.actor,
        a.host,
        report.state().word(),
        report.weights_version
    )
}

fn evaluator_words(e: &EvaluatorStatus) -> String {
    match e.evaluating {
        Some(version) => format!(
            "evaluator on {} evaluates weights version {version}",
            e.host
        ),
        None => format!("evaluator on {} waits for weights", e.host),
    }
}
