//! Weights ↔ safetensors bytes.
//!
//! In a file every agent has its own tensors under rl-medical's names
//! (`conv0.weight`, `fc1.2.bias`, `prelu4.2.weight`, …), f32; on the wire they may
//! be bf16, and other programs' files may be f16, bf16 or f64. Files that we write hold a digest
//! of their content, which is checked on reading. Metadata [`NETWORK_KEY`] holds the network's spec as JSON; a file
//! without it is assumed to be one of rl-medical's.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};

use crate::error::{ModelError, Result};
use crate::files::state_dict;
use crate::files::tensor_file::{self, DIGEST_KEY, Metadata, TensorFile};
use crate::network::Network;
use crate::network::layer::as_i64;
use crate::network::layout::{Layout, Role, Slot};
use crate::network::parameters::Parameters;
use crate::network::spec::NetworkSpec;

/// Metadata key of the network's spec, JSON.
pub const NETWORK_KEY: &str = "landmarl.network";

/// A network read from bytes, on the CPU, and the metadata of the file.
#[derive(Debug)]
pub struct Weights {
    pub network: Network,
    /// All metadata of the file, the spec included.
    pub metadata: Metadata,
}

/// A network's weights as f32, with the caller's metadata beside the spec, and a digest of
/// it all. Equal weights and metadata give equal bytes.
///
/// # Errors
/// When a tensor cannot be read from its device.
pub fn to_bytes(network: &Network, metadata: &Metadata) -> Result<Vec<u8>> {
    let (spec, parameters) = (network.spec(), network.parameters());
    let (tensors, metadata) = contents(spec, parameters, Kind::Float, metadata)?;
    tensor_file::write_sealed(&tensors, &metadata)
}

/// The weights rounded to bf16, half the size, for the wire, without a digest.
///
/// # Errors
/// As [`to_bytes`].
pub fn to_bytes_bf16(network: &Network, metadata: &Metadata) -> Result<Vec<u8>> {
    let (spec, parameters) = (network.spec(), network.parameters());
    parameters_to_bytes(spec, parameters, Kind::BFloat16, metadata)
}

/// Tensors in the layout of a network's parameters (for example an optimizer's
/// moments) in the same file format, without a digest.
///
/// # Errors
/// When `parameters` do not match the spec's layout, or cannot be read.
pub fn parameters_to_bytes(
    spec: &NetworkSpec,
    parameters: &Parameters,
    kind: Kind,
    metadata: &Metadata,
) -> Result<Vec<u8>> {
    let (tensors, metadata) = contents(spec, parameters, kind, metadata)?;
    tensor_file::write(&tensors, &metadata)
}

/// Tensors and metadata of a file.
fn contents(
    spec: &NetworkSpec,
    parameters: &Parameters,
    kind: Kind,
    metadata: &Metadata,
) -> Result<(Vec<(String, Tensor)>, Metadata)> {
    let layout = Layout::new(spec)?;
    let mut tensors = Vec::new();
    for (slot, (name, tensor)) in layout.slots.iter().zip(parameters.iter()) {
        if name != slot.name() || tensor.size() != as_i64(&slot.shape) {
            let (expected, found) = (&slot.shape, tensor.size());
            let text = format!(
                "expected {} {expected:?}, found {name} {found:?}",
                slot.name()
            );
            return Err(ModelError::OtherNetwork(text));
        }
        let tensor = tensor.detach().f_to_kind(kind)?;
        for agent in 0..slot.file_parts() {
            tensors.push((slot.file_name(agent), to_file(slot, &tensor, agent)?));
        }
    }
    let mut metadata = metadata.clone();
    let json = serde_json::to_string(spec).map_err(|e| bad_spec(&e))?;
    metadata.insert(NETWORK_KEY.to_owned(), json);
    // That of another file, if the metadata were read from one.
    metadata.remove(DIGEST_KEY);
    Ok((tensors, metadata))
}

/// Reads a network.
///
/// # Errors
/// Describes the invalid bytes, or the tensor that is missing, superfluous
/// or of another shape or type.
pub fn from_bytes(bytes: &[u8]) -> Result<Weights> {
    let (spec, parameters, metadata) = parameters_from_bytes(bytes)?;
    let network = Network::from_parameters(&spec, parameters)?;
    Ok(Weights { network, metadata })
}

/// Reads the output of [`parameters_to_bytes`]: tensors on the CPU, without gradients.
///
/// # Errors
/// As [`from_bytes`].
pub fn parameters_from_bytes(bytes: &[u8]) -> Result<(NetworkSpec, Parameters, Metadata)> {
    let (file, spec) = open(bytes)?;
    let parameters = read_parameters(&file, &spec)?;
    Ok((spec, parameters, file.metadata().clone()))
}

/// The spec and metadata of a file, without its values.
///
/// # Errors
/// As [`from_bytes`], except for errors in the values.
pub fn inspect(bytes: &[u8]) -> Result<(NetworkSpec, Metadata)> {
    let (file, spec) = open(bytes)?;
    Ok((spec, file.metadata().clone()))
}

/// Opens a file, compares its digest if it has one, and reads its spec, or recognises its
/// network. The tensors of a file without metadata may have prefixes.
fn open(bytes: &[u8]) -> Result<(TensorFile<'_>, NetworkSpec)> {
    let mut file = TensorFile::open(bytes)?;
    file.check_digest()?;
    let Some(json) = file.metadata().get(NETWORK_KEY) else {
        let names = file.shapes().keys().map(|n| (n.clone(), n.clone()));
        let found = state_dict::choose(vec![(String::new(), names.collect())]);
        file.rename(found.map_err(ModelError::Unrecognised)?.tensors);
        let spec = NetworkSpec::infer(file.shapes())?;
        return Ok((file, spec));
    };
    let spec: NetworkSpec = serde_json::from_str(json).map_err(|e| bad_spec(&e))?;
    spec.validate()?;
    Ok((file, spec))
}

fn bad_spec(error: &serde_json::Error) -> ModelError {
    ModelError::Metadata {
        key: NETWORK_KEY.to_owned(),
        reason: error.to_string(),
    }
}

fn read_parameters(file: &TensorFile<'_>, spec: &NetworkSpec) -> Result<Parameters> {
    let layout = Layout::new(spec)?;
    let mut used = BTreeSet::new();
    let mut entries = Vec::with_capacity(layout.slots.len());
    for slot in &layout.slots {
        let mut parts = Vec::with_capacity(slot.file_parts());
        for agent in 0..slot.file_parts() {
            let name = file_name(file, slot, agent);
            parts.push(from_file(slot, &file.float(&name, &slot.file_shape())?)?);
            used.insert(name);
        }
        let tensor = if slot.role.stacked() {
            Tensor::f_stack(&parts, 0)?.f_reshape(as_i64(&slot.shape))?
        } else {
            parts.remove(0)
        };
        entries.push((slot.name(), tensor));
    }
    match file.first_extra(&used) {
        Some(name) => Err(ModelError::ExtraTensor {
            name: name.to_owned(),
        }),
        None => Ok(Parameters::new(entries)),
    }
}

/// Name of an agent's part. Before 2021-08 rl-medical's CommNet shared one PReLU
/// per layer between all agents, `prelu4.weight`.
fn file_name(file: &TensorFile<'_>, slot: &Slot, agent: usize) -> String {
    let name = slot.file_name(agent);
    let (shared, shapes) = (slot.name(), file.shapes());
    let is_shared = slot.role == Role::HeadPrelu && !shapes.contains_key(&name);
    if is_shared && shapes.contains_key(&shared) {
        return shared;
    }
    name
}

/// One agent's part in the file's layout.
fn to_file(slot: &Slot, tensor: &Tensor, agent: usize) -> Result<Tensor> {
    if !slot.role.stacked() {
        return Ok(tensor.shallow_clone());
    }
    let part = tensor.f_select(0, as_i64(&[agent])[0])?;
    match slot.role {
        Role::HeadWeight => Ok(part.f_transpose(0, 1)?),
        _ => Ok(part.f_reshape(as_i64(&slot.file_shape()))?),
    }
}

/// The inverse of [`to_file`] for one part.
fn from_file(slot: &Slot, part: &Tensor) -> Result<Tensor> {
    match slot.role {
        Role::HeadWeight => Ok(part.f_transpose(0, 1)?),
        _ => Ok(part.shallow_clone()),
    }
}
