//! Where a service listens, and what tells it to stop.

use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Why a service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Others could reach it, and nothing protects it.
    #[error(
        "refusing to listen on {address}: beyond this machine anyone who reaches the port could read and write, \
         because this version has no TLS; listen on 127.0.0.1, or allow it (--insecure, cluster.insecure) on a network that you trust"
    )]
    BeyondLoopback {
        /// Where it was told to listen.
        address: SocketAddr,
    },
    /// Another process has the port.
    #[error(
        "cannot listen on {address}: the port is in use; stop the process that has it, or choose another (--listen, cluster.learner)"
    )]
    InUse {
        /// Where it was told to listen.
        address: SocketAddr,
    },
    /// Anything else the system says.
    #[error("cannot listen on {address}")]
    Io {
        /// Where it was told to listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on `address` (port 0: any free one); beyond loopback only if `insecure`.
pub async fn bind(address: SocketAddr, insecure: bool) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() && !insecure {
        return Err(ListenError::BeyondLoopback { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            _ => ListenError::Io { address, source },
        })
}

/// Ends with Ctrl-C or SIGTERM.
#[cfg(unix)]
pub async fn stop_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

/// Ends with Ctrl-C.
#[cfg(not(unix))]
pub async fn stop_signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_and_an_open_one_are_told_apart() {
        let first = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, false).await.unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn listening_beyond_loopback_must_be_asked_for() {
        let address = "0.0.0.0:0".parse().unwrap();
        let error = bind(address, false).await.unwrap_err().to_string();
        assert!(
            error.contains("0.0.0.0:0") && error.contains("--insecure"),
            "{error}"
        );
        assert!(bind(address, true).await.is_ok());
    }
}
