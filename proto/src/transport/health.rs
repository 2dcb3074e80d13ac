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
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address} does not respond: {}", retry::reason(status))]
    NoResponse {
        address: String,
        status: Box<Status>,
    },
    #[error("{address} responds, but is not serving ({status})")]
    NotServing {
        address: String,
        status: &'static str,
    },
}

/// Checks once the whole server at `host:port`, which must have this role.
pub async fn check(address: &str, security: &Security, role: Role) -> Result<(), HealthError> {
    let mut client = HealthClient::new(security.connect(address, role)?);
    // An empty name stands for the whole server.
    let request = HealthCheckRequest::default();
    let reply = retry::unary(request, CALL_DEADLINE, |request| client.check(request)).await;
    let address = address.to_owned();
    let serving = match reply {
        Ok(reply) => reply.status(),
        Err(status) => {
            let status = Box::new(status);
            return Err(HealthError::NoResponse { address, status });
        }
    };
    let status = serving.as_str_name();
    match serving {
        ServingStatus::Serving => Ok(()),
        _ => Err(HealthError::NotServing { address, status }),
    }
}
