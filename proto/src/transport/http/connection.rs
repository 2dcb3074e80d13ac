//! Accepts and serves HTTP connections, up to a limit.
//!
//! Connections whose clients say nothing must not keep others out. So the limit refuses nobody: a
//! new connection takes the place of the one that was silent for the longest time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use super::guard::{Gate, guard};
use super::hosts::Hosts;
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
        let served = requests(conn, moves.clone(), router, graceful.watcher());
        places.take(open.spawn(served), moves);
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

/// The open connections, in the order of their last bytes.
#[derive(Debug)]
struct Places {
    most: usize,
    taken: Vec<(AbortHandle, Moves)>,
    moved: Arc<AtomicU64>,
}

impl Places {
    fn new(most: usize) -> Self {
        Self {
            most,
            taken: Vec::new(),
            moved: Arc::default(),
        }
    }

    /// Ends the connection that was silent longest if there are too many; says whether.
    fn make_room(&mut self) -> bool {
        self.taken.retain(|(task, _)| !task.is_finished());
        if self.taken.len() < self.most {
            return false;
        }
        let places = self.taken.iter().enumerate();
        let silent = places.min_by_key(|(_, (_, moves))| moves.rank());
        let Some((place, _)) = silent else {
            return false;
        };
        self.taken.swap_remove(place).0.abort();
        true
    }

    /// For a new connection, which has just moved.
    fn moves(&self) -> Moves {
        let moves = Moves {
            all: Arc::clone(&self.moved),
            ..Moves::default()
        };
        moves.count();
        moves
    }

    fn take(&mut self, task: AbortHandle, moves: Moves) {
        self.taken.push((task, moves));
    }
}

/// When a connection moved bytes last, counted in moves of all connections, and whether its client
/// waits for us.
#[derive(Debug, Clone, Default)]
pub(super) struct Moves {
    all: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
    answering: Arc<AtomicBool>,
}

impl Moves {
    /// A request has arrived whole, or its answer begins.
    pub(super) fn set_answering(&self, answering: bool) {
        self.answering.store(answering, Ordering::Relaxed);
    }

    /// The lowest makes room: a client that waits for us is not silent.
    fn rank(&self) -> (bool, u64) {
        let answering = self.answering.load(Ordering::Relaxed);
        (answering, self.last.load(Ordering::Relaxed))
    }

    fn count(&self) {
        let now = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        self.last.store(now, Ordering::Relaxed);
    }

    fn done<T>(&self, done: io::Result<T>) -> Poll<io::Result<T>> {
        if done.is_ok() {
            self.count();
        }
        Poll::Ready(done)
    }
}

/// A connection that counts its moves.
struct Watched {
    conn: Conn,
    moves: Moves,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = ready!(Pin::new(&mut self.conn).poll_read(context, buffer));
        self.moves.done(done)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.conn).poll_write(context, bytes));
        self.moves.done(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.conn).poll_write_vectored(context, bytes));
        self.moves.done(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_was_silent_longest_makes_room() {
        let mut places = Places::new(9);
        let mut tasks = JoinSet::new();
        let mut open = |places: &mut Places| {
            let moves = places.moves();
            let task = tasks.spawn(std::future::pending::<()>());
            places.take(task.clone(), moves.clone());
            (task, moves)
        };
        let mut all = Vec::new();
        for _ in 0..9 {
            assert!(!places.make_room());
            all.push(open(&mut places));
        }
        // The first one is a download that goes on, the second waits for its answer.
        all[0].1.count();
        all[1].1.set_answering(true);
        assert!(places.make_room());
        all.push(open(&mut places));
        while !all[2].0.is_finished() {
            tokio::task::yield_now().await;
        }
        let ended: Vec<_> = (0..all.len()).filter(|i| all[*i].0.is_finished()).collect();
        assert_eq!(ended, [2]);
        // One that ended leaves its place.
        all[7].0.abort();
        while !all[7].0.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(!places.make_room());
        assert_eq!(places.taken.len(), 8);
    }
}
