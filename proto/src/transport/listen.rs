//! Where a service listens.

use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Why a service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Others could reach it, and nothing protects it.
    #[error(
        "refusing to listen on {address}: beyond this machine anyone who reaches the port could read and write; \
         make certificates with `landmarl certs --out DIR` and set cluster.ca, cluster.cert, cluster.key and cluster.token_file, \
         or listen on 127.0.0.1, or allow it as it is (--insecure, cluster.insecure) on a network that you trust"
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

/// Listens on `address` (port 0: any free one); beyond loopback only if `open`:
/// because there is TLS, or in spite of it being `insecure`.
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
        for word in [
            "landmarl certs",
            "cluster.ca",
            "cluster.cert",
            "cluster.key",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(bind(address, true).await.is_ok());
    }
}
