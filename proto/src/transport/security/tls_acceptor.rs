//! Accepts connections and refuses peers that do not belong to the cluster.
//!
//! tonic could do the handshakes itself, but would not log failures, limit their
//! time, or count connections.

use super::identity::explain;
use super::refusals::Refusals;
use super::role::Roles;
use rustls::{AlertDescription, Error as TlsError, ServerConfig};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// A handshake takes a few milliseconds; a silent client is disconnected after this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Limit between the handshake and the first byte of HTTP/2.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Connections of one address, handshakes included: an actor has one per service.
const CONNECTIONS_PER_ADDRESS: usize = 1024;
/// Connections in total: leaves file descriptors for the journal.
const CONNECTIONS: usize = 16_384;
/// After a failed accept, mostly for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// What its certificate names; `None` without TLS.
    pub roles: Option<Roles>,
}

/// A listener that yields connections after their TLS handshake, or at once without TLS.
pub struct TlsAcceptor {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    places: Places,
    refusals: Arc<Refusals>,
    handshakes: JoinSet<Option<Conn>>,
    ready: VecDeque<Conn>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    pub(super) fn new(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            listener,
            tls: tls.map(tokio_rustls::TlsAcceptor::from),
            places: Places::default(),
            refusals,
            handshakes: JoinSet::new(),
            ready: VecDeque::new(),
            pause: None,
        }
    }

    fn on_accept(&mut self, stream: TcpStream, address: SocketAddr) {
        let Some(place) = self.places.take(address.ip()) else {
            let reason = "too many connections from its address, or in total";
            return log_refusal(&self.refusals, address, "full", reason);
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "no TCP_NODELAY");
        }
        let Some(tls) = self.tls.clone() else {
            let roles = None;
            let conn = Conn::new(stream, Peer { address, roles }, place);
            return self.ready.push_back(conn);
        };
        let refusals = Arc::clone(&self.refusals);
        self.handshakes.spawn(async move {
            match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates();
                    let own = shown.and_then(<[_]>::first);
                    let roles = Some(own.map_or(Roles::default(), Roles::of_certificate));
                    return Some(Conn::new(stream, Peer { address, roles }, place));
                }
                Ok(Err(error)) => match why(&error) {
                    Some((what, reason)) => log_refusal(&refusals, address, what, &reason),
                    None => tracing::debug!(%address, %error, "disconnected before its handshake"),
                },
                Err(_) => log_refusal(&refusals, address, "timeout", "no handshake in time"),
            }
            None
        });
    }
}

fn log_refusal(refusals: &Refusals, peer: SocketAddr, kind: &'static str, reason: &str) {
    if let Some(suppressed) = refusals.warning(peer.ip(), kind, Instant::now()) {
        tracing::warn!(%peer, suppressed, reason, "connection refused");
    }
}

/// Why a handshake failed, as a kind and in words; `None` for peers that just
/// disconnected, as port probes do.
fn why(error: &io::Error) -> Option<(&'static str, String)> {
    Some(
        match error.get_ref().and_then(|inner| inner.downcast_ref())? {
            TlsError::InvalidMessage(_) => {
                ("plain text", "it does not use TLS (plain text?)".to_owned())
            }
            TlsError::NoCertificatesPresented => {
                ("no certificate", "it showed no certificate".to_owned())
            }
            e @ TlsError::InvalidCertificate(_) => {
                ("certificate", format!("its certificate {}", explain(e)))
            }
            TlsError::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::DecryptError,
            ) => {
                let why =
                    "it does not take our certificate: another authority, another role, or expired";
                ("not trusted", why.to_owned())
            }
            other => ("handshake", other.to_string()),
        },
    )
}

impl Stream for TlsAcceptor {
    type Item = io::Result<Conn>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                if pause.as_mut().poll(context).is_pending() {
                    break;
                }
                this.pause = None;
            }
            match this.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, address))) => this.on_accept(stream, address),
                Poll::Ready(Err(error)) => {
                    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
                    log_refusal(&this.refusals, unspecified, "accept", &error.to_string());
                    this.pause = Some(Box::pin(sleep(PAUSE)));
                }
                Poll::Pending => break,
            }
        }
        loop {
            if let Some(conn) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(conn)));
            }
            match this.handshakes.poll_join_next(context) {
                Poll::Ready(Some(ended)) => this.ready.extend(ended.ok().flatten()),
                // The listener wakes this task for further connections.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Open connections per address.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Places {
    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&address).copied().unwrap_or(0);
        if own >= CONNECTIONS_PER_ADDRESS || all >= CONNECTIONS {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Place {
            places: self.clone(),
            address,
        })
    }
}

/// One connection's place, freed on drop.
#[derive(Debug)]
struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// The bytes of a connection, after decryption if it is encrypted.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// An accepted connection.
pub struct Conn {
    stream: Box<dyn ByteStream>,
    peer: Peer,
    /// Deadline for the first byte.
    first: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Conn {
    fn new(stream: impl ByteStream + 'static, peer: Peer, place: Place) -> Self {
        Self {
            stream: Box::new(stream),
            peer,
            first: Some(Box::pin(sleep(FIRST_BYTE))),
            _place: place,
        }
    }

    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conn").field(&self.peer).finish()
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        match &mut this.first {
            Some(first) if polled.is_pending() => {
                if first.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            _ => this.first = None,
        }
        polled
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_address_are_limited_and_freed_on_drop() {
        let places = Places::default();
        let [one, two]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let mut held: Vec<Place> = (0..CONNECTIONS_PER_ADDRESS)
            .map(|_| places.take(one).unwrap())
            .collect();
        assert!(places.take(one).is_none());
        let other = places.take(two).unwrap();
        held.pop();
        held.push(places.take(one).unwrap());
        assert!(places.take(one).is_none());
        drop(held);
        drop(other);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
