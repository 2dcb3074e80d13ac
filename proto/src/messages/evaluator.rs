//! An evaluator's signs of life and what it finds.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::wire;
use bytes::Bytes;

/// A line of validation.jsonl, at most: bounds what an evaluator can make the learner write.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One evaluation of the selection scans.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Updates done by the weights.
    pub updates: u64,
    /// Their version.
    pub weights_version: u64,
    /// Mean error over scans and landmarks.
    pub mean_error_mm: f64,
    /// The same in voxels.
    pub mean_error_voxels: f64,
    /// Median error.
    pub median_error_mm: f64,
    /// Mean error of the constant guess on the same scans.
    pub constant_guess_mm: Option<f64>,
    /// How long the walks took.
    pub seconds: f64,
    /// The least mean error of the run so far.
    pub best: bool,
}

/// What an evaluator tells.
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

/// What the learner answers.
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

/// An evaluator as the learner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatorStatus {
    /// Host and process.
    pub host: String,
    /// Seconds since it was heard of.
    pub heard_s: f64,
    /// The weights that it evaluates now.
    pub evaluating: Option<u64>,
}

/// Zero stands for none: versions count from one.
fn some(version: u64) -> Option<u64> {
    Some(version).filter(|v| *v > 0)
}

impl From<Evaluation> for wire::Evaluation {
    fn from(e: Evaluation) -> Self {
        Self {
            updates: e.updates,
            weights_version: e.weights_version,
            mean_error_mm: e.mean_error_mm,
            mean_error_voxels: e.mean_error_voxels,
            median_error_mm: e.median_error_mm,
            constant_guess_mm: e.constant_guess_mm,
            seconds: e.seconds,
            best: e.best,
        }
    }
}

impl TryFrom<wire::Evaluation> for Evaluation {
    type Error = ProtocolError;

    fn try_from(e: wire::Evaluation) -> Result<Self, ProtocolError> {
        let guess = e.constant_guess_mm;
        Ok(Self {
            updates: e.updates,
            weights_version: e.weights_version,
            mean_error_mm: pack::measure("evaluation.mean_error_mm", e.mean_error_mm)?,
            mean_error_voxels: pack::measure("evaluation.mean_error_voxels", e.mean_error_voxels)?,
            median_error_mm: pack::measure("evaluation.median_error_mm", e.median_error_mm)?,
            constant_guess_mm: guess
                .map(|mm| pack::measure("evaluation.constant_guess_mm", mm))
                .transpose()?,
            seconds: pack::measure("evaluation.seconds", e.seconds)?,
            best: e.best,
        })
    }
}

impl From<EvaluatorBeat> for wire::EvaluatorBeatRequest {
    fn from(beat: EvaluatorBeat) -> Self {
        Self {
            hello: Some(beat.hello.into()),
            host: beat.host,
            evaluating: beat.evaluating.unwrap_or(0),
            evaluation: beat.evaluation.map(Into::into),
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
            evaluating: some(beat.evaluating),
            evaluation: beat.evaluation.map(TryInto::try_into).transpose()?,
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
            last_version: reply.last_version.unwrap_or(0),
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
            last_version: some(reply.last_version),
            last_updates: reply.last_updates,
        })
    }
}

impl From<EvaluatorStatus> for wire::EvaluatorStatus {
    fn from(status: EvaluatorStatus) -> Self {
        Self {
            host: status.host,
            heard_s: status.heard_s,
            evaluating: status.evaluating.unwrap_or(0),
        }
    }
}

impl TryFrom<wire::EvaluatorStatus> for EvaluatorStatus {
    type Error = ProtocolError;

    fn try_from(status: wire::EvaluatorStatus) -> Result<Self, ProtocolError> {
        Ok(Self {
            host: status.host,
            heard_s: pack::measure("evaluators.heard_s", status.heard_s)?,
            evaluating: some(status.evaluating),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;

    pub(crate) fn evaluation() -> Evaluation {
        Evaluation {
            updates: 500,
            weights_version: 26,
            mean_error_mm: 1.25,
            mean_error_voxels: 7.0,
            median_error_mm: 0.75,
            constant_guess_mm: Some(3.0),
            seconds: 4.5,
            best: true,
        }
    }

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
            evaluation: Some(wire::Evaluation {
                mean_error_mm: f64::NAN,
                ..evaluation().into()
            }),
            ..message
        };
        for (broken, field) in [(two_lines, "line_json"), (nan, "mean_error_mm")] {
            let error = EvaluatorBeat::try_from(broken).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
