//! An evaluator's beats: they carry its results to the learner, and results wait
//! while the learner is unreachable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use bytes::Bytes;
use proto::messages::evaluator::{EvaluatorBeat, EvaluatorBeatReply};
use proto::messages::hello::Hello;
use proto::messages::status::Evaluation;
use proto::messages::weights::Published;
use proto::transport::channel::{Channel, learner_client};
use proto::transport::retry::{CALL_DEADLINE, JOIN_DEADLINE, backoff, is_refusal, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};

use crate::error::ActorError;
use crate::session::unreachable::Unreachable;

/// Deadline for an upload of weights of any size.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(60);
/// Evaluations that wait for an unreachable learner.
const PENDING_MAX: usize = 16;
/// Attempts to report the last evaluation.
const LAST_TRIES: usize = 5;

/// An evaluation on its way to the learner.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) evaluation: Evaluation,
    /// As a line of validation.jsonl.
    pub(crate) line_json: Bytes,
    /// What was evaluated.
    pub(crate) weights: Arc<Published>,
}

/// Who evaluates what, as the learner checks it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its run id may be empty: whatever the learner runs.
    pub(crate) hello: Hello,
    pub(crate) config_json: Bytes,
    /// The validation scans.
    pub(crate) manifest_json: Bytes,
    pub(crate) host: String,
}

/// Reports to one learner.
#[derive(Debug)]
pub(crate) struct Reporter {
    address: String,
    client: LearnerClient<Channel>,
    identity: Identity,
    /// Whether this process of the learner knows the validation scans.
    announced: bool,
    evaluating: Option<u64>,
    pending: VecDeque<Found>,
    unreachable: Unreachable,
}

impl Reporter {
    pub(crate) fn new(
        address: &str,
        security: &Security,
        identity: Identity,
    ) -> Result<Self, ActorError> {
        Ok(Self {
            address: address.to_owned(),
            client: learner_client(security.connect(address, Role::Learner)?),
            identity,
            announced: false,
            evaluating: None,
            pending: VecDeque::new(),
            unreachable: Unreachable::default(),
        })
    }

    pub(crate) fn client(&self) -> LearnerClient<Channel> {
        self.client.clone()
    }

    /// As agreed with the learner; its run id is empty before [`Reporter::meet`].
    pub(crate) fn hello(&self) -> &Hello {
        &self.identity.hello
    }

    pub(crate) fn evaluating(&mut self, version: Option<u64>) {
        self.evaluating = version;
    }

    /// Evaluations that the learner has not received.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn push(&mut self, found: Found) {
        self.pending.push_back(found);
        if self.pending.len() > PENDING_MAX {
            self.pending.pop_front();
        }
    }

    /// Retries until the learner replies, and adopts its run id.
    pub(crate) async fn meet(&mut self) -> Result<EvaluatorBeatReply, ActorError> {
        let mut waits = backoff(usize::MAX).build();
        loop {
            if let Some(reply) = self.beat().await? {
                self.identity.hello.run_id.clone_from(&reply.run_id);
                return Ok(reply);
            }
            sleep(waits.next().unwrap_or(CALL_DEADLINE)).await;
        }
    }

    /// Sends beats with all pending evaluations, or one without; `None` if the
    /// learner is unreachable.
    ///
    /// # Errors
    /// When the learner permanently refuses this evaluator.
    pub(crate) async fn beat(&mut self) -> Result<Option<EvaluatorBeatReply>, ActorError> {
        loop {
            let found = self.pending.front().cloned();
            let mut reply = match self.send(found.as_ref()).await {
                Ok(reply) => reply,
                Err(status) if is_refusal(&status) => {
                    return Err(ActorError::Refused {
                        learner: self.address.clone(),
                        sentence: status.message().to_owned(),
                    });
                }
                Err(status) => {
                    self.announced = false;
                    self.unreachable.warn(&self.address, &status);
                    if found.is_none() {
                        return Ok(None);
                    }
                    // A learner whose disk is full refuses the evaluation, but may report the
                    // end of the run.
                    let reply = self.send(None).await.ok();
                    return Ok(reply.filter(|reply| reply.stop));
                }
            };
            self.announced = true;
            self.unreachable.is_back(&self.address);
            let Some(found) = found else {
                return Ok(Some(reply));
            };
            if reply.wanted {
                match self.upload(&found.weights).await {
                    Ok(true) => reply.best_evaluation = reply.last_evaluation,
                    Ok(false) => {}
                    Err(status) => {
                        self.unreachable.warn(&self.address, &status);
                        return Ok(None);
                    }
                }
            }
            self.pending.pop_front();
            if self.pending.is_empty() {
                return Ok(Some(reply));
            }
        }
    }

    /// Reports all pending evaluations, or gives up after some tries; returns the last reply.
    pub(crate) async fn deliver(&mut self) -> Result<Option<EvaluatorBeatReply>, ActorError> {
        let mut waits = backoff(LAST_TRIES).build();
        let mut last = None;
        while self.pending() > 0 {
            if let Some(reply) = self.beat().await? {
                last = Some(reply);
                continue;
            }
            let Some(wait) = waits.next() else {
                let unsent = self.pending();
                tracing::warn!(unsent, "the learner ended before receiving all evaluations");
                break;
            };
            sleep(wait).await;
        }
        Ok(last)
    }

    async fn send(&mut self, found: Option<&Found>) -> Result<EvaluatorBeatReply, Status> {
        let mut identity = self.identity.clone();
        if self.announced && found.is_none() {
            identity.manifest_json.clear();
        }
        let beat = EvaluatorBeat {
            hello: identity.hello,
            host: identity.host,
            evaluating: self.evaluating,
            evaluation: found.map(|f| f.evaluation),
            line_json: found.map(|f| f.line_json.clone()).unwrap_or_default(),
            config_json: identity.config_json,
            manifest_json: identity.manifest_json,
        };
        let message = wire::EvaluatorBeatRequest::from(beat);
        let client = &mut self.client;
        let reply = unary(message, JOIN_DEADLINE, |r| client.evaluator_beat(r)).await?;
        Ok(EvaluatorBeatReply::try_from(reply)?)
    }

    /// Uploads weights that the learner keeps as the best; false if it no longer wants them.
    async fn upload(&mut self, weights: &Arc<Published>) -> Result<bool, Status> {
        let chunks: Vec<wire::Chunk> = weights.chunks().map(Into::into).collect();
        let request = Request::new(tokio_stream::iter(chunks));
        match timeout(UPLOAD_DEADLINE, self.client.keep_best(request)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Ok(false),
            // Sent again, they would be refused again, and later results would wait behind them.
            Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                let why = status.message();
                tracing::warn!(why, "the learner refuses the best weights");
                Ok(false)
            }
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded("the best weights were not taken")),
        }
    }
}
