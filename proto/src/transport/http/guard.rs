//! Lets a request pass to its route once it names this service, its peer may send it, and all of
//! it has arrived.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tonic::Code;

use super::hosts::{Foreign, Hosts};
use super::places::Moves;
use crate::transport::security::{Peer, Security};

/// Every body is short: a log level.
const BODY_BYTES_MAX: usize = 4096;
/// How long a client may take to send the body of a request.
const BODY: Duration = Duration::from_secs(15);

/// Paths that any machine may read on a service without certificates and token.
const OPEN: [&str; 2] = ["/health", "/metrics"];

/// What requests are checked against. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) security: Security,
    pub(super) hosts: Hosts,
}

/// Refuses requests for other hosts, for paths that the peer may not call, and without their body.
pub(super) async fn guard(
    State(gate): State<Gate>,
    Extension(peer): Extension<Peer>,
    Extension(moves): Extension<Moves>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(refusal) = gate.refusal(&peer, &request) {
        return refusal;
    }
    let (head, body) = request.into_parts();
    // Here, so that a route never waits for its client.
    match timeout(BODY, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => {
            moves.set_answering(true);
            let response = next.run(Request::from_parts(head, Body::from(body))).await;
            moves.set_answering(false);
            response
        }
        Ok(Err(error)) => {
            let why =
                format!("the body cannot be read ({error}); it may have {BODY_BYTES_MAX} bytes\n");
            (StatusCode::PAYLOAD_TOO_LARGE, why).into_response()
        }
        Err(_) => {
            let why = "the body did not arrive in time\n";
            (StatusCode::REQUEST_TIMEOUT, why).into_response()
        }
    }
}

impl Gate {
    fn refusal(&self, peer: &Peer, request: &Request) -> Option<Response> {
        let path = request.uri().path();
        let named = self
            .hosts
            .check(request.uri(), request.headers(), &self.security);
        if let Err(foreign) = named {
            self.log_foreign(peer, &foreign);
            return Some((foreign.status(), format!("{foreign}\n")).into_response());
        }
        let proven = self.security.has_tls() || self.security.has_token();
        let here = peer.address.ip().to_canonical().is_loopback();
        if !proven && !here && !OPEN.contains(&path) {
            let why = "from another machine this needs certificates or a token, and this service has neither \
                       (cluster.cert, cluster.token_file)\n";
            let address = peer.address.ip();
            if let Some(suppressed) = self.security.refusal_warning(address, "http") {
                tracing::warn!(peer = %address, suppressed, path, "HTTP request refused");
            }
            return Some((StatusCode::FORBIDDEN, why).into_response());
        }
        let shown = request.headers().get(AUTHORIZATION);
        let shown = shown.map(HeaderValue::as_bytes);
        let denied = self.security.admit(path, shown, peer.roles).err()?;
        self.security.log_refusal(peer.address, &denied);
        let status = match denied.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        Some((status, format!("{denied}\n")).into_response())
    }

    fn log_foreign(&self, peer: &Peer, foreign: &Foreign) {
        let address = peer.address.ip();
        if let Some(suppressed) = self.security.refusal_warning(address, "http host") {
            tracing::warn!(peer = %address, suppressed, reason = %foreign, "HTTP request refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let warning = *event.metadata().level() == Level::WARN;
            self.0.fetch_add(usize::from(warning), Ordering::Relaxed);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn an_unauthenticated_peer_that_requests_many_paths_does_not_fill_the_log() {
        let warnings = Warnings::default();
        let _scope = tracing::subscriber::set_default(warnings.clone());
        let peer = Peer {
            address: "203.0.113.7:1234".parse().unwrap(),
            roles: None,
        };
        let gate = Gate {
            security: Security::none(),
            hosts: Hosts::default(),
        };
        let router = Router::new()
            .layer(from_fn_with_state(gate, guard))
            .layer(Extension(peer))
            .layer(Extension(Moves::default()));
        let service = TowerToHyperService::new(router);
        for (host, warned) in [("localhost", 1), ("evil.example", 2)] {
            for number in 0..20 {
                let path = format!("/{number}");
                let request = Request::builder().uri(path).header("host", host);
                let request = request.body(Body::empty()).unwrap();
                let response = service.call(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
            }
            assert_eq!(warnings.0.load(Ordering::Relaxed), warned);
        }
    }
}
