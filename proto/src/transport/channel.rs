//! Clients and servers with our message limits and transport settings.

pub use crate::transport::endpoint::Channel;
use crate::transport::endpoint::{AddressError, KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT};
use crate::transport::security::{Role, Security};
use crate::wire::learner_client::LearnerClient;
use crate::wire::learner_server::{Learner, LearnerServer};
use crate::wire::replay_client::ReplayClient;
use crate::wire::replay_server::{Replay, ReplayServer};
use tonic::transport::Server;

/// Largest message in either direction.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Concurrent calls on one connection: a learner has `learner.prefetch` samples (at
/// most 64) in flight, an actor one stream. Further calls wait at the client.
const STREAMS_PER_CONNECTION: u32 = 128;
/// What a server takes of one stream before the service reads it: a peer decides how much of it is in
/// use, on hundreds of connections at once. Enough for 25 MB/s at 10 ms. A client takes more
/// (`endpoint`), from servers that it trusts.
const WINDOW_BYTES: u32 = 256 << 10;
/// Of one connection: one stream that is not read leaves room for the others.
const CONNECTION_WINDOW_BYTES: u32 = 2 * WINDOW_BYTES;
/// All headers of a call together; ours take a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// A channel to `host:port` (or `http://host:port`) without TLS and token, for
/// use within one process; see [`Security::connect`] for all other channels.
pub fn connect_lazy(address: &str) -> Result<Channel, AddressError> {
    Security::none().connect(address, Role::Learner)
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
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
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
