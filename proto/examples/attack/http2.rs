//! HTTP/2 written by hand: what no library would send.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::net::{self, Credentials, Port, Stream, until_closed};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACKNOWLEDGED: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The setting that says how much a stream may send before it is read.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_DEFAULT: u32 = (1 << 16) - 1;
/// A frame's payload, without a setting that allows more.
const FRAME_BYTES: usize = 1 << 14;
/// The window of a stream before the server raises it, less what it may have used.
const WRITE_WITHIN: Duration = Duration::from_millis(500);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A length of HPACK in seven bits, or more.
fn length(of: usize) -> Vec<u8> {
    const SEVEN_BITS: usize = 127;
    if of < SEVEN_BITS {
        return vec![of as u8];
    }
    let (mut rest, mut bytes) = (of - SEVEN_BITS, vec![SEVEN_BITS as u8]);
    while rest > SEVEN_BITS {
        bytes.push((rest & SEVEN_BITS) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = length(text.len());
    bytes.extend(text.as_bytes());
    bytes
}

/// The head of a call, as literals of HPACK.
fn head(path: &str, token: Option<&str>, tls: bool) -> Vec<u8> {
    // POST, the scheme, and names of the static table: authority, path, content-type, authorization.
    let mut block = vec![0x83, if tls { 0x87 } else { 0x86 }, 1, 1, b'x', 4];
    block.extend(text(path));
    block.extend([0x0f, 0x10]);
    block.extend(text("application/grpc"));
    block.extend(b"\0\x02te\x08trailers");
    if let Some(token) = token {
        block.extend([0x0f, 0x08]);
        block.extend(text(&format!("Bearer {token}")));
    }
    block
}

/// A message with its length before it.
pub fn message(of: &impl Message) -> Vec<u8> {
    let body = of.encode_to_vec();
    announced(body.len(), body)
}

/// Bytes with a length before them, which may promise more than there is.
pub fn announced(length: usize, bytes: Vec<u8>) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.extend(bytes);
    message
}

/// One connection of HTTP/2.
pub struct Session {
    pub stream: Stream,
    token: Option<String>,
    tls: bool,
    next: u32,
}

impl Session {
    /// Opens a connection whose server may send without end.
    pub async fn open(from: IpAddr, port: Port, with: Option<&Credentials>) -> Result<Self> {
        let stream = net::open(from, port, with).await?;
        let mut session = Self {
            stream,
            token: with.map(|with| with.token.clone()),
            tls: with.is_some(),
            next: 1,
        };
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(WINDOW_MAX.to_be_bytes());
        let mut first = PREFACE.to_vec();
        first.extend(frame(SETTINGS, 0, 0, &settings));
        let more = WINDOW_MAX - WINDOW_DEFAULT;
        first.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
        session.stream.write_all(&first).await?;
        session.stream.read_exact(&mut [0; 9]).await?;
        first = frame(SETTINGS, ACKNOWLEDGED, 0, &[]);
        session.stream.write_all(&first).await?;
        Ok(session)
    }

    pub fn without_token(mut self) -> Self {
        self.token = None;
        self
    }

    /// Begins a call, and ends the request or leaves it half sent. False once the server takes no
    /// more bytes.
    pub async fn call(&mut self, path: &str, body: &[u8], whole: bool) -> bool {
        let id = self.next;
        self.next += 2;
        let head = head(path, self.token.as_deref(), self.tls);
        let mut frames = frame(HEADERS, END_HEADERS, id, &head);
        let mut parts = body.chunks(FRAME_BYTES).peekable();
        while let Some(part) = parts.next() {
            let last = whole && parts.peek().is_none();
            frames.extend(frame(DATA, if last { END_STREAM } else { 0 }, id, part));
        }
        let written = timeout(WRITE_WITHIN, self.stream.write_all(&frames)).await;
        matches!(written, Ok(Ok(())))
    }

    /// Whether the connection still takes bytes.
    pub async fn ping(&mut self) -> bool {
        let ping = frame(PING, 0, 0, &[0; 8]);
        let written = timeout(WRITE_WITHIN, self.stream.write_all(&ping)).await;
        !matches!(written, Ok(Err(_)))
    }

    /// Reads until the server closes the connection.
    pub async fn until_closed(&mut self) {
        until_closed(&mut self.stream).await;
    }

    /// Reads some bytes.
    pub async fn read(&mut self, within: Duration) -> io::Result<usize> {
        let mut bytes = vec![0; FRAME_BYTES];
        let read = timeout(within, self.stream.read(&mut bytes)).await;
        read.unwrap_or(Ok(0))
    }
}
