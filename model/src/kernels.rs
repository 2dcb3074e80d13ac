//! Our own convolutions and gradients for CPUs and GPUs.

pub(crate) mod conv_grad;
pub(crate) mod fused;
pub mod gradients;
pub(crate) mod space_to_depth;
pub(crate) mod trunk_grad;
pub(crate) mod winograd;
