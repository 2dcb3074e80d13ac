//! Binds the listening socket of a service.

use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Why a service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Other machines could reach the port, and there is no TLS.
    #[error(
        "refusing to listen on {address}: beyond this machine anyone who reaches the port could read and write; \
         make certificates with `landmarl certs --out DIR` and set cluster.ca, cluster.cert, cluster.key and cluster.token_file, \
         or listen on 127.0.0.1, or allow it without TLS (cluster.insecure, or --insecure of replay-server) on a network that you trust"
    )]
    BeyondLoopback { address: SocketAddr },
    #[error(
        "cannot listen on {address}: the port is in use; stop the process that has it, or choose another (--listen, cluster.learner, http.listen)"
    )]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Io {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Binds `address` (port 0: any free port); beyond loopback only if `open`, that
/// is, with TLS or with `cluster.insecure`.
pub async fn bind(address: SocketAddr, open: bool) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() && !open {
        return Err(ListenError::BeyondLoopback { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            _ => ListenError::Io { address, source },
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_in_the_error() {
        let first = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, false).await.unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn listening_beyond_loopback_must_be_allowed() {
        let address = "0.0.0.0:0".parse().unwrap();
        let error = bind(address, false).await.unwrap_err().to_string();
        let words = ["0.0.0.0:0", "--insecure", "landmarl certs"];
        for word in words
            .iter()
            .chain(&["cluster.ca", "cluster.cert", "cluster.key"])
        {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(bind(address, true).await.is_ok());
    }
}
