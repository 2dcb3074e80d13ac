//! landmarl's wire contract, used by clients and servers alike.
//!
//! The .proto files say what travels; [`wire`] is generated from them and
//! stops at each service's edge. Everything else speaks the types beside it,
//! which differ in three ways: what is required is not an `Option`, numbers and
//! bytes have their precise type, and the receiving side has checked them.
//!
//! Layout:
//! - [`hello`]: what must agree before anything else.
//! - [`insert`], [`sample`], [`update`], [`shard_status`]: the replay shard.
//! - [`join`], [`heartbeat`], [`weights`], [`learner_status`]: the learner; [`assembly`]
//!   puts weights together again.
//! - [`evaluator`], [`checkpoints`]: what it hears of evaluations, the files that it gives away.
//! - [`error`]: a message that is not what the contract says.
//! - [`channel`], [`retry`]: how to call a service.
//! - [`security`]: who may call whom; TLS, roles, token.
//! - [`listen`], [`serve`], [`health`]: how to be one, and whether one is there.
//! - [`http`], [`metrics`]: what a service tells beside gRPC.

pub mod assembly;
pub mod channel;
pub mod checkpoints;
pub mod error;
pub mod evaluator;
pub mod health;
pub mod heartbeat;
pub mod hello;
pub mod http;
pub mod insert;
pub mod join;
pub mod learner_status;
pub mod listen;
pub mod metrics;
mod pack;
pub mod retry;
pub mod sample;
pub mod security;
pub mod serve;
pub mod shard_status;
pub mod update;
pub mod weights;

/// Generated from landmarl/v1/*.proto; `tests/codegen.rs` keeps it current.
#[allow(
    missing_docs,
    missing_debug_implementations,
    rustdoc::all,
    clippy::all,
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
