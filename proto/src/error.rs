//! Errors for messages that violate the wire contract.

use crate::messages::mismatch::HelloMismatch;
use tonic::Status;

/// Why a received message was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    #[error("message field {0} is missing")]
    Missing(&'static str),
    #[error("message field {field} is invalid: {why}")]
    Invalid {
        /// The field's name in the .proto file.
        field: &'static str,
        why: String,
    },
    /// The message is valid, but the peers are incompatible.
    #[error(transparent)]
    Mismatch(#[from] HelloMismatch),
}

impl ProtocolError {
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }
}

impl From<ProtocolError> for Status {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Missing(_) | ProtocolError::Invalid { .. } => {
                Self::invalid_argument(error.to_string())
            }
            ProtocolError::Mismatch(mismatch) => mismatch.into(),
        }
    }
}
