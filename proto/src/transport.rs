//! Channels, listeners, security, retries, health and HTTP.

pub mod channel;
pub mod endpoint;
pub mod health;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod retry;
pub mod security;
pub mod serve;
