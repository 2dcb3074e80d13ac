//! Authentication and authorisation of every channel and every server.
//!
//! Three independent checks: mutual TLS with certificates of the cluster's
//! authority (`identity`); the role that the certificate names, looked up in one
//! table of who may call what (`access`); and a join token (`token`).
//! Every refusal is explained to the caller and in the log (`refusals`).
//! `docs/security.md` describes the threat model.
//!
//! - [`Role`], [`Roles`]: learner, replay, actor, evaluator, operator, monitor.
//! - [`TlsAcceptor`]: accepts connections; limits their number (`places`) and the time until
//!   they are open.
//! - [`Guard`]: checks every call.
//! - [`issue`]: makes authorities, certificates and tokens.

mod access;
pub(crate) mod crowd;
mod guard;
mod identity;
pub mod issue;
mod places;
mod refusals;
mod role;
mod tls_acceptor;
pub(crate) mod token;

pub use guard::{Denied, Guard, GuardLayer};
pub(crate) use places::http_served;
pub use role::{Role, Roles, UnknownRole};
pub use tls_acceptor::{Conn, Connection, Peer, TlsAcceptor};
pub use token::Bearer;

use crate::transport::endpoint::{AddressError, Channel, endpoint};
use common::config::ClusterConfig;
use common::run::machine;
use identity::Identity;
use places::Places;
use refusals::Refusals;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tls_acceptor::Protocol;
use token::Tokens;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;

/// A certificate that expires sooner causes a warning at the start.
const DAYS_SOON: u64 = 30;

/// Fewer connections than this cause a warning at the start.
const CONNECTIONS_FEW: usize = 1024;

/// Characters of a refused path that the error and the log show.
const PATH_SHOWN: usize = 100;

/// Why a certificate, key or token file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("config key \"{key}\": cannot read {}: {source}; `landmarl certs --out DIR` makes such files", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("config key \"{key}\": {} {why}", path.display())]
    Unfit {
        key: &'static str,
        path: PathBuf,
        why: String,
    },
}

fn unfit(key: &'static str, path: &str, why: String) -> SecurityError {
    let path = path.into();
    SecurityError::Unfit { key, path, why }
}

fn read(key: &'static str, path: &str) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read {
        key,
        path: path.into(),
        source,
    })
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
    pub fn from_config(cluster: &ClusterConfig) -> Result<Self, SecurityError> {
        // The configuration ensures that all three TLS files are set, or none.
        let identity = (!cluster.ca.is_empty())
            .then(|| Identity::read(cluster))
            .transpose()?;
        let path = &cluster.token_file;
        let tokens = (!path.is_empty()).then(|| Tokens::read(path)).transpose()?;
        Ok(Self {
            identity: identity.map(Arc::new),
            tokens: Arc::new(tokens.unwrap_or_default()),
            refusals: Arc::default(),
        })
    }

    /// Whether connections use mutual TLS.
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

    /// Whether the certificate of this process names this host; false without TLS.
    pub(crate) fn certificate_names(&self, host: &str) -> bool {
        self.identity.as_ref().is_some_and(|i| i.names(host))
    }

    /// A channel to `host:port`, whose server must have the role `server`; it
    /// connects on the first call and reconnects after failures. Must be called
    /// within a tokio runtime.
    pub fn connect(&self, address: &str, server: Role) -> Result<Channel, AddressError> {
        let endpoint = match &self.identity {
            None => endpoint(address, "http")?,
            Some(identity) => endpoint(address, "https")?
                .tls_config(identity.client(server.dns_name()))
                .map_err(|source| AddressError::new(address, source))?,
        };
        let bearer = self.tokens.bearer.clone();
        Ok(InterceptedService::new(endpoint.connect_lazy(), bearer))
    }

    /// The layer that checks every call of a server.
    #[must_use]
    pub fn guard(&self) -> GuardLayer {
        GuardLayer(self.clone())
    }

    /// Checks whether a caller with this `authorization` and a certificate of these
    /// roles ([`Peer::roles`]) may call this path (of an RPC, or over HTTP); without
    /// TLS there are no roles, and the token alone counts.
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
                "the certificate of this process ends soon: make new ones with `landmarl certs` and restart"
            );
        }
        if identity.key_is_public {
            tracing::warn!("every user of this machine can read cluster.key: chmod 600");
        }
    }

    /// Accepts gRPC connections, and warns if the limit on open files allows only few.
    pub(crate) fn grpc_acceptor(&self, listener: TcpListener) -> TlsAcceptor {
        let (places, files) = (Places::grpc(), machine::open_files_max());
        let (connections, per_address) = (places.limits().connections, places.limits().per_address);
        if connections < CONNECTIONS_FEW {
            tracing::warn!(
                files,
                connections,
                per_address,
                "few files may be open at once, and so few connections: raise the hard limit (ulimit -n)"
            );
        }
        let tls = self.identity.as_ref().map(|i| Arc::clone(&i.grpc));
        let refusals = Arc::clone(&self.refusals);
        TlsAcceptor::new(listener, tls, Protocol::Grpc, places, refusals)
    }

    /// Accepts HTTP connections; with TLS, clients show a certificate here too.
    pub(crate) fn http_acceptor(&self, listener: TcpListener) -> TlsAcceptor {
        let tls = self.identity.as_ref().map(|i| Arc::clone(&i.http));
        let refusals = Arc::clone(&self.refusals);
        TlsAcceptor::new(listener, tls, Protocol::Http, Places::http(), refusals)
    }

    /// Logs a refusal, at most once per interval for each peer and kind.
    pub fn log_refusal(&self, peer: SocketAddr, denied: &Denied) {
        if let Some(suppressed) = self.refusal_warning(peer.ip(), denied.kind()) {
            tracing::warn!(%peer, suppressed, reason = %denied, "call refused");
        }
    }

    /// The number of refusals suppressed before this one; `None` if it should not be logged now.
    pub(crate) fn refusal_warning(&self, peer: IpAddr, kind: &'static str) -> Option<u64> {
        self.refusals.warning(peer, kind, Instant::now())
    }
}

#[cfg(test)]
pub(crate) mod tests;
