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
    pub hello: Hello,
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

impl Writer {
    /// The writer with this id, which is sent in a wider type.
    pub(crate) fn checked(
        field: &'static str,
        actor: u32,
        incarnation: u32,
    ) -> Result<Self, ProtocolError> {
        Ok(Self {
            actor: pack::narrow(field, actor)?,
            incarnation,
        })
    }
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
        match pack::required("kind", request.kind)? {
            Kind::Open(open) => Ok(Self::Open(open.try_into()?)),
            Kind::Batch(batch) => Ok(Self::Batch(batch.try_into()?)),
        }
    }
}

impl TryFrom<wire::InsertOpen> for InsertOpen {
    type Error = ProtocolError;

    fn try_from(open: wire::InsertOpen) -> Result<Self, ProtocolError> {
        let writer = pack::required("writer", open.writer)?;
        let ack = match wire::AckLevel::try_from(open.ack) {
            Ok(wire::AckLevel::Memory) => AckLevel::Memory,
            Ok(wire::AckLevel::Durable) => AckLevel::Durable,
            Ok(wire::AckLevel::Unspecified) => return Err(ProtocolError::Missing("ack")),
            Err(_) => {
                let why = format!("{} is not an acknowledgement level", open.ack);
                return Err(ProtocolError::invalid("ack", why));
            }
        };
        Ok(Self {
            hello: hello::required(open.hello)?,
            writer: Writer::checked("writer.actor", writer.actor, writer.incarnation)?,
            ack,
        })
    }
}

impl TryFrom<wire::InsertBatch> for InsertBatch {
    type Error = ProtocolError;

    fn try_from(batch: wire::InsertBatch) -> Result<Self, ProtocolError> {
        if batch.sequence == 0 {
            let why = "sequence numbers start at 1";
            return Err(ProtocolError::invalid("sequence", why));
        }
        let rows = batch.priorities.len() / size_of::<f32>();
        pack::within("priorities", rows, "rows", 1..=BATCH_ROWS_MAX)?;
        pack::within("rows", batch.rows.len(), "bytes", 0..=BATCH_BYTES_MAX)?;
        Ok(Self {
            sequence: batch.sequence,
            priorities: pack::unpack_priorities(&batch.priorities, rows)?,
            packed: batch.rows,
        })
    }
}

pack::wire_form! {
    InsertReply, InsertReply, same: [acked, shard_incarnation],
    reply => { window: reply.window },
    // With a window of zero, a writer could never send.
    reply => { window: pack::within("window", reply.window, "batches", 1..=u32::MAX)? },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::{reads_back, refuses};

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
            let message = wire::InsertRequest::from(open.clone());
            let read = InsertRequest::try_from(message);
            assert_eq!(read, Ok(InsertRequest::Open(open)));
        }
        let message = wire::InsertRequest::from(batch());
        let read = InsertRequest::try_from(message);
        assert_eq!(read, Ok(InsertRequest::Batch(batch())));
        reads_back::<wire::InsertReply, _>(InsertReply {
            acked: 4,
            window: INSERT_WINDOW,
            shard_incarnation: 77,
        });
    }

    #[test]
    fn batches_outside_the_contract_are_refused_by_field() {
        let Some(Kind::Batch(valid)) = wire::InsertRequest::from(batch()).kind else {
            unreachable!("a batch is a batch");
        };
        refuses::<InsertBatch, _>(
            &valid,
            &[
                (|b| b.sequence = 0, "field sequence"),
                (|b| b.priorities.clear(), "field priorities"),
                (
                    |b| b.priorities = vec![0; 4 * (BATCH_ROWS_MAX + 1)].into(),
                    "field priorities",
                ),
                (
                    |b| b.priorities = pack::pack([0.5, f32::NAN]),
                    "field priorities",
                ),
                (
                    |b| b.rows = vec![0; BATCH_BYTES_MAX + 1].into(),
                    "field rows",
                ),
                (
                    |b| b.priorities = Bytes::from_static(&[0; 9]),
                    "2 values of 4 bytes are needed, got 9",
                ),
            ],
        );
    }

    #[test]
    fn absent_parts_of_an_open_are_named() {
        let Some(Kind::Open(valid)) = wire::InsertRequest::from(open()).kind else {
            unreachable!("an open is an open");
        };
        refuses::<InsertOpen, _>(
            &valid,
            &[
                (|o| o.hello = None, "field hello is missing"),
                (|o| o.writer = None, "field writer is missing"),
                (|o| o.ack = 0, "field ack is missing"),
                (|o| o.ack = 9, "9 is not an acknowledgement level"),
            ],
        );
        assert_eq!(
            InsertRequest::try_from(wire::InsertRequest { kind: None }),
            Err(ProtocolError::Missing("kind"))
        );
    }
}
