//! Authorises and serves HTTP connections. The acceptor limits their number.

use std::future::Future;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::transport::security::{Conn, Peer, Security};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How long open requests may take after the stop signal.
const GRACE: Duration = Duration::from_secs(3);

/// Paths that any machine may read on a service without certificates and token.
const OPEN: [&str; 2] = ["/health", "/metrics"];

/// Serves `router` on `listener` until `shutdown`, then gives open requests a
/// few seconds to finish. Every request carries its [`Peer`] and has passed the
/// access table.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    security: &Security,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = router.layer(from_fn_with_state(security.clone(), guard));
    let mut acceptor = security.http_acceptor(listener);
    let graceful = GracefulShutdown::new();
    let mut open = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let conn = tokio::select! {
            conn = acceptor.next() => conn,
            Some(_) = open.join_next() => continue,
            () = &mut shutdown => break,
        };
        // The acceptor logs why it refuses a connection, and never ends.
        let Some(Ok(conn)) = conn else { continue };
        let (router, watcher) = (router.clone(), graceful.watcher());
        open.spawn(requests(conn, router, watcher));
    }
    drop(acceptor);
    let _ = timeout(GRACE, graceful.shutdown()).await;
    open.shutdown().await;
}

type Watcher = hyper_util::server::graceful::Watcher;

async fn requests(conn: Conn, router: Router, watcher: Watcher) {
    let peer = conn.peer();
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(conn), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(address = %peer.address, %error, "an HTTP connection ended early");
    }
}

/// Refuses requests for paths that the peer may not call.
async fn guard(
    State(security): State<Security>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let proven = security.has_tls() || security.has_token();
    let here = peer.address.ip().to_canonical().is_loopback();
    if !proven && !here && !OPEN.contains(&path) {
        let why = "from another machine this needs certificates or a token, and this service has neither \
                   (cluster.cert, cluster.token_file)\n";
        let address = peer.address.ip();
        if let Some(suppressed) = security.refusal_warning(address, "http") {
            tracing::warn!(peer = %address, suppressed, path, "HTTP request refused");
        }
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown.map(HeaderValue::as_bytes);
    let Err(denied) = security.admit(path, shown, peer.roles) else {
        return next.run(request).await;
    };
    security.log_refusal(peer.address, &denied);
    let status = match denied.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        _ => StatusCode::FORBIDDEN,
    };
    (status, format!("{denied}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use hyper::service::Service as _;
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
        let router = Router::new()
            .layer(from_fn_with_state(Security::none(), guard))
            .layer(Extension(peer));
        let service = TowerToHyperService::new(router);
        for number in 0..20 {
            let path = format!("/{number}");
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = service.call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
        }
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    }
}
