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
        /// The shape or kind that the network requires.
        expected: String,
        found: String,
    },
    /// An agent index out of range.
    #[error("sample {sample} asks for agent {agent}, the network has agents 0..{agents}")]
    Agent {
        /// Which sample of the batch.
        sample: usize,
        /// The requested index.
        agent: i64,
        /// Number of agents of the network.
        agents: usize,
    },
    /// The bytes are not a complete safetensors file.
    #[error("not a complete safetensors file ({size} bytes): {reason}")]
    NotSafetensors {
        /// Number of bytes given.
        size: usize,
        /// The reader's error.
        reason: String,
    },
    /// The bytes are not a complete PyTorch state dict.
    #[error("not a PyTorch state dict ({size} bytes): {reason}")]
    NotTorchFile {
        /// Number of bytes given.
        size: usize,
        /// The problem.
        reason: String,
    },
    /// An invalid metadata entry of a weights file.
    #[error("weights file: metadata {key}: {reason}")]
    Metadata {
        key: String,
        /// The problem with its value.
        reason: String,
    },
    /// A required tensor is missing.
    #[error("weights file: tensor {name} of shape {expected:?} is missing")]
    MissingTensor {
        /// Name in the file.
        name: String,
        /// Its shape in the file's layout.
        expected: Vec<usize>,
    },
    /// A tensor in the file does not belong to the network.
    #[error("weights file: tensor {name} has no place in this network")]
    ExtraTensor {
        /// Name in the file.
        name: String,
    },
    /// A tensor of the file has the wrong shape.
    #[error("weights file: tensor {name}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Name in the file.
        name: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of the file has an unsupported type.
    #[error("weights file: tensor {name}: expected {expected}, found {found}")]
    TensorType {
        /// Name in the file.
        name: String,
        /// The supported types.
        expected: &'static str,
        /// The type in the file.
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
