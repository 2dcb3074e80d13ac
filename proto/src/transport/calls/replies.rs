//! Replies that the peer has not read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::budget::{Budget, Reserved};
use super::methods::SMALL;
use crate::messages::chunks::CHUNK_BYTES_MAX;

/// A piece of weights or of a checkpoint, with the names of its whole.
const PIECE_BYTES: usize = CHUNK_BYTES_MAX + SMALL;

/// Of one connection: room for one reply of the largest size.
const UNREAD_BYTES: usize = 16 << 20;
/// They are counted in units of this many bytes.
const UNIT: usize = 1 << 10;

/// The large replies of one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Unread {
    /// Held from the start of a call until its reply is counted.
    turn: Arc<Semaphore>,
    units: Arc<Semaphore>,
}

impl Default for Unread {
    fn default() -> Self {
        Self::of(UNREAD_BYTES)
    }
}

impl Unread {
    fn of(bytes: usize) -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            units: Arc::new(Semaphore::new(bytes / UNIT)),
        }
    }

    /// Runs a call with one reply, after the others of this connection, and counts the reply's
    /// bytes until they are written to the socket. While there is no room for them, the next
    /// call does not begin.
    pub(super) async fn count<E>(
        self,
        call: impl Future<Output = Result<Response<Body>, E>>,
    ) -> Result<Response<Body>, E> {
        // Neither is ever closed.
        let _turn = self.turn.acquire_owned().await.ok();
        let (parts, mut rest) = call.await?.into_parts();
        let mut first = poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await;
        if let Some(Ok(frame)) = first {
            first = Some(Ok(match frame.into_data() {
                Ok(bytes) => {
                    let units = bytes.len().div_ceil(UNIT).min(UNREAD_BYTES / UNIT);
                    let units = u32::try_from(units).unwrap_or(u32::MAX);
                    let _counted = self.units.acquire_many_owned(units).await.ok();
                    Frame::data(Bytes::from_owner(Counted { bytes, _counted }))
                }
                Err(trailers) => trailers,
            }));
        }
        Ok(Response::from_parts(
            parts,
            Body::new(Reply { first, rest }),
        ))
    }
}

/// The bytes of a reply, counted until they are dropped.
struct Counted<C> {
    bytes: Bytes,
    _counted: C,
}

impl<C> AsRef<[u8]> for Counted<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body whose first frame is there.
struct Reply {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl hyper::body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

type Reserving = Pin<Box<dyn Future<Output = Reserved> + Send>>;

/// A stream of pieces, each of which is made once there is room for it, and counted until it is
/// written to the socket: HTTP/2 would take a megabyte and more of each stream, read or not.
pub(super) struct Streamed {
    inner: Body,
    budget: Budget,
    reserving: Option<Reserving>,
}

impl Streamed {
    pub(super) fn new(inner: Body, budget: Budget) -> Self {
        Self {
            inner,
            budget,
            reserving: None,
        }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let budget = &this.budget;
        let reserving = this
            .reserving
            .get_or_insert_with(|| Box::pin(budget.clone().reserve(PIECE_BYTES)));
        let reserved = ready!(reserving.as_mut().poll(context));
        // Given back where no piece is due yet: a watcher waits for new weights for minutes.
        this.reserving = None;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    let _counted = reserved;
                    Bytes::from_owner(Counted { bytes, _counted })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::timeout;

    struct One(Option<Bytes>);

    impl hyper::body::Body for One {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    async fn reply(bytes: usize) -> Result<Response<Body>, Infallible> {
        let body = One(Some(vec![7; bytes].into()));
        Ok(Response::new(Body::new(body)))
    }

    async fn read(body: &mut Body) -> Option<Bytes> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn replies_that_are_not_read_keep_the_next_call_from_beginning() {
        let unread = Unread::of(4 * UNIT);
        let soon = Duration::from_millis(50);
        let first = unread.clone().count(reply(3 * UNIT)).await.unwrap();
        // This one is made, and waits for room; the next one is not made.
        let second = tokio::spawn(unread.clone().count(reply(2 * UNIT)));
        tokio::task::yield_now().await;
        let begun = AtomicBool::new(false);
        let third = unread.clone().count(async {
            begun.store(true, Ordering::Relaxed);
            reply(1).await
        });
        assert!(timeout(soon, third).await.is_err());
        assert!(!begun.load(Ordering::Relaxed));
        assert!(!second.is_finished());
        let mut body = first.into_body();
        let bytes = read(&mut body).await.unwrap();
        assert_eq!(bytes.len(), 3 * UNIT);
        assert!(read(&mut body).await.is_none());
        // On its way to the socket.
        assert!(!second.is_finished());
        drop((body, bytes));
        let second = timeout(Duration::from_secs(10), second).await;
        assert_eq!(second.unwrap().unwrap().unwrap().status(), 200);
    }

    #[tokio::test]
    async fn the_largest_reply_fits_and_an_empty_one_stays_empty() {
        let largest = Unread::default().count(reply(UNREAD_BYTES + 5)).await;
        let mut body = largest.unwrap().into_body();
        assert_eq!(read(&mut body).await.unwrap().len(), UNREAD_BYTES + 5);
        let empty = async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let empty = Unread::default().count(empty).await.unwrap();
        assert!(empty.into_body().is_end_stream());
    }

    #[tokio::test]
    async fn pieces_that_are_not_read_keep_the_next_ones_of_all_streams_from_being_made() {
        let process = std::sync::Arc::new(Semaphore::new(3 * PIECE_BYTES.div_ceil(UNIT)));
        let new = |body| Streamed::new(body, Budget::of(16 << 20, &process));
        let endless = |made: Arc<AtomicUsize>| {
            Body::new(made_by(move || {
                made.fetch_add(1, Ordering::Relaxed);
                Some(Bytes::from_static(&[7; 100]))
            }))
        };
        let made = Arc::new(AtomicUsize::new(0));
        let mut unread = Vec::new();
        for _ in 0..20 {
            let mut body = Body::new(new(endless(made.clone())));
            let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            let piece = timeout(Duration::from_millis(5), next).await;
            unread.push((body, piece.ok()));
        }
        assert_eq!(made.load(Ordering::Relaxed), 3);
        // One that only waits for a piece takes no room.
        let mut idle = Body::new(new(Body::new(made_by(|| None))));
        unread.clear();
        let next = poll_fn(|context| Pin::new(&mut idle).poll_frame(context));
        assert!(timeout(Duration::from_millis(5), next).await.is_err());
        let all = process.available_permits();
        assert_eq!(all, 3 * PIECE_BYTES.div_ceil(UNIT));
    }

    struct Made<F>(F);

    /// A body of these pieces; it waits where there is none.
    fn made_by<F: FnMut() -> Option<Bytes> + Unpin>(next: F) -> Made<F> {
        Made(next)
    }

    impl<F: FnMut() -> Option<Bytes> + Unpin> hyper::body::Body for Made<F> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match (self.0)() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }
}
