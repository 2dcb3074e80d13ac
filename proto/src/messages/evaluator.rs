//! An evaluator's heartbeats and results.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::join::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::messages::pack;
use crate::messages::status::Evaluation;
use crate::wire;
use bytes::Bytes;
use common::run::baseline::MeanPositionBaseline;

/// A line of validation.jsonl, at most: bounds what an evaluator can make the learner write.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What an evaluator reports.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatorBeat {
    /// Which run (empty: whatever the learner runs), configuration and row
    /// shape; its manifest may differ.
    pub hello: Hello,
    /// For people: host and process.
    pub host: String,
    /// The weights that it evaluates now.
    pub evaluating: Option<u64>,
    /// Its result since the last heartbeat.
    pub evaluation: Option<Evaluation>,
    /// The same as a line of validation.jsonl, for the learner to write.
    pub line_json: Bytes,
    /// What the config digest was made from, so that a refusal can name the keys.
    pub config_json: Bytes,
    /// The manifest of its scans as JSON, until the learner has replied once; then empty.
    pub manifest_json: Bytes,
}

/// The learner's reply.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatorBeatReply {
    /// The run. Not empty.
    pub run_id: String,
    /// The run is over: stop.
    pub stop: bool,
    /// Send the weights of this evaluation: they are the best so far.
    pub wanted: bool,
    /// The last weights of a run that is over.
    pub last_version: Option<u64>,
    /// The newest evaluation of the run.
    pub last_evaluation: Option<Evaluation>,
    /// The evaluation with the least mean error.
    pub best_evaluation: Option<Evaluation>,
    /// The baseline that errors are compared with.
    pub baseline: MeanPositionBaseline,
}

pack::wire_form! {
    EvaluatorBeat, EvaluatorBeatRequest, same: [evaluating],
    beat => {
        hello: Some(beat.hello.into()),
        host: beat.host,
        config_json: beat.config_json,
        manifest_json: beat.manifest_json,
        evaluation: beat.evaluation,
        line_json: beat.line_json,
    },
    beat => {
        hello: hello::required_by_join(beat.hello)?,
        evaluation: beat.evaluation.map(Evaluation::checked).transpose()?,
        line_json: one_line(beat.line_json)?,
        host: pack::host(beat.host)?,
        config_json: pack::at_most("config_json", beat.config_json, CONFIG_BYTES_MAX)?,
        manifest_json: pack::at_most("manifest_json", beat.manifest_json, MANIFEST_BYTES_MAX)?,
    },
}

fn one_line(line: Bytes) -> Result<Bytes, ProtocolError> {
    let bytes = line.len();
    if bytes <= LINE_BYTES_MAX && !line.contains(&b'\n') {
        return Ok(line);
    }
    let why = format!("one line of at most {LINE_BYTES_MAX} bytes is needed, got {bytes}");
    Err(ProtocolError::invalid("line_json", why))
}

impl From<MeanPositionBaseline> for wire::MeanPositionBaseline {
    fn from(baseline: MeanPositionBaseline) -> Self {
        let position = |ras_mm: Option<[f64; 3]>| wire::MeanPosition {
            ras_mm: ras_mm.map(Vec::from).unwrap_or_default(),
        };
        Self {
            scans: u32::try_from(baseline.scans).unwrap_or(u32::MAX),
            positions: baseline.ras_mm.into_iter().map(position).collect(),
        }
    }
}

impl TryFrom<wire::MeanPositionBaseline> for MeanPositionBaseline {
    type Error = ProtocolError;

    fn try_from(baseline: wire::MeanPositionBaseline) -> Result<Self, ProtocolError> {
        let position = |p: wire::MeanPosition| match p.ras_mm.as_slice() {
            [] => Ok(None),
            &[x, y, z] if [x, y, z].iter().all(|v| v.is_finite()) => Ok(Some([x, y, z])),
            other => {
                let why = format!("none or three finite numbers are needed, got {other:?}");
                Err(ProtocolError::invalid("baseline.ras_mm", why))
            }
        };
        let positions = baseline.positions.into_iter().map(position);
        Ok(Self {
            scans: pack::narrow("baseline.scans", baseline.scans)?,
            ras_mm: positions.collect::<Result<_, _>>()?,
        })
    }
}

pack::wire_form! {
    EvaluatorBeatReply, EvaluatorBeatReply, same: [stop, wanted, last_version],
    reply => {
        run_id: reply.run_id,
        last_evaluation: reply.last_evaluation,
        best_evaluation: reply.best_evaluation,
        baseline: Some(reply.baseline.into()),
    },
    reply => {
        run_id: pack::text("run_id", reply.run_id)?,
        last_evaluation: reply.last_evaluation.map(Evaluation::checked).transpose()?,
        best_evaluation: reply.best_evaluation.map(Evaluation::checked).transpose()?,
        baseline: pack::required("baseline", reply.baseline)?.try_into()?,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::{reads_back, refuses};
    use crate::messages::status::tests::evaluation;

    #[test]
    fn beats_read_back_and_invalid_ones_are_refused_by_field() {
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
            manifest_json: Bytes::from_static(b"{}"),
        };
        reads_back::<wire::EvaluatorBeatRequest, _>(beat.clone());
        refuses::<EvaluatorBeat, _>(
            &wire::EvaluatorBeatRequest::from(beat),
            &[
                (|b| b.line_json = "{}\n{}".into(), "line_json"),
                (
                    |b| b.evaluation.as_mut().unwrap().mean_error_mm = f64::NAN,
                    "mean_error_mm",
                ),
            ],
        );
        let reply = EvaluatorBeatReply {
            run_id: "skulls-1".into(),
            stop: true,
            wanted: true,
            last_version: None,
            last_evaluation: Some(evaluation()),
            best_evaluation: None,
            baseline: MeanPositionBaseline {
                scans: 3,
                ras_mm: vec![Some([1.0, -2.0, 3.5]), None],
            },
        };
        reads_back::<wire::EvaluatorBeatReply, _>(reply.clone());
        for ras_mm in [vec![1.0, 2.0], vec![1.0, 2.0, f64::NAN]] {
            let mut broken = wire::EvaluatorBeatReply::from(reply.clone());
            broken.baseline.as_mut().unwrap().positions[0].ras_mm = ras_mm;
            let error = EvaluatorBeatReply::try_from(broken).unwrap_err();
            assert!(error.to_string().contains("baseline.ras_mm"), "{error}");
        }
    }
}
