//! Accepts connections and refuses peers that do not belong to the cluster.
//!
//! A connection is handed on once it is open: after its TLS handshake, and on a gRPC port after
//! the whole preface of HTTP/2. From there on the server's keep-alive finds peers that are
//! silent. tonic could do the handshakes itself, but would not log failures, limit their
//! time, or count connections.

use super::crowd::Waiting;
use super::identity::explain;
use super::places::{Place, Places};
use super::refusals::Refusals;
use super::role::Roles;
use crate::transport::calls::held::Held;
use rustls::{AlertDescription, Error as TlsError, ServerConfig};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// From the accept until the connection is open, which takes a few milliseconds.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A peer has to read something within this time while we have more for it.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// After a failed accept, mostly for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// What every client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// What its certificate names; `None` without TLS.
    pub roles: Option<Roles>,
}

/// One connection, as its calls see it.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) peer: Peer,
    /// What its calls share.
    pub(crate) held: Held,
}

impl Connection {
    /// A place for a stream of large replies, freed on drop; `None` if this connection has too
    /// many. Each holds a few megabytes while the peer does not read.
    #[must_use]
    pub fn reply_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.held.reply_stream()
    }
}

/// What a port serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 from the first byte on.
    Grpc,
    /// HTTP/1.1; its server limits the time of a request's head.
    Http,
}

/// A listener that yields connections once they are open.
pub struct TlsAcceptor {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    protocol: Protocol,
    places: Places,
    refusals: Arc<Refusals>,
    opening: JoinSet<Option<Conn>>,
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
        protocol: Protocol,
        places: Places,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            listener,
            tls: tls.map(tokio_rustls::TlsAcceptor::from),
            protocol,
            places,
            refusals,
            opening: JoinSet::new(),
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
        let (tls, protocol) = (self.tls.clone(), self.protocol);
        if tls.is_none() && protocol == Protocol::Http {
            let roles = None;
            let conn = Conn::new(Box::new(stream), Peer { address, roles }, protocol, place);
            return self.ready.push_back(conn);
        }
        let crowd = place.opening();
        let refusals = Arc::clone(&self.refusals);
        self.opening.spawn(async move {
            match opened(stream, tls, protocol, crowd).await {
                Ok((stream, roles)) => {
                    let peer = Peer { address, roles };
                    return Some(Conn::new(stream, peer, protocol, place));
                }
                Err(NotOpened::Refused(what, reason)) => {
                    log_refusal(&refusals, address, what, &reason);
                }
                Err(NotOpened::Left(error)) => {
                    tracing::debug!(%address, %error, "disconnected before it was open");
                }
            }
            None
        });
    }
}

/// Why a connection did not open.
enum NotOpened {
    /// The peer disconnected, as port probes do.
    Left(io::Error),
    /// A kind of refusal, and the reason in words.
    Refused(&'static str, String),
}

type Open = (Box<dyn ByteStream>, Option<Roles>);

/// Opens a connection, unless that takes too long or newer ones need its room.
async fn opened(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    protocol: Protocol,
    crowd: Waiting,
) -> Result<Open, NotOpened> {
    let refused = |kind, reason: &str| Err(NotOpened::Refused(kind, reason.to_owned()));
    tokio::select! {
        open = timeout(OPEN_WITHIN, open(stream, tls, protocol)) => open.unwrap_or_else(|_| {
            refused("timeout", "no handshake and no request in time")
        }),
        () = crowd => {
            refused("crowd", "it had said nothing yet when newer connections needed its place")
        }
    }
}

async fn open(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    protocol: Protocol,
) -> Result<Open, NotOpened> {
    let (mut stream, roles): Open = match tls {
        None => (Box::new(stream), None),
        Some(tls) => {
            let stream = tls.accept(stream).await.map_err(why)?;
            let shown = stream.get_ref().1.peer_certificates();
            let own = shown.and_then(<[_]>::first);
            let roles = own.map_or(Roles::default(), Roles::of_certificate);
            (Box::new(stream), Some(roles))
        }
    };
    if protocol == Protocol::Grpc {
        preface(&mut stream).await?;
    }
    Ok((stream, roles))
}

/// Reads the preface of HTTP/2.
async fn preface(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), NotOpened> {
    let mut read = 0;
    let mut bytes = [0; PREFACE.len()];
    while read < bytes.len() {
        let more = stream.read(&mut bytes[read..]).await;
        let more = more.map_err(NotOpened::Left)?;
        if more == 0 {
            return Err(NotOpened::Left(io::ErrorKind::UnexpectedEof.into()));
        }
        read += more;
        if !PREFACE.starts_with(&bytes[..read]) {
            let reason = match bytes[0] {
                TLS_HANDSHAKE => "it uses TLS, and this service has no certificates (cluster.cert)",
                _ => "it does not speak HTTP/2, which gRPC needs",
            };
            return Err(NotOpened::Refused("protocol", reason.to_owned()));
        }
    }
    Ok(())
}

fn log_refusal(refusals: &Refusals, peer: SocketAddr, kind: &'static str, reason: &str) {
    if let Some(suppressed) = refusals.warning(peer.ip(), kind, Instant::now()) {
        tracing::warn!(%peer, suppressed, reason, "connection refused");
    }
}

/// Why a handshake failed.
fn why(error: io::Error) -> NotOpened {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(inner) = inner else {
        return NotOpened::Left(error);
    };
    let (kind, reason) = match inner {
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
    };
    NotOpened::Refused(kind, reason)
}

impl Stream for TlsAcceptor {
    type Item = io::Result<Conn>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // One that is ready first: its server may make room for those that wait.
        while this.ready.is_empty() {
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
            match this.opening.poll_join_next(context) {
                Poll::Ready(Some(ended)) => this.ready.extend(ended.ok().flatten()),
                // The listener wakes this task for further connections.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
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
    /// What is left of the preface, which has been read from the stream, for the server to read.
    preface: &'static [u8],
    unread: Stall,
    held: Held,
    _place: Place,
}

impl Conn {
    fn new(stream: Box<dyn ByteStream>, peer: Peer, protocol: Protocol, place: Place) -> Self {
        let preface = match protocol {
            Protocol::Grpc => PREFACE,
            Protocol::Http => &[],
        };
        Self {
            stream,
            peer,
            preface,
            unread: Stall::new(READ_WITHIN),
            held: Held::new(peer.address.ip()),
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
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection {
            peer: self.peer,
            held: self.held.clone(),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.preface.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let read = this.preface.len().min(buffer.remaining());
        let (now, later) = this.preface.split_at(read);
        buffer.put_slice(now);
        this.preface = later;
        Poll::Ready(Ok(()))
    }
}

/// How long the peer has not read, while we wait to write.
struct Stall {
    within: Duration,
    since: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(within: Duration) -> Self {
        let since = None;
        Self { within, since }
    }

    /// The result of a write, or an error once writes have been pending for too long.
    fn poll<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.since = None;
            return written;
        }
        let within = self.within;
        let since = self.since.get_or_insert_with(|| Box::pin(sleep(within)));
        let late = |()| Err(io::ErrorKind::TimedOut.into());
        since.as_mut().poll(context).map(late)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.unread.poll(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.unread.poll(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.unread.poll(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.unread.poll(shut, context)
    }
}

#[cfg(test)]
#[path = "tls_acceptor_tests.rs"]
mod tests;
