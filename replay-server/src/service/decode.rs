//! A batch from the wire, checked down to every field before it is stored.

use common::transition::columns::{self, ColumnsError};
use common::transition::row::{Row, RowError, RowShape};
use proto::messages::insert::InsertBatch;

/// A batch that holds what no actor writes.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// Version or length are wrong.
    #[error("batch {sequence}: {why}")]
    Columns {
        /// The batch's sequence number.
        sequence: u64,
        /// What is wrong.
        why: ColumnsError,
    },
    /// One of the rows is none.
    #[error("batch {sequence}, row {row}: {why}")]
    Row {
        /// The batch's sequence number.
        sequence: u64,
        /// The row's place in the batch.
        row: usize,
        /// What is wrong with it.
        why: RowError,
    },
}

/// The batch's rows, packed as the table stores them. Priorities were checked
/// when the message was read.
pub fn unpack(batch: &InsertBatch, shape: RowShape) -> Result<Vec<u8>, BatchError> {
    let sequence = batch.sequence;
    let packed = columns::from_columns(&batch.columns, batch.rows, shape)
        .map_err(|why| BatchError::Columns { sequence, why })?;
    for (row, bytes) in packed.chunks_exact(shape.bytes()).enumerate() {
        Row::check(bytes, shape).map_err(|why| BatchError::Row { sequence, row, why })?;
    }
    Ok(packed)
}
