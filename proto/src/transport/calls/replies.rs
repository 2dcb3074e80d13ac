//! Replies that the peer has not read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

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
struct Counted {
    bytes: Bytes,
    _counted: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Counted {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};
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
}
