//! landmarl's networks on libtorch.
//!
//! - [`network`]: specs, parameters and forward passes.
//! - [`kernels`]: our own convolutions and gradients, for CPUs and GPUs.
//! - [`files`]: networks as safetensors and PyTorch files.
//! - [`render`]: windows from volumes in device memory.
//! - [`device`], [`memory`], [`error`]: device selection, memory reuse between batches, errors.

pub mod device;
pub mod error;
pub mod files;
pub mod kernels;
pub mod memory;
pub mod network;
pub mod render;

pub use device::DeviceChoice;
pub use error::{ModelError, Result};
pub use files::weights::Weights;
pub use network::Network;
pub use network::head_plan::HeadPlan;
pub use network::parameters::Parameters;
pub use network::spec::{NetworkKind, NetworkSpec};
pub use network::trunk::Compute;
pub use render::{DeviceScans, FrameAt};
