//! Accepts and serves HTTP connections, up to a limit.
//!
//! Connections whose clients say nothing must not keep others out. So the limit refuses nobody: a
//! new connection takes the place of another: of those of the address with the most, the one that was
//! silent for the longest time.

use std::future::Future;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use super::guard::{Gate, guard};
use super::hosts::Hosts;
use super::places::{Moves, Places, Watched};
use crate::transport::security::{Conn, Security, http_served};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How long open requests may take after the stop signal.
const GRACE: Duration = Duration::from_secs(3);

/// Serves `router` on `listener` until `shutdown`, then gives open requests a few seconds to
/// finish. Every request carries its `Peer`, names one of `hosts`, and has passed the access
/// table.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    security: &Security,
    hosts: &Hosts,
    shutdown: impl Future<Output = ()> + Send,
) {
    let gate = Gate {
        security: security.clone(),
        hosts: hosts.clone(),
    };
    let router = router.layer(from_fn_with_state(gate, guard));
    let mut acceptor = security.http_acceptor(listener);
    let mut places = Places::new(http_served());
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
        if places.make_room()
            && let Some(suppressed) =
                security.refusal_warning(conn.peer().address.ip(), "http full")
        {
            tracing::warn!(
                peer = %conn.peer().address,
                suppressed,
                "too many HTTP connections: the one that was silent longest made room for a new one"
            );
        }
        let (moves, router) = (places.moves(), router.clone());
        let address = conn.peer().address.ip();
        let served = requests(conn, moves.clone(), router, graceful.watcher());
        places.take(open.spawn(served), address, moves);
    }
    drop(acceptor);
    let _ = timeout(GRACE, graceful.shutdown()).await;
    open.shutdown().await;
}

type Watcher = hyper_util::server::graceful::Watcher;

async fn requests(conn: Conn, moves: Moves, router: Router, watcher: Watcher) {
    let peer = conn.peer();
    let router = router
        .layer(Extension(peer))
        .layer(Extension(moves.clone()));
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(Watched { conn, moves }), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(address = %peer.address, %error, "an HTTP connection ended early");
    }
}
