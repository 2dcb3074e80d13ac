//! Weights files: safetensors, and PyTorch's.

pub mod tensor_file;
pub mod torch_file;
pub mod weights;
