//! Sampling rows from a shard by priority, each with its key.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::messages::status::ShardSummary;
use crate::wire;
use bytes::Bytes;

/// Rows of one request, at most.
pub const SAMPLE_ROWS_MAX: usize = 65_536;

/// A sampler's request to one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    pub hello: Hello,
    /// Rows to draw, 0 to [`SAMPLE_ROWS_MAX`]; 0 asks for the summary only.
    pub rows: usize,
    /// Rows that may be inserted in total during the incarnation
    /// `shard_incarnation` of the shard; ignored in any other.
    pub insert_limit: u64,
    /// The shard's incarnation that the limit is for; 0 if not known yet.
    pub shard_incarnation: u64,
    /// Which learner calls: larger than those of all learners of this run that started
    /// before it; 0 if unknown.
    pub learner: u64,
}

/// Names one stored row for as long as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The shard's number.
    pub shard: u32,
    /// The shard's incarnation.
    pub incarnation: u64,
    /// The row's place in the shard's table.
    pub slot: u32,
    /// How often that place was filled before.
    pub generation: u32,
}

/// Rows drawn with replacement from one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledBatch {
    /// The rows, one after another; the caller checks them against its row shape.
    pub packed: Bytes,
    /// One per row: none if the shard is empty, else as many as requested.
    pub keys: Vec<RowKey>,
    /// One per row: the probability that a draw from this shard takes that row,
    /// greater than 0 and at most 1.
    pub probabilities: Vec<f64>,
    /// The shard when the rows were drawn.
    pub summary: ShardSummary,
}

impl SampledBatch {
    #[must_use]
    pub fn rows(&self) -> usize {
        self.keys.len()
    }
}

pack::wire_form! {
    SampleRequest, SampleRequest, same: [insert_limit, shard_incarnation, learner],
    request => {
        hello: Some(request.hello.into()),
        rows: u32::try_from(request.rows).unwrap_or(u32::MAX),
    },
    request => {
        hello: hello::required(request.hello)?,
        rows: pack::within(
            "rows",
            pack::narrow("rows", request.rows)?,
            "rows",
            0..=SAMPLE_ROWS_MAX,
        )?,
    },
}

impl From<SampledBatch> for wire::SampleReply {
    fn from(batch: SampledBatch) -> Self {
        Self {
            rows: batch.packed,
            slots: pack::pack(batch.keys.iter().map(|key| key.slot)),
            generations: pack::pack(batch.keys.iter().map(|key| key.generation)),
            probabilities: pack::pack(batch.probabilities),
            summary: Some(batch.summary),
        }
    }
}

impl TryFrom<wire::SampleReply> for SampledBatch {
    type Error = ProtocolError;

    fn try_from(reply: wire::SampleReply) -> Result<Self, ProtocolError> {
        let summary = pack::required("summary", reply.summary)?.checked()?;
        let rows = reply.slots.len() / size_of::<u32>();
        let slots = pack::unpack::<u32>("slots", &reply.slots, rows)?;
        let generations = pack::unpack::<u32>("generations", &reply.generations, rows)?;
        let probabilities = pack::each(
            "probabilities",
            "row",
            pack::unpack::<f64>("probabilities", &reply.probabilities, rows)?,
            "a probability above zero",
            |p| p > 0.0 && p <= 1.0,
        )?;
        let keys = slots
            .into_iter()
            .zip(generations)
            .map(|(slot, generation)| RowKey {
                shard: summary.shard,
                incarnation: summary.shard_incarnation,
                slot,
                generation,
            });
        Ok(Self {
            packed: reply.rows,
            keys: keys.collect(),
            probabilities,
            summary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::{reads_back, refuses};
    use crate::messages::status::tests::summary;

    fn batch() -> SampledBatch {
        let key = |slot, generation| RowKey {
            shard: 2,
            incarnation: 5,
            slot,
            generation,
        };
        SampledBatch {
            packed: Bytes::from_static(b"two rows"),
            keys: vec![key(7, 0), key(3, 9)],
            probabilities: vec![0.25, 1.0],
            summary: summary(),
        }
    }

    #[test]
    fn requests_and_replies_read_back() {
        let request = SampleRequest {
            hello: hello(),
            rows: 0,
            insert_limit: 900,
            shard_incarnation: 5,
            learner: 8,
        };
        reads_back::<wire::SampleRequest, _>(request.clone());
        reads_back::<wire::SampleReply, _>(batch());
        let greedy = SampleRequest {
            rows: SAMPLE_ROWS_MAX + 1,
            ..request
        };
        assert!(SampleRequest::try_from(wire::SampleRequest::from(greedy)).is_err());
    }

    #[test]
    fn replies_outside_the_contract_are_refused_by_field() {
        refuses::<SampledBatch, _>(
            &wire::SampleReply::from(batch()),
            &[
                (|r| r.slots.truncate(7), "slots"),
                (|r| r.slots.truncate(4), "generations"),
                (|r| r.generations.clear(), "generations"),
                (|r| r.probabilities = pack::pack([0.5, 0.0]), "row 1 has 0"),
                (
                    |r| r.probabilities = pack::pack([f64::NAN, 0.5]),
                    "row 0 has NaN",
                ),
                (|r| r.summary = None, "summary is missing"),
                (
                    |r| r.summary.as_mut().unwrap().priority_sum = f64::INFINITY,
                    "summary.priority_sum",
                ),
            ],
        );
    }
}
