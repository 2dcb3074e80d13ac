//! Inserting rows into a shard: batches in one direction, acknowledgements in the other.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::wire;
use bytes::Bytes;
use wire::insert_request::Kind;

pub const BATCH_ROWS_MAX: usize = 4096;
/// Bytes of one batch's packed rows, at most.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Unacknowledged batches of one stream, at most.
pub const INSERT_WINDOW: u32 = 8;

/// Who writes: one incarnation of one actor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// The actor's id, as in its rows.
    pub actor: u16,
    pub incarnation: u32,
}

/// When a batch counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckLevel {
    /// In the table.
    Memory,
    /// On disk.
    Durable,
}

/// The first message of an insert stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertOpen {
    /// Which run, data, configuration and row shape.
    pub hello: Hello,
    /// Who writes on this stream.
    pub writer: Writer,
    /// When its batches count as stored.
    pub ack: AckLevel,
}

/// Rows of one writer, in the order of its sequence numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertBatch {
    /// From 1, one more with each new batch of this writer to this shard.
    pub sequence: u64,
    /// The rows, one after another; the shard checks them against its row shape.
    pub packed: Bytes,
    /// |TD error| of each row, 1 to [`BATCH_ROWS_MAX`] of them: finite, not negative.
    pub priorities: Vec<f32>,
}

impl InsertBatch {
    #[must_use]
    pub fn rows(&self) -> usize {
        self.priorities.len()
    }
}

/// What a writer sends.
#[derive(Debug, Clone, PartialEq)]
pub enum InsertRequest {
    /// The first message, and only the first.
    Open(InsertOpen),
    /// Any number of these follow.
    Batch(InsertBatch),
}

/// A shard's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsertReply {
    /// Every batch up to this sequence number is stored.
    pub acked: u64,
    /// Batches that may be unacknowledged at once.
    pub window: u32,
    pub shard_incarnation: u64,
}

impl From<InsertOpen> for wire::InsertRequest {
    fn from(open: InsertOpen) -> Self {
        let ack = match open.ack {
            AckLevel::Memory => wire::AckLevel::Memory,
            AckLevel::Durable => wire::AckLevel::Durable,
        };
        let writer = wire::Writer {
            actor: open.writer.actor.into(),
            incarnation: open.writer.incarnation,
        };
        let open = wire::InsertOpen {
            hello: Some(open.hello.into()),
            writer: Some(writer),
            ack: ack.into(),
        };
        Self {
            kind: Some(Kind::Open(open)),
        }
    }
}

impl From<InsertBatch> for wire::InsertRequest {
    fn from(batch: InsertBatch) -> Self {
        let batch = wire::InsertBatch {
            sequence: batch.sequence,
            rows: batch.packed,
            priorities: pack::pack(batch.priorities),
        };
        Self {
            kind: Some(Kind::Batch(batch)),
        }
    }
}

impl TryFrom<wire::InsertRequest> for InsertRequest {
    type Error = ProtocolError;

    fn try_from(request: wire::InsertRequest) -> Result<Self, ProtocolError> {
        match request.kind.ok_or(ProtocolError::Missing("kind"))? {
            Kind::Open(open) => Ok(Self::Open(open.try_into()?)),
            Kind::Batch(batch) => Ok(Self::Batch(batch.try_into()?)),
        }
    }
}

impl TryFrom<wire::InsertOpen> for InsertOpen {
    type Error = ProtocolError;

    fn try_from(open: wire::InsertOpen) -> Result<Self, ProtocolError> {
        let writer = open.writer.ok_or(ProtocolError::Missing("writer"))?;
        let ack = match wire::AckLevel::try_from(open.ack) {
            Ok(wire::AckLevel::Memory) => AckLevel::Memory,
            Ok(wire::AckLevel::Durable) => AckLevel::Durable,
            Ok(wire::AckLevel::Unspecified) => return Err(ProtocolError::Missing("ack")),
            Err(_) => {
                return Err(ProtocolError::invalid(
                    "ack",
                    format!("{} is no acknowledgement level", open.ack),
                ));
            }
        };
        Ok(Self {
            hello: hello::required(open.hello)?,
            writer: Writer {
                actor: pack::narrow("writer.actor", writer.actor)?,
                incarnation: writer.incarnation,
            },
            ack,
        })
    }
}

impl TryFrom<wire::InsertBatch> for InsertBatch {
    type Error = ProtocolError;

    fn try_from(batch: wire::InsertBatch) -> Result<Self, ProtocolError> {
        if batch.sequence == 0 {
            return Err(ProtocolError::invalid(
                "sequence",
                "sequence numbers start at 1",
            ));
        }
        let rows = batch.priorities.len() / size_of::<f32>();
        if !(1..=BATCH_ROWS_MAX).contains(&rows) {
            return Err(ProtocolError::invalid(
                "priorities",
                format!("{rows} rows are not within 1..={BATCH_ROWS_MAX}"),
            ));
        }
        if batch.rows.len() > BATCH_BYTES_MAX {
            let why = format!("{} bytes are more than {BATCH_BYTES_MAX}", batch.rows.len());
            return Err(ProtocolError::invalid("rows", why));
        }
        let priorities = pack::unpack_priorities(&batch.priorities, rows)?;
        Ok(Self {
            sequence: batch.sequence,
            packed: batch.rows,
            priorities,
        })
    }
}

impl From<InsertReply> for wire::InsertReply {
    fn from(reply: InsertReply) -> Self {
        Self {
            acked: reply.acked,
            window: reply.window,
            shard_incarnation: reply.shard_incarnation,
        }
    }
}

impl TryFrom<wire::InsertReply> for InsertReply {
    type Error = ProtocolError;

    fn try_from(reply: wire::InsertReply) -> Result<Self, ProtocolError> {
        if reply.window == 0 {
            return Err(ProtocolError::invalid(
                "window",
                "a writer with a window of zero can never send",
            ));
        }
        Ok(Self {
            acked: reply.acked,
            window: reply.window,
            shard_incarnation: reply.shard_incarnation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;

    fn open() -> InsertOpen {
        InsertOpen {
            hello: hello(),
            writer: Writer {
                actor: 3,
                incarnation: 2,
            },
            ack: AckLevel::Memory,
        }
    }

    fn batch() -> InsertBatch {
        InsertBatch {
            sequence: 9,
            packed: Bytes::from_static(b"two rows"),
            priorities: vec![0.5, 0.0],
        }
    }

    #[test]
    fn requests_and_replies_read_back() {
        let durable = InsertOpen {
            ack: AckLevel::Durable,
            ..open()
        };
        for open in [open(), durable] {
            assert_eq!(
                InsertRequest::try_from(wire::InsertRequest::from(open.clone())),
                Ok(InsertRequest::Open(open))
            );
        }
        assert_eq!(
            InsertRequest::try_from(wire::InsertRequest::from(batch())),
            Ok(InsertRequest::Batch(batch()))
        );
        let reply = InsertReply {
            acked: 4,
            window: INSERT_WINDOW,
            shard_incarnation: 77,
        };
        assert_eq!(
            InsertReply::try_from(wire::InsertReply::from(reply)),
            Ok(reply)
        );
    }

    #[test]
    fn batches_outside_the_contract_are_refused_by_field() {
        for (change, field) in [
            ((|b| b.sequence = 0) as fn(&mut InsertBatch), "sequence"),
            (|b| b.priorities.clear(), "priorities"),
            (
                |b| b.priorities = vec![0.0; BATCH_ROWS_MAX + 1],
                "priorities",
            ),
            (|b| b.priorities[1] = f32::NAN, "priorities"),
            (|b| b.packed = vec![0; BATCH_BYTES_MAX + 1].into(), "rows"),
        ] {
            let mut batch = batch();
            change(&mut batch);
            let error = InsertRequest::try_from(wire::InsertRequest::from(batch)).unwrap_err();
            assert!(
                matches!(&error, ProtocolError::Invalid { field: found, .. } if *found == field),
                "{error}"
            );
        }
        let mut torn = wire::InsertBatch {
            sequence: 1,
            rows: Bytes::from_static(b"two rows"),
            priorities: Bytes::from_static(&[0; 8]),
        };
        assert!(InsertBatch::try_from(torn.clone()).is_ok());
        torn.priorities = Bytes::from_static(&[0; 9]);
        let error = InsertBatch::try_from(torn).unwrap_err().to_string();
        assert!(
            error.contains("2 values of 4 bytes are needed, got 9"),
            "{error}"
        );
    }

    #[test]
    fn absent_parts_of_an_open_are_named() {
        let message = || match wire::InsertRequest::from(open()).kind {
            Some(Kind::Open(open)) => open,
            _ => unreachable!("an open is an open"),
        };
        let error = |change: fn(&mut wire::InsertOpen)| {
            let mut message = message();
            change(&mut message);
            InsertOpen::try_from(message).unwrap_err()
        };
        assert_eq!(error(|o| o.hello = None), ProtocolError::Missing("hello"));
        assert_eq!(error(|o| o.writer = None), ProtocolError::Missing("writer"));
        assert_eq!(error(|o| o.ack = 0), ProtocolError::Missing("ack"));
        assert!(
            error(|o| o.ack = 9)
                .to_string()
                .contains("9 is no acknowledgement level")
        );
        assert_eq!(
            InsertRequest::try_from(wire::InsertRequest { kind: None }),
            Err(ProtocolError::Missing("kind"))
        );
    }
}
