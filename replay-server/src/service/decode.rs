//! Validates every field of a received batch before it is stored.

use common::transition::row::{Row, RowError, RowShape};
use proto::messages::insert::InsertBatch;

/// An invalid batch.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    #[error("batch {sequence}: {why}")]
    Length { sequence: u64, why: RowError },
    /// One of the rows is invalid.
    #[error("batch {sequence}, row {row}: {why}")]
    Row {
        sequence: u64,
        /// The row's place in the batch.
        row: usize,
        why: RowError,
    },
}

/// Checks the packed rows in place. Priorities were checked when the message was
/// decoded.
///
/// # Errors
/// The error names the batch, the row and the field.
pub fn check(batch: &InsertBatch, shape: RowShape) -> Result<(), BatchError> {
    let sequence = batch.sequence;
    let rows = shape
        .split(&batch.packed, batch.rows())
        .map_err(|why| BatchError::Length { sequence, why })?;
    for (row, bytes) in rows.enumerate() {
        Row::check(bytes, shape).map_err(|why| BatchError::Row { sequence, row, why })?;
    }
    Ok(())
}
