//! Is a service there and ready? What probes of containers ask.

use crate::transport::endpoint::AddressError;
use crate::transport::retry::{self, CALL_DEADLINE};
use crate::transport::security::{Role, Security};
use tonic::Status;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// Why a service is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody can be asked there.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No answer, or an error for an answer.
    #[error("{address} does not answer: {}", retry::reason(status))]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// What came instead.
        status: Box<Status>,
    },
    /// It answers, and says no.
    #[error("{address} answers, but is not serving ({status})")]
    NotServing {
        /// Who was asked.
        address: String,
        /// Its word for it.
        status: &'static str,
    },
}

/// Asks the server at `host:port`, which is expected to have this role, once, as a whole.
pub async fn check(address: &str, security: &Security, role: Role) -> Result<(), HealthError> {
    let mut client = HealthClient::new(security.connect(address, role)?);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let reply = retry::unary(request, CALL_DEADLINE, |request| client.check(request))
        .await
        .map_err(|status| HealthError::NoAnswer {
            address: address.to_owned(),
            status: Box::new(status),
        })?;
    match reply.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(HealthError::NotServing {
            address: address.to_owned(),
            status: other.as_str_name(),
        }),
    }
}
