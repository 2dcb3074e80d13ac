//! What can go wrong with networks, weights files and devices.

/// An error of the `model` crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch refused an operation (shapes, memory, device).
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A network that cannot be built; the text names the field and why.
    #[error("network: {0}")]
    Spec(String),
    /// A tensor handed to a forward pass or a renderer has the wrong shape or kind.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        what: &'static str,
        /// The shape or kind that the network takes.
        expected: String,
        found: String,
    },
    /// An agent index outside the network.
    #[error("sample {sample} asks for agent {agent}, the network has agents 0..{agents}")]
    Agent {
        /// Which sample of the batch.
        sample: usize,
        /// The index asked for.
        agent: i64,
        /// Number of agents of the network.
        agents: usize,
    },
    /// The bytes are no safetensors file, or only a part of one.
    #[error("not a complete safetensors file ({size} bytes): {reason}")]
    NotSafetensors {
        /// Number of bytes given.
        size: usize,
        /// What the reader said.
        reason: String,
    },
    /// The bytes are no state dict that PyTorch saved, or only a part of one.
    #[error("not a PyTorch state dict ({size} bytes): {reason}")]
    NotTorchFile {
        /// Number of bytes given.
        size: usize,
        /// What is wrong with them.
        reason: String,
    },
    /// A metadata entry of a weights file that cannot be understood.
    #[error("weights file: metadata {key}: {reason}")]
    Metadata {
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A tensor that the network needs is not in the file.
    #[error("weights file: tensor {name} of shape {expected:?} is missing")]
    MissingTensor {
        /// Name in the file.
        name: String,
        /// Its shape in the file's layout.
        expected: Vec<usize>,
    },
    /// A tensor in the file has no place in the network.
    #[error("weights file: tensor {name} has no place in this network")]
    ExtraTensor {
        /// Name in the file.
        name: String,
    },
    /// A tensor of the file has another shape than the network's.
    #[error("weights file: tensor {name}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Name in the file.
        name: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of the file has a type that is not read.
    #[error("weights file: tensor {name}: expected {expected}, found {found}")]
    TensorType {
        /// Name in the file.
        name: String,
        /// The types that are read.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A file without our metadata whose tensors do not tell which network they are.
    #[error(
        "weights file without metadata: {0}; only rl-medical's Network3d and CommNet are recognised"
    )]
    Unrecognised(String),
    /// Weights of another network.
    #[error("these weights belong to another network: {0}")]
    OtherNetwork(String),
    /// A device name that is not understood.
    #[error("device {0:?}: expected cpu, cuda, cuda:N or auto")]
    DeviceName(String),
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, ModelError>;
