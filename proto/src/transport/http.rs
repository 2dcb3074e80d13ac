//! The HTTP side of a service: metrics, health, the log level, and routes of
//! its own.
//!
//! HTTP/1.1 on a separate port, so that Prometheus, probes and curl need no
//! gRPC; with TLS if the cluster has certificates.

mod connection;
mod guard;
mod hosts;
mod places;
mod routes;

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::transport::listen::{self, ListenError};
use crate::transport::security::Security;

pub use connection::serve;
pub use hosts::Hosts;
pub use routes::standard;

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("config key \"http.listen\": \"{address}\" is not IP:PORT, as in 127.0.0.1:7480")]
    Address { address: String },
    #[error("cannot serve HTTP (config key \"http.listen\")")]
    Listen(#[from] ListenError),
}

/// Binds the address in `http.listen`; `None` if it is empty. Beyond loopback
/// only with TLS, or if `insecure`.
pub async fn bind(
    address: &str,
    security: &Security,
    insecure: bool,
) -> Result<Option<TcpListener>, HttpError> {
    if address.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = address.parse().map_err(|_| HttpError::Address {
        address: address.to_owned(),
    })?;
    let open = insecure || security.has_tls();
    Ok(Some(listen::bind(address, open).await?))
}

/// Serves `router` under the names `hosts` in a task of its own if there is a listener, until the
/// returned handle is dropped.
#[must_use = "serving ends when this is dropped"]
pub fn spawn(
    listener: Option<TcpListener>,
    router: Router,
    security: &Security,
    hosts: Hosts,
) -> Option<Serving> {
    let listener = listener?;
    let address = listener.local_addr().map(|a| a.to_string());
    let address = address.unwrap_or_else(|error| error.to_string());
    tracing::info!(address, tls = security.has_tls(), "serving HTTP");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let security = security.clone();
    let task = tokio::spawn(async move {
        let until = async {
            let _ = stopped.await;
        };
        serve(listener, router, &security, &hosts, until).await;
    });
    Some(Serving { _stop: stop, task })
}

/// A running HTTP server.
#[derive(Debug)]
pub struct Serving {
    _stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Stops accepting connections and waits briefly for the open ones.
    pub async fn finish(self) {
        let Self { _stop: stop, task } = self;
        drop(stop);
        // Its errors have been logged.
        let _ = task.await;
    }
}

#[cfg(test)]
#[path = "http/tests.rs"]
pub(crate) mod tests;
