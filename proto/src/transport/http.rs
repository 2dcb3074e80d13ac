//! The HTTP side of a service: metrics, health, the log level, and routes of
//! its own.
//!
//! HTTP/1.1 on a separate port, so that Prometheus, probes and curl need no
//! gRPC; with TLS if the cluster has certificates.

mod connection;
mod routes;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::transport::security::Security;

pub use connection::serve;
pub use routes::standard;

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address.
    #[error("config key \"http.listen\": \"{address}\" is not IP:PORT, as in 127.0.0.1:7480")]
    Address { address: String },
    /// Other machines could reach the port, and there is no TLS.
    #[error(
        "refusing to serve HTTP on {address}: beyond this machine anyone who reaches the port could read it, because \
         there is no TLS; set http.listen to a port of 127.0.0.1, or cluster.ca, cluster.cert and cluster.key, \
         or cluster.insecure = true on a network that you trust"
    )]
    BeyondLoopback { address: SocketAddr },
    /// Another process has the port.
    #[error(
        "cannot serve HTTP on {address}: the port is in use; stop the process that has it, or choose another with http.listen"
    )]
    InUse { address: SocketAddr },
    /// Any other operating system error.
    #[error("cannot serve HTTP on {address}")]
    Io {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Binds the address in `http.listen`; `None` if it is empty. Beyond loopback
/// only with TLS, or if `insecure`.
///
/// # Errors
/// When the address is invalid, not allowed, or cannot be bound.
pub async fn bind(
    listen: &str,
    security: &Security,
    insecure: bool,
) -> Result<Option<TcpListener>, HttpError> {
    if listen.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = listen.parse().map_err(|_| HttpError::Address {
        address: listen.to_owned(),
    })?;
    if !address.ip().is_loopback() && !security.has_tls() && !insecure {
        return Err(HttpError::BeyondLoopback { address });
    }
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::InUse { address },
            _ => HttpError::Io { address, source },
        })?;
    Ok(Some(listener))
}

/// Serves `router` in a task of its own if there is a listener, until the
/// returned handle is dropped.
#[must_use = "serving ends when this is dropped"]
pub fn spawn(
    listener: Option<TcpListener>,
    router: Router,
    security: &Security,
) -> Option<Serving> {
    let listener = listener?;
    let address = listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |address| address.to_string());
    tracing::info!(address, tls = security.has_tls(), "HTTP listens");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let security = security.clone();
    let task = tokio::spawn(async move {
        let until = async {
            let _ = stopped.await;
        };
        serve(listener, router, &security, until).await;
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
