//! Who may talk to whom, on every channel and every server.
//!
//! Three locks, each by itself: TLS in which both sides show a certificate of the
//! cluster's authority (`identity`); the role that the certificate names, held
//! against one table of who may call what (`access`); and a join token (`token`).
//! Whoever is refused gets a sentence that says why, and so does the log (`refusals`).
//! `docs/security.md` says against whom this helps.
//!
//! - [`Role`], [`Roles`]: learner, replay, actor, evaluator, operator, monitor.
//! - [`Door`]: takes connections: handshakes, their time and number.
//! - [`Guard`]: looks at every call.
//! - [`issue`]: makes authorities, certificates and tokens.

mod access;
mod door;
mod guard;
mod identity;
pub mod issue;
mod refusals;
mod role;
pub(crate) mod token;

pub use door::{Conn, Door, Peer};
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

/// A certificate that ends sooner is warned of at the start.
const DAYS_SOON: u64 = 30;

/// Of a path that a caller made up, so much goes to the log.
const PATH_SHOWN: usize = 100;

/// Files that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("config key \"{key}\": cannot read {}: {source}; `landmarl certs --out DIR` makes such files", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file holds what does not fit.
    #[error("config key \"{key}\": {} {why}", path.display())]
    Unfit {
        key: &'static str,
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A token that is none.
    #[error("config key \"cluster.token_file\": {} {why}; `landmarl certs --out DIR` makes one", path.display())]
    Token {
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The paths of TLS, all given.
#[derive(Debug, Clone, Copy)]
struct Keys<'a> {
    ca: &'a str,
    cert: &'a str,
    key: &'a str,
}

/// What a process knows to prove who it is, and to ask others. Cheap to clone.
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
    /// Neither TLS nor token: inside one process, and on loopback.
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
        // The configuration has made sure that it is all three or none.
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

    /// Whole days for which the certificate of this process holds; `None` without TLS.
    #[must_use]
    pub fn days_left(&self) -> Option<u64> {
        self.identity.as_ref().map(|i| i.days_left)
    }

    /// A channel to `host:port`, where a server in this role is expected; it
    /// connects with the first call and again after every loss. Needs a tokio
    /// runtime around it.
    ///
    /// # Errors
    /// When the address is none.
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

    /// What looks at every call of a server.
    #[must_use]
    pub fn guard(&self) -> GuardLayer {
        GuardLayer::new(self.clone())
    }

    /// Whether this path (of an RPC, or over HTTP) may be asked for by a caller
    /// who showed this `authorization` and a certificate of these roles
    /// ([`Peer::roles`]); without TLS there are none, and the token alone counts.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn admit(
        &self,
        path: &str,
        authorization: Option<&[u8]>,
        roles: Option<Roles>,
    ) -> Result<(), Denied> {
        let needed = access::needed(path);
        // Behind TLS somebody of unknown roles has none.
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

    /// Logs what protects this process, and warns of a certificate that soon expires.
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

    /// Takes connections of a listener.
    pub(crate) fn door(&self, listener: tokio::net::TcpListener) -> Door {
        Door::new(listener, self.server_tls(), Arc::clone(&self.refusals))
    }

    /// Takes connections of an HTTP listener.
    #[must_use]
    pub fn http_door(&self, listener: tokio::net::TcpListener) -> Door {
        Door::new(listener, self.rustls_server(), Arc::clone(&self.refusals))
    }

    /// Logs that a peer was denied something, once per interval for each peer and kind.
    pub fn log_refusal(&self, peer: SocketAddr, denied: &Denied) {
        if let Some(unsaid) = self.refusal_warning(peer.ip(), denied.kind()) {
            tracing::warn!(%peer, unsaid, reason = %denied, "call refused");
        }
    }

    /// Where a refusal of this kind is to be logged now, the number of those suppressed before it.
    pub(crate) fn refusal_warning(&self, peer: IpAddr, kind: &'static str) -> Option<u64> {
        self.refusals.warning(peer, kind, Instant::now())
    }
}

#[cfg(test)]
mod tests;
