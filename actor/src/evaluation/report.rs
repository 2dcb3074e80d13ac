//! An evaluator's signs of life: what it found goes to the learner, once it is
//! there again if it is away.

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
use proto::transport::retry::{CALL_DEADLINE, JOIN_DEADLINE, backoff, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use tokio::time::sleep;
use tonic::{Code, Request, Status};

use crate::error::ActorError;
use crate::session::learner_client::is_final;
use crate::session::unreachable::Unreachable;

/// Weights of any size get through within this.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(60);
/// Evaluations that wait for a learner that is away.
const PENDING_MAX: usize = 16;
/// Times that the last evaluation is told again.
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

/// Tells one learner.
#[derive(Debug)]
pub(crate) struct Reporter {
    address: String,
    client: LearnerClient<Channel>,
    hello: Hello,
    config_json: Bytes,
    host: String,
    /// The evaluator writes into the run folder itself.
    keeps: bool,
    evaluating: Option<u64>,
    pending: VecDeque<Found>,
    unreachable: Unreachable,
}

impl Reporter {
    pub(crate) fn new(
        (address, security): (&str, &Security),
        hello: Hello,
        config_json: Bytes,
        host: String,
        keeps: bool,
    ) -> Result<Self, ActorError> {
        Ok(Self {
            address: address.to_owned(),
            client: learner_client(security.connect(address, Role::Learner)?),
            hello,
            config_json,
            host,
            keeps,
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
        &self.hello
    }

    pub(crate) fn evaluating(&mut self, version: Option<u64>) {
        self.evaluating = version;
    }

    /// Evaluations that the learner has not heard of.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn push(&mut self, found: Found) {
        self.pending.push_back(found);
        if self.pending.len() > PENDING_MAX {
            self.pending.pop_front();
        }
    }

    /// Waits for the learner, however long it takes, and for which run it has.
    pub(crate) async fn meet(&mut self) -> Result<EvaluatorBeatReply, ActorError> {
        let mut waits = backoff(usize::MAX).build();
        loop {
            if let Some(reply) = self.beat().await? {
                self.hello.run_id.clone_from(&reply.run_id);
                return Ok(reply);
            }
            sleep(waits.next().unwrap_or(CALL_DEADLINE)).await;
        }
    }

    /// One sign of life, with what is pending; `None` where the learner is away.
    ///
    /// # Errors
    /// When it refuses this evaluator for good.
    pub(crate) async fn beat(&mut self) -> Result<Option<EvaluatorBeatReply>, ActorError> {
        loop {
            let found = self.pending.front().cloned();
            let told = self.tell(found.as_ref()).await;
            let reply = match told {
                Ok(reply) => reply,
                Err(status) if is_final(status.code()) => {
                    return Err(ActorError::Refused {
                        learner: self.address.clone(),
                        sentence: status.message().to_owned(),
                    });
                }
                Err(status) => {
                    self.unreachable.warn(&self.address, &status);
                    return Ok(None);
                }
            };
            self.unreachable.is_back(&self.address);
            let Some(found) = found else {
                return Ok(Some(reply));
            };
            if reply.wanted
                && let Err(status) = self.upload(&found.weights).await
            {
                self.unreachable.warn(&self.address, &status);
                return Ok(None);
            }
            self.pending.pop_front();
            if self.pending.is_empty() {
                return Ok(Some(reply));
            }
        }
    }

    /// Tells everything that is pending, or gives up after some tries.
    pub(crate) async fn deliver(&mut self) -> Result<(), ActorError> {
        let mut waits = backoff(LAST_TRIES).build();
        while self.beat().await?.is_none() || self.pending() > 0 {
            match waits.next() {
                Some(wait) => sleep(wait).await,
                None => {
                    let unsent = self.pending();
                    tracing::warn!(
                        unsent,
                        "the learner ended before it heard of all evaluations"
                    );
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn tell(&mut self, found: Option<&Found>) -> Result<EvaluatorBeatReply, Status> {
        let line = found.filter(|_| !self.keeps).map(|f| f.line_json.clone());
        let beat = EvaluatorBeat {
            hello: self.hello.clone(),
            host: self.host.clone(),
            evaluating: self.evaluating,
            evaluation: found.map(|f| f.evaluation),
            line_json: line.unwrap_or_default(),
            config_json: self.config_json.clone(),
        };
        let message = wire::EvaluatorBeatRequest::from(beat);
        let client = &mut self.client;
        let reply = unary(message, JOIN_DEADLINE, |r| client.evaluator_beat(r)).await?;
        Ok(EvaluatorBeatReply::try_from(reply)?)
    }

    /// Weights that the learner keeps as the best. That it wants them no more is no failure.
    async fn upload(&mut self, weights: &Arc<Published>) -> Result<(), Status> {
        let chunks: Vec<wire::Chunk> = weights.chunks().map(Into::into).collect();
        let request = Request::new(tokio_stream::iter(chunks));
        let sent = tokio::time::timeout(UPLOAD_DEADLINE, self.client.keep_best(request)).await;
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Ok(()),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded("the best weights were not taken")),
        }
    }
}
