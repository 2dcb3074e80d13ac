//! An evaluator's beats and what it finds.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::status::Evaluation;
use crate::wire;
use bytes::Bytes;

/// A line of validation.jsonl, at most: bounds what an evaluator can make the learner write.
const LINE_BYTES_MAX: usize = 4 << 20;

/// What an evaluator reports.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatorBeat {
    /// Which run (empty: whatever the learner runs), configuration and row
    /// shape; its manifest may be another.
    pub hello: Hello,
    /// For people: host and process.
    pub host: String,
    /// The weights that it evaluates now.
    pub evaluating: Option<u64>,
    /// What it found since the last beat.
    pub evaluation: Option<Evaluation>,
    /// The same as a line of validation.jsonl, where the learner shall write it.
    pub line_json: Bytes,
    /// What the config digest was made from, so that a refusal can name the keys.
    pub config_json: Bytes,
}

/// What the learner replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatorBeatReply {
    /// The run. Not empty.
    pub run_id: String,
    /// The run is over: stop.
    pub stop: bool,
    /// The weights of this evaluation are to be sent: they are the best so far.
    pub wanted: bool,
    /// The last weights of a run that is over.
    pub last_version: Option<u64>,
    /// Updates of the newest evaluation that the learner knows of.
    pub last_updates: Option<u64>,
}

impl From<EvaluatorBeat> for wire::EvaluatorBeatRequest {
    fn from(beat: EvaluatorBeat) -> Self {
        Self {
            hello: Some(beat.hello.into()),
            host: beat.host,
            evaluating: beat.evaluating,
            evaluation: beat.evaluation,
            line_json: beat.line_json,
            config_json: beat.config_json,
        }
    }
}

impl TryFrom<wire::EvaluatorBeatRequest> for EvaluatorBeat {
    type Error = ProtocolError;

    fn try_from(beat: wire::EvaluatorBeatRequest) -> Result<Self, ProtocolError> {
        let bytes = beat.line_json.len();
        if bytes > LINE_BYTES_MAX || beat.line_json.contains(&b'\n') {
            let why = format!("one line of at most {LINE_BYTES_MAX} bytes is needed, got {bytes}");
            return Err(ProtocolError::invalid("line_json", why));
        }
        Ok(Self {
            hello: hello::required_by_join(beat.hello)?,
            host: beat.host,
            evaluating: beat.evaluating,
            evaluation: beat.evaluation.map(Evaluation::checked).transpose()?,
            line_json: beat.line_json,
            config_json: beat.config_json,
        })
    }
}

impl From<EvaluatorBeatReply> for wire::EvaluatorBeatReply {
    fn from(reply: EvaluatorBeatReply) -> Self {
        Self {
            run_id: reply.run_id,
            stop: reply.stop,
            wanted: reply.wanted,
            last_version: reply.last_version,
            last_updates: reply.last_updates,
        }
    }
}

impl TryFrom<wire::EvaluatorBeatReply> for EvaluatorBeatReply {
    type Error = ProtocolError;

    fn try_from(reply: wire::EvaluatorBeatReply) -> Result<Self, ProtocolError> {
        if reply.run_id.is_empty() {
            return Err(ProtocolError::Missing("run_id"));
        }
        Ok(Self {
            run_id: reply.run_id,
            stop: reply.stop,
            wanted: reply.wanted,
            last_version: reply.last_version,
            last_updates: reply.last_updates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::status::tests::evaluation;

    #[test]
    fn beats_read_back_and_lies_are_refused_by_field() {
        let beat = EvaluatorBeat {
            hello: Hello {
                run_id: String::new(),
                ..hello()
            },
            host: "lab3/7".into(),
            evaluating: Some(26),
            evaluation: Some(evaluation()),
            line_json: Bytes::from_static(b"{}"),
            config_json: Bytes::from_static(b"{}"),
        };
        let message = wire::EvaluatorBeatRequest::from(beat.clone());
        assert_eq!(EvaluatorBeat::try_from(message.clone()), Ok(beat));
        let reply = EvaluatorBeatReply {
            run_id: "skulls-1".into(),
            stop: true,
            wanted: true,
            last_version: None,
            last_updates: Some(0),
        };
        assert_eq!(
            EvaluatorBeatReply::try_from(wire::EvaluatorBeatReply::from(reply.clone())),
            Ok(reply)
        );
        let two_lines = wire::EvaluatorBeatRequest {
            line_json: Bytes::from_static(b"{}\n{}"),
            ..message.clone()
        };
        let nan = wire::EvaluatorBeatRequest {
            evaluation: Some(Evaluation {
                mean_error_mm: f64::NAN,
                ..evaluation()
            }),
            ..message
        };
        for (broken, field) in [(two_lines, "line_json"), (nan, "mean_error_mm")] {
            let error = EvaluatorBeat::try_from(broken).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
