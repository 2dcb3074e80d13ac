//! How to reach a service: one place for every transport setting.
//!
//! HTTP/2 keep-alive matters most: without it neither side ever notices a peer
//! that vanished without closing the connection, and a lazily connected channel
//! may never connect again.

use crate::transport::security::{Bearer, Role, Security};
use crate::wire::learner_client::LearnerClient;
use crate::wire::learner_server::{Learner, LearnerServer};
use crate::wire::replay_client::ReplayClient;
use crate::wire::replay_server::{Replay, ReplayServer};
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server};

/// A connection to a service, which says with every call who we are.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Largest message in either direction.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// HTTP/2 flow control: one stream's bytes in flight, so that a large batch is not cut into round trips.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// All streams' bytes in flight: several streams' worth, so that one cannot starve the others.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at once on one connection: a learner has `learner.prefetch` samples (at
/// most 64) under way, an actor one stream. More wait at the client.
const STREAMS_PER_CONNECTION: u32 = 256;
/// All headers of a call; ours take a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not an address; host:port is needed, for example 127.0.0.1:7100")]
pub struct AddressError {
    /// What was given.
    pub address: String,
    source: tonic::transport::Error,
}

impl AddressError {
    pub(crate) fn new(address: &str, source: tonic::transport::Error) -> Self {
        Self {
            address: address.to_owned(),
            source,
        }
    }
}

/// A channel to `host:port` (or `http://host:port`) without TLS and token, as
/// inside of one process; see [`Security::connect`] for the others.
pub fn connect_lazy(address: &str) -> Result<Channel, AddressError> {
    Security::none().connect(address, Role::Learner)
}

/// An endpoint with our settings; `scheme` stands before addresses, also in the
/// place of another.
pub(crate) fn endpoint(address: &str, scheme: &str) -> Result<Endpoint, AddressError> {
    let bare = address.split_once("://").map_or(address, |(_, bare)| bare);
    let uri = format!("{scheme}://{bare}");
    let endpoint =
        Endpoint::from_shared(uri).map_err(|source| AddressError::new(address, source))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE_EVERY))
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX))
}

/// A server with the same settings as the channels.
#[must_use]
pub fn server_builder() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
}

/// A client of a replay shard, with the message limits set.
#[must_use]
pub fn replay_client(channel: Channel) -> ReplayClient<Channel> {
    ReplayClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of the learner, with the message limits set.
#[must_use]
pub fn learner_client(channel: Channel) -> LearnerClient<Channel> {
    LearnerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A replay service, with the message limits set.
#[must_use]
pub fn replay_server<S: Replay>(service: S) -> ReplayServer<S> {
    ReplayServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A learner service, with the message limits set.
#[must_use]
pub fn learner_server<S: Learner>(service: S) -> LearnerServer<S> {
    LearnerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_scheme() {
        assert_eq!(
            endpoint("127.0.0.1:7100", "http")
                .unwrap()
                .uri()
                .to_string(),
            "http://127.0.0.1:7100/"
        );
        assert_eq!(
            endpoint("http://replay-0:7100", "https")
                .unwrap()
                .uri()
                .to_string(),
            "https://replay-0:7100/"
        );
        let error = endpoint("not an address", "http").unwrap_err().to_string();
        assert!(
            error.contains("\"not an address\"") && error.contains("host:port"),
            "{error}"
        );
    }
}
