//! Tests of networks, weights files and device rendering through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests stop a test by panicking, and skipped tests say so"
)]

mod network;
mod noise;
mod numbers;
mod published;
mod render;
mod torch_files;
mod weights;
