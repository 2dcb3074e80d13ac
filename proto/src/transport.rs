//! Channels, listeners, security, retries, health, HTTP, and the shared parts of all `main`s.

mod calls;
pub mod channel;
pub mod endpoint;
pub mod entry;
pub mod health;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod retry;
pub mod security;
pub mod serve;
