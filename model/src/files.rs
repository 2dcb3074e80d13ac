//! Weights files: safetensors, and PyTorch's.

mod foreign;
mod state_dict;
pub mod tensor_file;
pub mod torch_file;
pub mod weights;

pub(crate) use state_dict::list;
