//! Which connection makes room for a new one: the one that was silent longest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use crate::transport::security::Conn;

/// The open connections, in the order of their last bytes.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Vec<(AbortHandle, Moves)>,
    moved: Arc<AtomicU64>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Vec::new(),
            moved: Arc::default(),
        }
    }

    /// Ends the connection that was silent longest if there are too many; says whether.
    pub(super) fn make_room(&mut self) -> bool {
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
    pub(super) fn moves(&self) -> Moves {
        let moves = Moves {
            all: Arc::clone(&self.moved),
            ..Moves::default()
        };
        moves.count();
        moves
    }

    pub(super) fn take(&mut self, task: AbortHandle, moves: Moves) {
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
pub(super) struct Watched {
    pub(super) conn: Conn,
    pub(super) moves: Moves,
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
    use tokio::task::JoinSet;

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
