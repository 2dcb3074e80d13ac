//! landmarl's networks on libtorch.
//!
//! Layout:
//! - [`device`]: which device, and loading CUDA at run time; [`memory`]: what is kept between batches.
//! - [`error`]: what can go wrong.
//! - [`spec`], [`presets`]: what a network is made of; the named ones.
//! - [`layout`], [`parameters`], [`init`]: names and shapes of its tensors, the tensors, their first values.
//! - [`network`]: forward passes (trunk, heads, communication); [`head_plan`]: which sample goes through which head.
//! - `blocked`: pooled convolutions as GPUs like them; `fused`, `winograd`: as CPUs do.
//! - [`gradients`]: forward passes to be differentiated; `conv_grad`, `trunk_grad`: small
//!   convolutions' gradients on the CPU.
//! - [`weights`]: networks ↔ safetensors; [`infer`]: recognising published files; [`tensor_file`]: any named tensors.
//! - [`script`]: networks for Python.
//! - [`render`]: windows from volumes that stay on the device.

mod blocked;
mod communication;
mod conv_grad;
pub mod device;
pub mod error;
mod fused;
pub mod gradients;
pub mod head_plan;
mod heads;
pub mod infer;
pub mod init;
pub mod layout;
pub mod memory;
pub mod network;
pub mod parameters;
pub mod presets;
pub mod render;
pub mod script;
pub mod spec;
pub mod tensor_file;
pub mod torch_file;
mod trunk;
mod trunk_grad;
pub mod weights;
mod winograd;

pub use device::DeviceChoice;
pub use error::{ModelError, Result};
pub use head_plan::HeadPlan;
pub use network::Network;
pub use parameters::Parameters;
pub use render::{DeviceScans, FrameAt};
pub use spec::{NetworkKind, NetworkSpec};
pub use trunk::Compute;
pub use weights::Weights;
