//! Bodies that are too large, too slow or never whole.

use super::*;
use hyper::body::Body as _;
use proptest::prelude::*;
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use crate::transport::calls::methods::Reply;

const UNARY: Method = Method {
    message: 64 << 10,
    stream: false,
    reply: Reply::Small,
};
const STREAM: Method = Method {
    stream: true,
    ..UNARY
};
const LARGE: usize = 32 << 10;

/// A body whose bytes a test sends.
pub(crate) struct Script(pub(crate) mpsc::UnboundedReceiver<Bytes>);

impl hyper::body::Body for Script {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Data, Status>>> {
        let bytes = ready!(self.0.poll_recv(context));
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The first bytes of a message that announces `length` bytes.
pub(crate) fn begun(length: usize, sent: usize) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.resize(HEADER_BYTES + sent, 7);
    bytes.into()
}

struct Peer {
    send: mpsc::UnboundedSender<Bytes>,
    body: Bounded,
}

/// A request of a connection with a budget of 48 KiB.
fn peer(method: Method, budget: &Budget) -> Peer {
    let (send, receive) = mpsc::unbounded_channel();
    let address = "192.0.2.1".parse().unwrap();
    let inner = Body::new(Script(receive));
    let budget = budget.clone();
    let body = Bounded::new(inner, method, address, budget, Share::default());
    let body = body.within(Duration::from_millis(200));
    Peer { send, body }
}

fn budget() -> Budget {
    Budget::of(48 << 10, &Arc::new(Semaphore::new(1 << 20)))
}

impl Peer {
    fn send(&self, bytes: Bytes) {
        self.send.send(bytes).unwrap();
    }

    /// The next bytes that the service gets.
    async fn next(&mut self) -> Option<Result<usize, Status>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap().len()))
    }

    /// Whether nothing comes for a moment.
    async fn is_silent(&mut self) -> bool {
        let wait = Duration::from_millis(50);
        tokio::time::timeout(wait, self.next()).await.is_err()
    }

    async fn refused(&mut self) -> Code {
        self.next().await.unwrap().unwrap_err().code()
    }
}

proptest! {
    #[test]
    fn a_body_is_followed_however_it_is_cut(
        lengths in prop::collection::vec(0_usize..40, 1..6),
        cuts in prop::collection::vec(1_usize..30, 1..60),
    ) {
        let whole: Vec<u8> = lengths.iter().flat_map(|&length| begun(length, length)).collect();
        let mut framing = Framing::default();
        prop_assert!(framing.is_within(), "the first is awaited");
        let (mut rest, mut cuts) = (whole.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            framing.read(now, 39).unwrap();
            rest = later;
        }
        prop_assert_eq!(framing.whole, lengths.len() as u64);
        prop_assert!(!framing.is_within());
        prop_assert_eq!(framing.announced(), 0);
        let refused = framing.read(&begun(40, 0), 39).unwrap_err();
        prop_assert!(refused.message().contains("40 bytes; this method takes at most 39"));
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_when_it_is_announced() {
    for method in [UNARY, STREAM] {
        let mut peer = peer(method, &budget());
        peer.send(begun(method.message + 1, 0));
        assert_eq!(peer.refused().await, Code::OutOfRange);
    }
}

#[tokio::test]
async fn a_request_that_is_never_whole_ends() {
    for (method, sent) in [
        (UNARY, vec![]),
        (UNARY, vec![begun(9, 3)]),
        // The message is whole, the request is not.
        (UNARY, vec![begun(9, 9)]),
        (STREAM, vec![]),
        (STREAM, vec![begun(9, 9), begun(9, 3)]),
        (STREAM, vec![begun(LARGE, 0)]),
    ] {
        let mut peer = peer(method, &budget());
        for bytes in &sent {
            peer.send(bytes.clone());
            peer.next().await.unwrap().unwrap();
        }
        assert_eq!(peer.refused().await, Code::DeadlineExceeded, "{sent:?}");
    }
}

#[tokio::test]
async fn a_trickle_of_bytes_does_not_extend_the_time() {
    let mut peer = peer(UNARY, &budget());
    let send = peer.send.clone();
    let trickle = tokio::spawn(async move {
        while send.send(begun(0, 0).slice(..1)).is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let refused = async {
        loop {
            if let Err(status) = peer.next().await.unwrap() {
                return status.code();
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused).await;
    assert_eq!(refused, Ok(Code::DeadlineExceeded));
    trickle.abort();
}

#[tokio::test]
async fn a_stream_may_be_silent_between_its_messages() {
    let mut peer = peer(STREAM, &budget());
    for _ in 0..2 {
        peer.send(begun(9, 9));
        assert_eq!(peer.next().await.unwrap().unwrap(), 14);
        let wait = Duration::from_millis(300);
        assert!(tokio::time::timeout(wait, peer.next()).await.is_err());
    }
    drop(peer.send);
    let ended = std::future::poll_fn(|cx| Pin::new(&mut peer.body).poll_frame(cx)).await;
    assert!(ended.is_none());
}

#[tokio::test]
async fn large_messages_of_one_connection_wait_for_each_other_and_small_ones_do_not() {
    let budget = budget();
    let [mut one, mut other, mut small] = [STREAM, STREAM, UNARY].map(|m| peer(m, &budget));
    one.send(begun(LARGE, 10));
    assert!(one.next().await.unwrap().is_ok());
    other.send(begun(LARGE, 10));
    assert!(other.is_silent().await);
    small.send(begun(SMALL, SMALL));
    assert!(small.next().await.unwrap().is_ok());
    one.send(vec![7; LARGE - 10].into());
    assert!(one.next().await.unwrap().is_ok());
    assert!(other.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_large_request_keeps_its_budget_until_its_call_ends() {
    let budget = budget();
    let mut one = peer(UNARY, &budget);
    let share = Share::clone(&one.body.reserved);
    one.send(begun(LARGE, 10));
    assert!(one.next().await.unwrap().is_ok());
    one.send(vec![7; LARGE - 10].into());
    assert!(one.next().await.unwrap().is_ok());
    drop(one);
    let mut other = peer(UNARY, &budget);
    other.send(begun(LARGE, 0));
    assert!(other.is_silent().await);
    drop(share);
    assert!(other.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn of_too_many_requests_of_one_address_the_oldest_ends() {
    let budget = budget();
    let mut peers: Vec<_> = (0..=WAITING.per_address)
        .map(|_| peer(UNARY, &budget))
        .collect();
    for peer in &mut peers {
        peer.body.address = "192.0.2.9".parse().unwrap();
        peer.body.within = Duration::from_secs(60);
        let first = std::future::poll_fn(|cx| {
            Poll::Ready(Pin::new(&mut peer.body).poll_frame(cx).is_pending())
        });
        assert!(first.await);
    }
    assert_eq!(peers[0].refused().await, Code::ResourceExhausted);
    assert!(peers[1].is_silent().await);
}

#[tokio::test]
async fn frames_that_wait_for_room_are_limited_as_requests_are() {
    let budget = budget();
    let mut first = peer(UNARY, &budget);
    first.send(begun(LARGE, 10));
    assert!(first.next().await.unwrap().is_ok());
    let mut waiting: Vec<_> = (0..=WAITING.per_address)
        .map(|_| peer(UNARY, &budget))
        .collect();
    for peer in &mut waiting {
        peer.body.address = "192.0.2.10".parse().unwrap();
        peer.send(begun(LARGE, 10));
        let waits = std::future::poll_fn(|cx| {
            Poll::Ready(Pin::new(&mut peer.body).poll_frame(cx).is_pending())
        });
        assert!(waits.await);
    }
    assert_eq!(waiting[0].refused().await, Code::ResourceExhausted);
    // It is the service that lets the others wait: they have no deadline.
    sleep(Duration::from_millis(250)).await;
    assert!(waiting[1].is_silent().await);
}
