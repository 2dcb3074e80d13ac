//! Checks every call before it reaches its service: the caller's role, then its token.

use super::role::Roles;
use super::tls_acceptor::Connection;
use super::{Security, token};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tower_layer::Layer;

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "a certificate of {roles} may not call {path}, which is for {allowed}; \
         give each process the certificate of its own role (cluster.cert, cluster.key)"
    )]
    Role {
        path: String,
        /// The roles that the caller's certificate names.
        roles: Roles,
        allowed: Roles,
    },
    #[error(
        "no join token came with the call; set cluster.token_file to a copy of the cluster's token"
    )]
    NoToken,
    #[error(
        "the join token that came with the call is not this cluster's; set cluster.token_file to a copy of the cluster's token"
    )]
    WrongToken,
}

impl Denied {
    /// The gRPC status code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Role { .. } => Code::PermissionDenied,
            Self::NoToken | Self::WrongToken => Code::Unauthenticated,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Role { .. } => "role",
            Self::NoToken => "no token",
            Self::WrongToken => "wrong token",
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::new(denied.code(), denied.to_string())
    }
}

/// Puts a [`Guard`] before each service.
#[derive(Debug, Clone)]
pub struct GuardLayer(pub(super) Security);

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            security: self.0.clone(),
        }
    }
}

/// A service that only permitted calls reach.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    security: Security,
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.security).finish()
    }
}

type ResponseFuture<B, E> = Pin<Box<dyn Future<Output = Result<http::Response<B>, E>> + Send>>;

impl<S, A, B> Service<http::Request<A>> for Guard<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Default + Send + 'static,
{
    type Response = http::Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<B, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let peer = request.extensions().get::<Connection>().map(|c| c.peer);
        let shown = request.headers().get(token::HEADER);
        let shown = shown.map(http::HeaderValue::as_bytes);
        let roles = peer.and_then(|peer| peer.roles);
        let Err(denied) = self.security.admit(request.uri().path(), shown, roles) else {
            return Box::pin(self.inner.call(request));
        };
        if let Some(peer) = peer {
            self.security.log_refusal(peer.address, &denied);
        }
        let response = Status::from(denied).into_http();
        Box::pin(std::future::ready(Ok(response)))
    }
}
