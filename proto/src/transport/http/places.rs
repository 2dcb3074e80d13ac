//! Which connection makes room for a new one: the one that was silent longest, of those of the
//! address with the most. However fast one address opens connections, it takes its own places.

use std::cmp::Reverse;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use crate::transport::security::Conn;
use crate::transport::security::crowd::{count, network};

/// The open connections, in the order of their last bytes.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Vec<Taken>,
    moved: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Taken {
    task: AbortHandle,
    address: IpAddr,
    moves: Moves,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Vec::new(),
            moved: Arc::default(),
        }
    }

    /// Ends a connection if there are too many; says whether.
    pub(super) fn make_room(&mut self) -> bool {
        self.taken.retain(|taken| !taken.task.is_finished());
        if self.taken.len() < self.most {
            return false;
        }
        let counts = count(self.taken.iter().map(|taken| taken.address));
        let rank = |taken: &Taken| (Reverse(counts.get(&taken.address)), taken.moves.rank());
        let places = self.taken.iter().enumerate();
        let Some((place, _)) = places.min_by_key(|(_, taken)| rank(taken)) else {
            return false;
        };
        self.taken.swap_remove(place).task.abort();
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

    pub(super) fn take(&mut self, task: AbortHandle, address: IpAddr, moves: Moves) {
        let address = network(address);
        self.taken.push(Taken {
            task,
            address,
            moves,
        });
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

    struct Open {
        places: Places,
        tasks: JoinSet<()>,
    }

    impl Open {
        fn new() -> Self {
            let (places, tasks) = (Places::new(9), JoinSet::new());
            Self { places, tasks }
        }

        fn open(&mut self, address: &str) -> (AbortHandle, Moves) {
            let moves = self.places.moves();
            let task = self.tasks.spawn(std::future::pending::<()>());
            let address = address.parse().unwrap();
            self.places.take(task.clone(), address, moves.clone());
            (task, moves)
        }
    }

    async fn ended(task: &AbortHandle) {
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_connection_that_was_silent_longest_makes_room() {
        let mut open = Open::new();
        let mut all = Vec::new();
        for _ in 0..9 {
            assert!(!open.places.make_room());
            all.push(open.open("10.0.0.1"));
        }
        // The first one is a download that goes on, the second waits for its answer.
        all[0].1.count();
        all[1].1.set_answering(true);
        assert!(open.places.make_room());
        all.push(open.open("10.0.0.1"));
        ended(&all[2].0).await;
        let gone: Vec<_> = (0..all.len()).filter(|i| all[*i].0.is_finished()).collect();
        assert_eq!(gone, [2]);
        // One that ended leaves its place.
        all[7].0.abort();
        ended(&all[7].0).await;
        assert!(!open.places.make_room());
        assert_eq!(open.places.taken.len(), 8);
    }

    #[tokio::test]
    async fn an_address_with_many_connections_takes_its_own_places() {
        let mut open = Open::new();
        let (honest, _) = open.open("10.0.0.1");
        for _ in 0..30 {
            open.places.make_room();
            // Of IPv6, one machine may use all addresses of a network.
            let (_, moves) = open.open("2001:db8::1");
            moves.set_answering(true);
        }
        tokio::task::yield_now().await;
        assert!(!honest.is_finished());
        assert_eq!(open.places.taken.len(), 9);
    }
}
