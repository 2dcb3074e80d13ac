//! Errors of a shard.

use crate::journal::JournalError;
use crate::service::fence::ReplacedLearner;
use crate::service::writers::ReplacedIncarnation;
use crate::table::TableError;
use crate::table::selector::SelectorError;
use common::transition::row::RowError;
use proto::error::ProtocolError;
use proto::messages::mismatch::HelloMismatch;
use proto::messages::sample::SAMPLE_ROWS_MAX;
use proto::transport::serve::ServeError;
use std::path::PathBuf;
use tonic::Status;

/// An invalid batch.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    #[error("batch {sequence}: {why}")]
    Length { sequence: u64, why: RowError },
    /// The row at this place in the batch is invalid.
    #[error("batch {sequence}, row {row}: {why}")]
    Row {
        sequence: u64,
        row: usize,
        why: RowError,
    },
}

/// Why a shard failed to start or refused a request.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The selector's settings are invalid.
    #[error("selector: {0}")]
    Selector(#[from] SelectorError),
    /// The capacity is outside the range of a table.
    #[error("capacity {capacity} is not within 1..={}", u32::MAX)]
    Capacity { capacity: usize },
    /// The table would not fit into the memory it may take.
    #[error(
        "{capacity} rows of {row_bytes} bytes need {:.1} MB with their index, more than the limit of {:.1} MB: \
         lower the capacity, or raise --memory-max-mb", *.needed as f64 / 1e6, *.memory_max as f64 / 1e6
    )]
    Memory {
        capacity: usize,
        row_bytes: usize,
        /// Bytes of all rows and the index.
        needed: u64,
        memory_max: u64,
    },
    /// The caller does not belong to this shard's run.
    #[error(transparent)]
    Hello(#[from] HelloMismatch),
    /// The journal holds rows of another run, so a restart does not help.
    #[error(
        "{mismatch}; the journal in '{}' holds rows of this shard's run, so restarting it does not help: \
         serve the other run with another --journal folder, or move that one away", folder.display()
    )]
    Kept {
        folder: PathBuf,
        /// What differs.
        mismatch: HelloMismatch,
    },
    /// The message violates the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A batch contains an invalid row.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The table refused a batch or an update.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A newer incarnation of the same actor has connected.
    #[error(transparent)]
    Replaced(#[from] ReplacedIncarnation),
    /// A learner that started later has called.
    #[error(transparent)]
    Fenced(#[from] ReplacedLearner),
    /// A message out of order in a stream.
    #[error("{0}")]
    Order(&'static str),
    /// The sample does not fit into one message.
    #[error(
        "{rows} rows of {row_bytes} bytes do not fit into one reply; ask for at most {}",
        (*.fit).min(SAMPLE_ROWS_MAX)
    )]
    SampleTooLarge {
        /// Rows asked for.
        rows: usize,
        row_bytes: usize,
        /// Rows that fit.
        fit: usize,
    },
    /// Durable acknowledgements need a journal.
    #[error(
        "this shard keeps rows in memory only; for durable acknowledgements start it with --journal FOLDER, \
         or ask for memory acknowledgements"
    )]
    Durable,
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The row shape is not known yet.
    #[error("rows arrived before a hello")]
    NoHello,
    /// A panic left the table half changed.
    #[error("an earlier failure left this shard's table in an unknown state; restart the shard")]
    Poisoned,
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl From<ShardError> for Status {
    fn from(error: ShardError) -> Self {
        let text = error.to_string();
        match error {
            ShardError::Hello(mismatch) => mismatch.into(),
            ShardError::Protocol(error) => error.into(),
            ShardError::Batch(_)
            | ShardError::Table(_)
            | ShardError::Order(_)
            | ShardError::SampleTooLarge { .. } => Self::invalid_argument(text),
            ShardError::Memory { .. }
            | ShardError::Kept { .. }
            | ShardError::Durable
            | ShardError::NoHello => Self::failed_precondition(text),
            // Retryable: the actor's next incarnation is accepted, and a learner once the later
            // one has ended.
            ShardError::Replaced(_) | ShardError::Fenced(_) => Self::aborted(text),
            ShardError::Selector(_)
            | ShardError::Capacity { .. }
            | ShardError::Poisoned
            | ShardError::Journal(_)
            | ShardError::Serve(_) => Self::internal(text),
        }
    }
}
