//! Connections that never open, over real sockets.

use super::super::places::tests::SMALL;
use super::*;
use tokio::io::AsyncWriteExt as _;
use tokio_stream::StreamExt as _;

/// A gRPC port with few places, and its address.
async fn port(places: &Places) -> (TlsAcceptor, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refusals = Arc::default();
    let acceptor = TlsAcceptor::new(listener, None, Protocol::Grpc, places.clone(), refusals);
    (acceptor, address)
}

async fn client(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Whether the other side has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(Duration::from_secs(1), stream.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_connection_is_handed_on_with_its_whole_preface_and_what_follows() {
    let (mut acceptor, address) = port(&Places::new(SMALL)).await;
    let mut stream = client(address, &PREFACE[..1]).await;
    let none = timeout(Duration::from_millis(100), acceptor.next()).await;
    assert!(none.is_err(), "one byte does not open a connection");
    stream.write_all(&PREFACE[1..]).await.unwrap();
    stream.write_all(b"frames").await.unwrap();
    let mut conn = acceptor.next().await.unwrap().unwrap();
    let mut bytes = [0; PREFACE.len() + 6];
    conn.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes[..], [PREFACE, b"frames"].concat());
}

#[tokio::test]
async fn silent_connections_of_one_address_make_room_for_a_client_that_speaks() {
    let places = Places::new(SMALL);
    let (mut acceptor, address) = port(&places).await;
    let mut silent = Vec::new();
    for count in 0..20 {
        // Also those that begin, and never end their preface.
        silent.push(client(address, &PREFACE[..count]).await);
        let none = timeout(Duration::from_millis(5), acceptor.next()).await;
        assert!(none.is_err());
    }
    let mut honest = client(address, PREFACE).await;
    let conn = timeout(Duration::from_secs(5), acceptor.next()).await;
    let conn = conn.unwrap().unwrap().unwrap();
    let mut open = 0;
    for stream in &mut silent {
        open += usize::from(!is_closed(stream).await);
    }
    assert!(open < SMALL.opening.per_address + 1, "{open}");
    assert!(!is_closed(&mut honest).await);
    drop(conn);
    assert!(is_closed(&mut honest).await);
}

#[tokio::test]
async fn whoever_does_not_speak_http2_is_refused_at_its_first_wrong_byte() {
    let (mut acceptor, address) = port(&Places::new(SMALL)).await;
    let served = tokio::spawn(async move { acceptor.next().await.is_some() });
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"PRI * HTTP/1",
        b"X",
    ] {
        let mut stream = client(address, bytes).await;
        assert!(is_closed(&mut stream).await, "{bytes:?}");
    }
    assert!(!served.is_finished());
    served.abort();
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_connection_and_a_slow_one_does_not() {
    let within = Duration::from_millis(100);
    let mut stall = Stall::new(within);
    let write = |stall: &mut Stall, written: bool, context: &mut Context<'_>| {
        let written = if written {
            Poll::Ready(Ok(1))
        } else {
            Poll::Pending
        };
        stall.poll(written, context)
    };
    for _ in 0..4 {
        std::future::poll_fn(|c| Poll::Ready(write(&mut stall, false, c).is_pending())).await;
        sleep(within / 2).await;
        std::future::poll_fn(|c| write(&mut stall, true, c))
            .await
            .unwrap();
    }
    let late = std::future::poll_fn(|c| write(&mut stall, false, c)).await;
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
