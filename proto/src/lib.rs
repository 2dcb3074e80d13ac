//! landmarl's wire contract, used by clients and servers alike.
//!
//! [`wire`] is generated from the .proto files and used only where a service sends or receives.
//! Services use the types in [`messages`], which differ in three ways: required
//! fields are not an `Option`, numbers and bytes have their precise type, and the
//! receiving side has checked them.
//!
//! - [`messages`]: the checked types and their conversions; [`error`]: why a message is refused.
//! - [`transport`]: channels, listeners, retries, security, health and HTTP.

pub mod error;
pub mod messages;
pub mod transport;

/// Generated from landmarl/v1/*.proto; `tests/codegen.rs` keeps it current.
#[allow(
    missing_debug_implementations,
    rustdoc::all,
    clippy::all,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::large_futures,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::redundant_closure_for_method_calls,
    reason = "generated code is not ours to style"
)]
pub mod wire {
    include!("gen/landmarl.v1.rs");

    /// The encoded file descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptor.bin");
}
