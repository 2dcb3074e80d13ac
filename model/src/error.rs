//! Errors of networks, weights files and devices.

/// An error of the `model` crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch refused an operation (shapes, memory, device).
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// An invalid network; the text names the field and the reason.
    #[error("network: {0}")]
    Spec(String),
    /// A tensor passed to a forward pass or a renderer has the wrong shape or kind.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        what: &'static str,
        expected: String,
        found: String,
    },
    /// An agent index out of range.
    #[error("sample {sample} requests agent {agent}, the network has agents 0..{agents}")]
    Agent {
        sample: usize,
        agent: i64,
        /// Of the network.
        agents: usize,
    },
    /// The bytes are not a complete safetensors file.
    #[error("not a complete safetensors file ({size} bytes): {reason}")]
    NotSafetensors { size: usize, reason: String },
    /// The bytes are not a complete PyTorch state dict.
    #[error("not a PyTorch state dict ({size} bytes): {reason}")]
    NotTorchFile { size: usize, reason: String },
    /// The content of a file is not what was written.
    #[error(
        "the file is damaged: its SHA-256 is {found}, recorded is {recorded}; use another copy of it"
    )]
    Damaged { found: String, recorded: String },
    /// Training diverged.
    #[error(
        "the values of {name} reach {most:e}, where at most {limit:e} make sense: training has diverged"
    )]
    Unsound {
        name: String,
        /// NaN if one of them is.
        most: f64,
        limit: f64,
    },
    /// An invalid metadata entry of a weights file.
    #[error("weights file: metadata {key}: {reason}")]
    Metadata { key: String, reason: String },
    /// A required tensor is missing.
    #[error("weights file: tensor {name} of shape {expected:?} is missing")]
    MissingTensor { name: String, expected: Vec<usize> },
    /// A tensor in the file does not belong to the network.
    #[error("weights file: tensor {name} does not belong to this network")]
    ExtraTensor { name: String },
    /// A tensor of the file has the wrong shape.
    #[error("weights file: tensor {name}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A tensor of the file has an unsupported type.
    #[error("weights file: tensor {name}: expected {expected}, found {found}")]
    TensorType {
        name: String,
        expected: &'static str,
        found: String,
    },
    /// A file without our metadata whose tensors do not identify a known network.
    #[error(
        "weights file without metadata: {0}; only rl-medical's Network3d and CommNet are recognised"
    )]
    Unrecognised(String),
    /// Weights of another network.
    #[error("these weights belong to another network: {0}")]
    OtherNetwork(String),
    /// An unknown device name.
    #[error("device {0:?}: expected cpu, cuda, cuda:N or auto")]
    DeviceName(String),
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, ModelError>;
