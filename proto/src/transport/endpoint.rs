//! Client endpoints: every transport setting in one place.
//!
//! HTTP/2 keep-alive matters most: without it neither side notices a peer
//! that vanished without closing the connection, and a lazily connected channel
//! may never connect again.

pub use crate::transport::security::token::Bearer;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

/// A connection to a service that sends the join token with every call.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// HTTP/2 flow control: one stream's bytes in flight, so that a large batch needs no extra round trips.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// All streams' bytes in flight: several streams' worth, so that one cannot starve the others.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
pub(crate) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An invalid address.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not an address; host:port is needed, for example 127.0.0.1:7100")]
pub struct AddressError {
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

/// An endpoint with our settings; `scheme` replaces that of the address, if any.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_scheme() {
        for (address, scheme, expected) in [
            ("127.0.0.1:7100", "http", "http://127.0.0.1:7100/"),
            ("http://replay-0:7100", "https", "https://replay-0:7100/"),
        ] {
            let endpoint = endpoint(address, scheme).unwrap();
            assert_eq!(endpoint.uri().to_string(), expected);
        }
        let error = endpoint("not an address", "http").unwrap_err().to_string();
        assert!(
            error.contains("\"not an address\"") && error.contains("host:port"),
            "{error}"
        );
    }
}
