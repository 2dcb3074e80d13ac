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
    /// Which run, data, configuration and row shape.
    pub hello: Hello,
    /// Rows to draw, 0 to [`SAMPLE_ROWS_MAX`]; 0 asks for the summary only.
    pub rows: usize,
    /// Rows that may be inserted in total during the incarnation
    /// `shard_incarnation` of the shard; ignored in any other.
    pub insert_limit: u64,
    /// The shard's incarnation that the limit is for; 0 if not known yet.
    pub shard_incarnation: u64,
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

impl From<SampleRequest> for wire::SampleRequest {
    fn from(request: SampleRequest) -> Self {
        Self {
            hello: Some(request.hello.into()),
            rows: u32::try_from(request.rows).unwrap_or(u32::MAX),
            insert_limit: request.insert_limit,
            shard_incarnation: request.shard_incarnation,
        }
    }
}

impl TryFrom<wire::SampleRequest> for SampleRequest {
    type Error = ProtocolError;

    fn try_from(request: wire::SampleRequest) -> Result<Self, ProtocolError> {
        let rows: usize = pack::narrow("rows", request.rows)?;
        if rows > SAMPLE_ROWS_MAX {
            return Err(ProtocolError::invalid(
                "rows",
                format!("{rows} are more than {SAMPLE_ROWS_MAX}"),
            ));
        }
        Ok(Self {
            hello: hello::required(request.hello)?,
            rows,
            insert_limit: request.insert_limit,
            shard_incarnation: request.shard_incarnation,
        })
    }
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
        let summary = reply.summary.ok_or(ProtocolError::Missing("summary"))?;
        let summary = summary.checked()?;
        let rows = reply.slots.len() / size_of::<u32>();
        let slots = pack::unpack::<u32>("slots", &reply.slots, rows)?;
        let generations = pack::unpack::<u32>("generations", &reply.generations, rows)?;
        let probabilities = pack::unpack::<f64>("probabilities", &reply.probabilities, rows)?;
        if let Some(row) = probabilities.iter().position(|p| !(*p > 0.0 && *p <= 1.0)) {
            let why = format!(
                "row {row} has {}, which no drawn row has",
                probabilities[row]
            );
            return Err(ProtocolError::invalid("probabilities", why));
        }
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
        };
        assert_eq!(
            SampleRequest::try_from(wire::SampleRequest::from(request.clone())),
            Ok(request.clone())
        );
        assert_eq!(
            SampledBatch::try_from(wire::SampleReply::from(batch())),
            Ok(batch())
        );
        let greedy = SampleRequest {
            rows: SAMPLE_ROWS_MAX + 1,
            ..request
        };
        assert!(SampleRequest::try_from(wire::SampleRequest::from(greedy)).is_err());
    }

    #[test]
    fn replies_outside_the_contract_are_refused_by_field() {
        let error = |change: fn(&mut wire::SampleReply)| {
            let mut reply = wire::SampleReply::from(batch());
            change(&mut reply);
            SampledBatch::try_from(reply).unwrap_err().to_string()
        };
        assert!(error(|r| r.slots.truncate(7)).contains("slots"));
        assert!(error(|r| r.slots.truncate(4)).contains("generations"));
        assert!(error(|r| r.generations.clear()).contains("generations"));
        assert!(error(|r| r.probabilities = pack::pack([0.5, 0.0])).contains("row 1 has 0"));
        assert!(error(|r| r.probabilities = pack::pack([f64::NAN, 0.5])).contains("row 0 has NaN"));
        assert!(error(|r| r.summary = None).contains("summary is missing"));
        assert!(
            error(|r| r.summary.as_mut().unwrap().mass = f64::INFINITY).contains("summary.mass")
        );
    }
}
