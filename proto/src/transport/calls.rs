//! What the calls of a peer may hold in memory before their service has seen them.
//!
//! One layer, behind the check of the caller, wraps the body of every request:
//!
//! - [`methods`]: how large a message of each method may be. A larger one is refused once its
//!   length is announced, before its bytes arrive.
//! - [`budget`]: larger messages share a number of bytes per connection, address and process; the
//!   body of one that does not fit is not read until others are whole.
//! - [`body`]: a message that has begun must be whole within a time, and where too many requests
//!   are not whole the oldest ends.
//! - [`replies`]: large replies are counted until they are written; while a peer does not read
//!   them, its next call does not begin. The pieces of weights and checkpoints have a budget too.
//!
//! What HTTP/2 itself holds is limited by the windows of `channel::server_builder`.

mod body;
mod budget;
pub(super) mod held;
mod methods;
mod replies;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tower_layer::Layer;

use crate::transport::security::Connection;
use body::{Bounded, Share};
use held::Held;
use methods::Reply;
use replies::Streamed;

/// Puts [`Calls`] before each service.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallsLayer;

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner }
    }
}

/// A service whose requests are bounded.
#[derive(Clone)]
pub(super) struct Calls<S> {
    inner: S,
}

impl<S> fmt::Debug for Calls<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for Calls<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<Connection>();
        let address = connection.map(|c| c.peer.address.ip());
        // Absent where the call does not come from a socket.
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let held = connection.map(|c| c.held.clone());
        let held = held.unwrap_or_else(|| Held::new(address));
        let Held {
            budget,
            replies,
            unread,
            ..
        } = held;
        let method = methods::of(request.uri().path());
        let share = Share::default();
        let reserved = Share::clone(&share);
        let bound = |body| Body::new(Bounded::new(body, method, address, budget, reserved));
        let response = self.inner.call(request.map(bound));
        let response = async move {
            let response = response.await;
            drop(share);
            response
        };
        match method.reply {
            Reply::Small => Box::pin(response),
            Reply::Large => Box::pin(unread.count(response)),
            Reply::Stream => Box::pin(async {
                let response = response.await?;
                Ok(response.map(|body| Body::new(Streamed::new(body, replies))))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
