//! Where a service listens, and what tells it to stop.

use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Exit code of a process that a second signal ended.
pub const INTERRUPTED: i32 = 130;

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

/// Ctrl-C and SIGTERM, from now on.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}

/// Ends with Ctrl-C or SIGTERM.
pub async fn stop_signal() -> io::Result<()> {
    Signals::new()?.next().await
}

/// Ends with Ctrl-C or SIGTERM; another one after that ends the process at
/// once, with exit code [`INTERRUPTED`]: whoever asks twice will not wait.
///
/// Listens for them from this call on, not from the first poll: a signal that
/// comes while a service still starts is not lost on it.
pub fn stop_signal_or_exit() -> impl Future<Output = ()> + Send {
    let signals = Signals::new();
    async move {
        let first = async {
            let mut signals = signals?;
            signals.next().await?;
            io::Result::Ok(signals)
        };
        let mut signals = match first.await {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot wait for signals; stopping");
                return;
            }
        };
        tokio::spawn(async move {
            if signals.next().await.is_ok() {
                #[expect(clippy::exit, reason = "nothing is left to be done in order")]
                std::process::exit(INTERRUPTED);
            }
        });
    }
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
