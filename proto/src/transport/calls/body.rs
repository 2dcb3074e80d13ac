//! The bounded body of a request.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::budget::{Budget, Reserved};
use super::methods::{Method, SMALL};
use crate::transport::security::crowd::{Crowd, Size, Waiting};

/// From the moment that we wait for the rest of a message until it is whole. The first message
/// begins with the call, and a request of one message must end within this time too.
const WHOLE_WITHIN: Duration = Duration::from_secs(15);

/// Requests of one address that are not whole, and of all.
const WAITING: Size = Size {
    all: 2048,
    per_address: 256,
};

static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(WAITING));

/// What a message begins with: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

type Data = Frame<Bytes>;

type Reserving = Pin<Box<dyn Future<Output = Reserved> + Send>>;

/// The budget that the message of a request takes: in a stream until the message is whole, as
/// long as the call else.
pub(super) type Share = Arc<Mutex<Option<Reserved>>>;

/// A request's body that is bounded in size, memory and time.
pub(super) struct Bounded {
    inner: Body,
    method: Method,
    address: IpAddr,
    budget: Budget,
    within: Duration,
    framing: Framing,
    reserved: Share,
    /// A frame that waits for its message's part of the budget.
    held: Option<(Data, Reserving)>,
    /// While we wait for the peer, or it waits for room.
    waits: Option<Waits>,
}

/// A request that is not whole. Its deadline counts only while the peer has to send more.
struct Waits {
    deadline: Pin<Box<Sleep>>,
    crowd: Waiting,
}

impl Bounded {
    pub(super) fn new(
        inner: Body,
        method: Method,
        address: IpAddr,
        budget: Budget,
        reserved: Share,
    ) -> Self {
        Self {
            inner,
            method,
            address,
            budget,
            within: WHOLE_WITHIN,
            framing: Framing::default(),
            reserved,
            held: None,
            waits: None,
        }
    }

    #[cfg(test)]
    fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    fn reserved(&self) -> MutexGuard<'_, Option<Reserved>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer owes us bytes: between the messages of a stream it does not.
    fn is_due(&self) -> bool {
        !self.method.stream || self.framing.is_within()
    }

    /// Completes with the reason once the peer has taken too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if !self.is_due() {
            self.waits = None;
            return Poll::Pending;
        }
        if self.waits().deadline.as_mut().poll(context).is_ready() {
            let seconds = self.within.as_secs_f64();
            let why = format!("the request was not whole within {seconds} s");
            return Poll::Ready(Status::deadline_exceeded(why));
        }
        self.poll_crowd(context)
    }

    fn waits(&mut self) -> &mut Waits {
        self.waits.get_or_insert_with(|| Waits {
            deadline: Box::pin(sleep(self.within)),
            crowd: CROWD.enter(self.address),
        })
    }

    /// Completes with the reason once newer requests have taken this one's place.
    fn poll_crowd(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        ready!(Pin::new(&mut self.waits().crowd).poll(context));
        let why = "too many requests of this address, or of all, were not whole";
        Poll::Ready(Status::resource_exhausted(why))
    }

    /// Counts a frame's bytes. If its last message is not whole and not small, the frame is held
    /// until there is room for the whole message.
    fn receive(&mut self, frame: Data) -> Result<Option<Data>, Status> {
        let Some(data) = frame.data_ref() else {
            return Ok(Some(frame));
        };
        let whole = self.framing.whole;
        self.framing.read(data, self.method.message)?;
        if self.framing.whole != whole && self.method.stream {
            self.waits = None;
            *self.reserved() = None;
        }
        let announced = self.framing.announced();
        if announced <= SMALL || self.reserved().is_some() {
            return Ok(Some(frame));
        }
        let reserving = self.budget.clone().reserve(announced);
        self.held = Some((frame, Box::pin(reserving)));
        Ok(None)
    }
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Data, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some((_, reserving)) = &mut this.held {
                let Poll::Ready(reserved) = reserving.as_mut().poll(context) else {
                    // HTTP/2 counts a frame that it handed over as read, so the frames that
                    // wait are limited here.
                    let crowded = ready!(this.poll_crowd(context));
                    this.held = None;
                    return Poll::Ready(Some(Err(crowded)));
                };
                *this.reserved() = Some(reserved);
                // The peer is not the one that took this time.
                this.waits = None;
                return Poll::Ready(this.held.take().map(|(frame, _)| Ok(frame)));
            }
            match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match this.receive(frame) {
                    Ok(None) => {}
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Err(refused) => return Poll::Ready(Some(Err(refused))),
                },
                Poll::Ready(ended) => {
                    this.waits = None;
                    return Poll::Ready(ended);
                }
                Poll::Pending => {
                    let late = ready!(this.poll_patience(context));
                    return Poll::Ready(Some(Err(late)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where in its messages a body is.
#[derive(Debug, Default)]
struct Framing {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have arrived.
    headed: usize,
    /// Of the message whose header is complete.
    length: usize,
    /// Of these, bytes that have not arrived.
    left: usize,
    /// Messages that are whole.
    whole: u64,
}

impl Framing {
    /// Whether a message is awaited or has begun, and is not whole. The first is awaited from the
    /// start.
    fn is_within(&self) -> bool {
        self.left > 0 || self.headed > 0 || self.whole == 0
    }

    /// Bytes of the message that has begun and is not whole; 0 before its header is complete.
    fn announced(&self) -> usize {
        if self.left > 0 { self.length } else { 0 }
    }

    /// Follows the bytes, and refuses a message with more than `most` bytes.
    fn read(&mut self, mut bytes: &[u8], most: usize) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let read = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - read, &bytes[read..]);
                self.whole += u64::from(self.left == 0);
                continue;
            }
            let read = (HEADER_BYTES - self.headed).min(bytes.len());
            let (header, rest) = bytes.split_at(read);
            self.header[self.headed..][..read].copy_from_slice(header);
            (self.headed, bytes) = (self.headed + read, rest);
            if self.headed == HEADER_BYTES {
                let [_, length @ ..] = self.header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if length > most {
                    let why =
                        format!("a message of {length} bytes; this method takes at most {most}");
                    return Err(Status::out_of_range(why));
                }
                (self.headed, self.length, self.left) = (0, length, length);
                self.whole += u64::from(length == 0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
pub(super) mod tests;
