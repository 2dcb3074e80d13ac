//! Who may talk to whom, on every channel and every server.
//!
//! Three independent checks: mutual TLS with certificates of the cluster's
//! authority (`identity`); the role that the certificate names, looked up in one
//! table of who may call what (`access`); and a join token (`token`).
//! Every refusal is explained to the caller and in the log (`refusals`).
//! `docs/security.md` describes the threat model.
//!
//! - [`Role`], [`Roles`]: learner, replay, actor, evaluator, operator, monitor.
//! - [`TlsAcceptor`]: accepts connections, limiting handshake time and number.
//! - [`Guard`]: checks every call.
//! - [`issue`]: makes authorities, certificates and tokens.

mod access;
mod door;
mod guard;
mod identity;
pub mod issue;
mod refusals;
mod role;
pub(crate) mod token;

pub use door::{Conn, Peer, TlsAcceptor};
pub use guard::{Denied, Guard, GuardLayer};
pub use role::{Role, Roles, UnknownRole};
pub use token::Bearer;

use crate::transport::endpoint::{AddressError, Channel, endpoint};
use common::config::ClusterConfig;
use identity::Identity;
use refusals::Refusals;
use rustls::ServerConfig;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use token::Tokens;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

/// A certificate that expires sooner causes a warning at the start.
const DAYS_SOON: u64 = 30;

/// Characters of a refused path that the error and the log show.
const PATH_SHOWN: usize = 100;

/// Why a certificate, key or token file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("config key \"{key}\": cannot read {}: {source}; `landmarl certs --out DIR` makes such files", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file's contents are invalid.
    #[error("config key \"{key}\": {} {why}", path.display())]
    Unfit {
        key: &'static str,
        path: PathBuf,
        why: String,
    },
    /// The token file holds no valid token.
    #[error("config key \"cluster.token_file\": {} {why}; `landmarl certs --out DIR` makes one", path.display())]
    Token { path: PathBuf, why: &'static str },
}

/// Paths of the TLS files, all configured.
#[derive(Debug, Clone, Copy)]
struct Keys<'a> {
    ca: &'a str,
    cert: &'a str,
    key: &'a str,
}

/// The credentials of a process, and the checks of its peers' credentials. Cheap to clone.
#[derive(Clone, Default)]
pub struct Security {
    identity: Option<Arc<Identity>>,
    tokens: Arc<Tokens>,
    refusals: Arc<Refusals>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security")
            .field("roles", &self.identity.as_ref().map(|i| i.roles))
            .field("token", &self.tokens.is_some())
            .finish()
    }
}

impl Security {
    /// Neither TLS nor token: for use within one process or on loopback.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the files that `[cluster]` names, if any, and checks that they fit together.
    ///
    /// # Errors
    /// See [`SecurityError`]; each names the key of the configuration.
    pub fn from_config(cluster: &ClusterConfig) -> Result<Self, SecurityError> {
        let keys = Keys {
            ca: &cluster.ca,
            cert: &cluster.cert,
            key: &cluster.key,
        };
        // The configuration ensures that all three are set, or none.
        let identity = (!keys.ca.is_empty())
            .then(|| Identity::read(&keys))
            .transpose()?;
        let path = &cluster.token_file;
        let tokens = (!path.is_empty()).then(|| Tokens::read(path)).transpose()?;
        Ok(Self {
            identity: identity.map(Arc::new),
            tokens: Arc::new(tokens.unwrap_or_default()),
            refusals: Arc::default(),
        })
    }

    /// Whether connections are encrypted and both sides prove who they are.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether callers must show a join token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whole days until the certificate of this process expires; `None` without TLS.
    #[must_use]
    pub fn days_left(&self) -> Option<u64> {
        self.identity.as_ref().map(|i| i.days_left)
    }

    /// A channel to `host:port`, whose server must have the role `server`; it
    /// connects on the first call and reconnects after failures. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// When the address is invalid.
    pub fn connect(&self, address: &str, server: Role) -> Result<Channel, AddressError> {
        let channel = self.endpoint(address, server)?.connect_lazy();
        Ok(InterceptedService::new(channel, self.tokens.bearer.clone()))
    }

    fn endpoint(&self, address: &str, server: Role) -> Result<Endpoint, AddressError> {
        let Some(identity) = &self.identity else {
            return endpoint(address, "http");
        };
        endpoint(address, "https")?
            .tls_config(identity.client(server.dns_name()))
            .map_err(|source| AddressError::new(address, source))
    }

    /// TLS of the gRPC side of a service.
    #[must_use]
    pub fn server_tls(&self) -> Option<Arc<ServerConfig>> {
        self.identity.as_ref().map(|i| Arc::clone(&i.grpc))
    }

    /// TLS of the HTTP side of a service (HTTP/1.1); clients show a certificate too.
    #[must_use]
    pub fn rustls_server(&self) -> Option<Arc<ServerConfig>> {
        self.identity.as_ref().map(|i| Arc::clone(&i.http))
    }

    /// The layer that checks every call of a server.
    #[must_use]
    pub fn guard(&self) -> GuardLayer {
        GuardLayer::new(self.clone())
    }

    /// Checks whether a caller with this `authorization` and a certificate of these
    /// roles ([`Peer::roles`]) may call this path (of an RPC, or over HTTP); without
    /// TLS there are no roles, and the token alone counts.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn admit(
        &self,
        path: &str,
        authorization: Option<&[u8]>,
        roles: Option<Roles>,
    ) -> Result<(), Denied> {
        let needed = access::needed(path);
        // With TLS, a peer of unknown roles has none.
        let unknown = self.has_tls().then(Roles::default);
        if let Some(roles) = roles.or(unknown) {
            let allowed = needed.map_or(Roles::default(), |(roles, _)| roles);
            if !roles.overlap(allowed) {
                return Err(Denied::Role {
                    path: path.chars().take(PATH_SHOWN).collect(),
                    roles,
                    allowed,
                });
            }
        }
        let asked = needed.is_none_or(|(_, token)| token) && self.tokens.is_some();
        match authorization {
            _ if !asked => Ok(()),
            None => Err(Denied::NoToken),
            Some(shown) if self.tokens.accept(shown) => Ok(()),
            Some(_) => Err(Denied::WrongToken),
        }
    }

    /// Logs whether TLS and a token are in use, and warns if the certificate expires soon.
    pub fn log_state(&self) {
        let token = self.tokens.is_some();
        let Some(identity) = &self.identity else {
            return tracing::debug!(token, "no TLS");
        };
        let days = identity.days_left;
        tracing::info!(roles = %identity.roles, token, days, "TLS with certificates on both sides");
        if days < DAYS_SOON {
            tracing::warn!(
                days,
                "the certificate of this process ends soon, and connections with it: make new ones with `landmarl certs` and restart"
            );
        }
        if identity.key_is_public {
            tracing::warn!("cluster.key can be read by everybody on this machine: chmod 600");
        }
    }

    /// Accepts gRPC connections.
    pub(crate) fn grpc_acceptor(&self, listener: tokio::net::TcpListener) -> TlsAcceptor {
        TlsAcceptor::new(listener, self.server_tls(), Arc::clone(&self.refusals))
    }

    /// Accepts HTTP connections.
    #[must_use]
    pub fn http_acceptor(&self, listener: tokio::net::TcpListener) -> TlsAcceptor {
        TlsAcceptor::new(listener, self.rustls_server(), Arc::clone(&self.refusals))
    }

    /// Logs a refusal, at most once per interval for each peer and kind.
    pub fn log_refusal(&self, peer: SocketAddr, denied: &Denied) {
        if let Some(unsaid) = self.refusal_warning(peer.ip(), denied.kind()) {
            tracing::warn!(%peer, unsaid, reason = %denied, "call refused");
        }
    }

    /// The number of refusals suppressed before this one; `None` if it should not be logged now.
    pub(crate) fn refusal_warning(&self, peer: IpAddr, kind: &'static str) -> Option<u64> {
        self.refusals.warning(peer, kind, Instant::now())
    }
}

#[cfg(test)]
mod tests;
