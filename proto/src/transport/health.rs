//! The gRPC health check, which container probes use.

use crate::transport::endpoint::AddressError;
use crate::transport::retry::{self, CALL_DEADLINE};
use crate::transport::security::{Role, Security};
use tonic::Status;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// Why a service is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The call failed.
    #[error("{address} does not answer: {}", retry::reason(status))]
    NoAnswer {
        address: String,
        status: Box<Status>,
    },
    /// The service responds that it is not serving.
    #[error("{address} answers, but is not serving ({status})")]
    NotServing {
        address: String,
        status: &'static str,
    },
}

/// Checks once the whole server at `host:port`, which must have this role.
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
