//! Reads weights that PyTorch saved (`torch.save` of a state dict), without Python.
//!
//! Both formats are supported: zip files, and the older one of the published
//! rl-medical weights. The state dict may be one of a training script's entries,
//! as in rl-medical's `latest_checkpoint.pt` (see `state_dict.rs`). A pickle is a program for Python; here it is only parsed as
//! a description (see `pickle.rs`), and nothing in the file is executed.

mod pickle;
mod storage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::imaging::nifti_io::Limits;
use tch::Tensor;

use crate::error::{ModelError, Result};
use crate::files::state_dict::{self, Found, Named, list};
use crate::files::tensor_file::Metadata;
use crate::files::weights::Weights;
use crate::network::layer::as_i64;
use pickle::{Id, Pickle, Value};
use storage::{Container, Element};

type Parsed<T> = std::result::Result<T, String>;

/// Metadata key of the entry of a larger file that the weights were taken from.
pub const ENTRY_KEY: &str = "landmarl.imported_entry";

/// Deepest nesting of dictionaries that is searched.
const MAX_DEPTH: usize = 8;
/// Longest path of keys to a dictionary.
const MAX_PATH: usize = 1 << 10;

/// Whether PyTorch wrote these bytes: a zip file or a pickle.
#[must_use]
pub fn is_torch(bytes: &[u8]) -> bool {
    // The first eight bytes of a safetensors file are a length and can have any value.
    let safetensors = bytes.get(8) == Some(&b'{');
    let pickle = matches!(bytes, [0x80, 2..=5, ..]);
    !safetensors && (pickle || bytes.starts_with(b"PK\x03\x04"))
}

/// Named tensors, f32 on the CPU, sorted by name.
///
/// The state dict may be the whole file or an entry of a larger dictionary. `limits` bounds
/// what the content may take: tensors can share one storage, and a zip file can be compressed.
///
/// # Errors
/// [`ModelError::NotTorchFile`] with the reason.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Vec<(String, Tensor)>> {
    Ok(read_entry(bytes, limits)?.tensors)
}

fn read_entry(bytes: &[u8], limits: &Limits) -> Result<Found<Tensor>> {
    let refuse = |reason: String| ModelError::NotTorchFile {
        size: bytes.len(),
        reason,
    };
    let (pickle, mut container) = Container::open(bytes).map_err(refuse)?;
    let (entry, described) = describe(&pickle).map_err(refuse)?;
    let all = all_storages(&pickle, &container).map_err(refuse)?;
    let keys: Vec<_> = match container {
        // Parsing the older format requires the sizes of all storages.
        Container::Legacy { .. } => all.into_iter().collect(),
        Container::Zip { .. } => {
            let used = |key: &String| described.iter().any(|t| t.key == *key);
            all.into_iter().filter(|(key, _)| used(key)).collect()
        }
    };
    let wanted: Vec<_> = keys.into_iter().map(|(key, (e, n))| (key, e, n)).collect();
    check_expansion(bytes.len(), &wanted, &described, limits).map_err(refuse)?;
    let storages = container.storages(&wanted).map_err(refuse)?;
    let mut tensors = Vec::with_capacity(described.len());
    for tensor in described {
        let place = wanted.iter().position(|(key, ..)| *key == tensor.key);
        let values = place.ok_or_else(|| format!("storage {} is missing", tensor.key));
        let values = values.and_then(|p| tensor.values(&storages[p], wanted[p].1));
        let values = values.map_err(refuse)?;
        let shaped = Tensor::f_from_slice(&values)?.f_reshape(as_i64(&tensor.size))?;
        tensors.push((tensor.name, shaped));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Found { entry, tensors })
}

/// The network of a state dict with rl-medical's names, with the caller's metadata and,
/// if it is an entry of a larger file, [`ENTRY_KEY`].
///
/// # Errors
/// As [`read`] and [`crate::files::weights::from_bytes`].
pub fn weights(bytes: &[u8], metadata: &Metadata, limits: &Limits) -> Result<Weights> {
    let found = read_entry(bytes, limits)?;
    let mut metadata = metadata.clone();
    if !found.entry.is_empty() {
        metadata.insert(ENTRY_KEY.to_owned(), found.entry);
    }
    let bytes = crate::files::tensor_file::write(&found.tensors, &metadata)?;
    crate::files::weights::from_bytes(&bytes)
}

/// Refuses storages and tensors that take much more memory than the file, before they are read.
fn check_expansion(
    len: usize,
    storages: &[(String, Element, usize)],
    tensors: &[Described],
    limits: &Limits,
) -> Parsed<()> {
    let stored = storages.iter().map(|(_, element, n)| (*n, element.bytes()));
    let read = tensors.iter().map(|t| (t.count(), size_of::<f32>()));
    let bytes = |(n, each): (usize, usize)| (n as u64).saturating_mul(each as u64);
    let needed = stored.chain(read).map(bytes).fold(0, u64::saturating_add);
    if needed <= limits.content_max(len as u64) {
        return Ok(());
    }
    let (count, limit) = (tensors.len(), limits.max_expansion);
    Err(format!(
        "its {count} tensors and their storages take {needed} bytes, more than {limit} times the \
         file, because it is compressed or tensors share a storage: save a copy of each tensor \
         (tensor.clone()), or raise data.max_expansion"
    ))
}

/// A tensor as the pickle describes it.
struct Described {
    name: String,
    key: String,
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

impl Described {
    /// How many values it has; at least that of `usize` where they cannot be counted.
    fn count(&self) -> usize {
        self.size.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// Its values in row-major order.
    fn values(&self, storage: &[u8], element: Element) -> Parsed<Vec<f32>> {
        let name = &self.name;
        if matches!(element, Element::Whole(_)) {
            return Err(format!("tensor {name} holds whole numbers, not weights"));
        }
        let outside = || format!("tensor {name} reaches beyond its storage");
        let stored = storage.len() / element.bytes();
        let product = |n: usize, d: &usize| n.checked_mul(*d);
        let count = self.size.iter().try_fold(1, product).ok_or_else(outside)?;
        // A view may repeat values, but has no more of them than were saved.
        if count > stored || self.size.len() != self.stride.len() || self.size.len() > 8 {
            return Err(outside());
        }
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; self.size.len()];
        for _ in 0..count {
            let steps = index.iter().zip(&self.stride);
            let at = steps.clone().try_fold(self.offset, |at, (i, s)| {
                at.checked_add(usize::checked_mul(*i, *s)?)
            });
            let at = at.filter(|at| *at < stored).ok_or_else(outside)? * element.bytes();
            values.push(number(&storage[at..at + element.bytes()], element));
            for (i, n) in index.iter_mut().zip(&self.size).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Ok(values)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
fn number(bytes: &[u8], element: Element) -> f32 {
    match (element, bytes) {
        (Element::F64, &[a, b, c, d, e, f, g, h]) => {
            f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32
        }
        (Element::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (Element::BF16, &[a, b]) => f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16),
        (Element::F16, &[a, b]) => half(u16::from_le_bytes([a, b])),
        _ => f32::NAN,
    }
}

/// IEEE 754 binary16 → f32, exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        e => sign * (1.0 + fraction / 1024.0) * 2_f32.powi(i32::from(e) - 15),
    }
}

/// The entry that holds the network, and its tensors.
fn describe(pickle: &Pickle) -> Parsed<(String, Vec<Described>)> {
    let dicts = dicts(pickle);
    if dicts.is_empty() {
        return Err(nothing(pickle));
    }
    let found = state_dict::choose(dicts)?;
    let tensors = found.tensors.into_iter().map(|(name, id)| {
        let described = tensor(pickle, &name, id)?;
        described.ok_or_else(|| format!("tensor {name} is not described as PyTorch does"))
    });
    Ok((found.entry, tensors.collect::<Parsed<_>>()?))
}

/// Every dictionary with tensors, with the keys that lead to it, outer ones first.
fn dicts(pickle: &Pickle) -> Vec<(String, Named<Id>)> {
    let mut open = VecDeque::from([(String::new(), pickle.root(), 0)]);
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some((path, id, depth)) = open.pop_front() {
        if !seen.insert(id) || depth > MAX_DEPTH {
            continue;
        }
        let mut tensors = Named::new();
        for (key, value) in pickle.entries(id).unwrap_or_default() {
            if matches!(pickle.get(value), Value::Dict(_)) {
                // Longer paths lead to no network, and many of them would fill the memory.
                let inner = state_dict::joined(&path, key);
                if inner.len() <= MAX_PATH {
                    open.push_back((inner, value, depth + 1));
                }
            } else if rebuilt(pickle, value).is_some() {
                tensors.push((key.to_owned(), value));
            }
        }
        if !tensors.is_empty() {
            found.push((path, tensors));
        }
    }
    found
}

/// What a file without a state dict holds.
fn nothing(pickle: &Pickle) -> String {
    let root = pickle.root();
    let save = "save model.state_dict()";
    match pickle.get(root) {
        Value::Call { name, .. } if name.starts_with("__torch__") => {
            "it holds no state dict, but a TorchScript program, as torch.jit.save writes".to_owned()
        }
        Value::Call { name, .. } if rebuilt(pickle, root).is_none() => {
            let class = name.replace(' ', ".");
            format!("it holds no state dict, but a whole object of class {class}: {save}")
        }
        Value::Dict(entries) if !entries.is_empty() => {
            let keys: Vec<&str> = pickle
                .entries(root)
                .unwrap_or_default()
                .iter()
                .map(|e| e.0)
                .collect();
            let keys = list(&keys);
            format!("it holds no state dict; its keys are {keys}: {save}")
        }
        _ => format!("it holds no state dict: {save}"),
    }
}

/// The arguments of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`, or
/// those of a parameter made of one; `None` for anything else.
fn rebuilt(pickle: &Pickle, id: Id) -> Option<&[Id]> {
    let call = |id: Id| match pickle.get(id) {
        Value::Call { name, arguments } => {
            Some((name.as_str(), pickle.tuple(*arguments).unwrap_or_default()))
        }
        _ => None,
    };
    let inner = match call(id)? {
        ("torch._utils _rebuild_parameter", [inner, ..]) => call(*inner)?,
        other => other,
    };
    (inner.0 == "torch._utils _rebuild_tensor_v2").then_some(inner.1)
}

/// A tensor as it is described; `None` for anything else.
fn tensor(pickle: &Pickle, name: &str, id: Id) -> Parsed<Option<Described>> {
    let Some([storage, offset, size, stride, ..]) = rebuilt(pickle, id) else {
        return Ok(None);
    };
    let whole = || {
        Some(Described {
            name: name.to_owned(),
            key: storage_of(pickle, *storage)?.0,
            offset: pickle.size(*offset)?,
            size: pickle.sizes(*size)?,
            stride: pickle.sizes(*stride)?,
        })
    };
    whole()
        .map(Some)
        .ok_or_else(|| format!("tensor {name} is not described as PyTorch does"))
}

/// `('storage', torch.FloatStorage, key, location, elements, …)`.
fn storage_of(pickle: &Pickle, id: Id) -> Option<(String, Element, usize)> {
    let Value::Persistent(inner) = pickle.get(id) else {
        return None;
    };
    let [tag, class, key, _, count, view @ ..] = pickle.tuple(*inner)? else {
        return None;
    };
    // A view of another storage: PyTorch before 0.4.
    if view.iter().any(|&v| *pickle.get(v) != Value::None) {
        return None;
    }
    let Value::Name(class) = pickle.get(*class) else {
        return None;
    };
    let element = Element::named(class)?;
    let count = pickle.size(*count).filter(|n| n.checked_mul(8).is_some())?;
    (pickle.text(*tag)? == "storage").then_some(())?;
    Some((pickle.text(*key)?.to_owned(), element, count))
}

type Storages = BTreeMap<String, (Element, usize)>;

/// Every storage that the pickle refers to; of a zip file, those of known types.
fn all_storages(pickle: &Pickle, container: &Container<'_>) -> Parsed<Storages> {
    let mut all = Storages::new();
    for id in 0..pickle.len() {
        if !matches!(pickle.get(id), Value::Persistent(_)) {
            continue;
        }
        let Some((key, element, count)) = storage_of(pickle, id) else {
            if matches!(container, Container::Zip { .. }) {
                continue;
            }
            return Err("a storage that is not described as PyTorch does".into());
        };
        let before = all.insert(key.clone(), (element, count));
        if before.is_some_and(|b| b != (element, count)) {
            return Err(format!("storage {key} is described in two ways"));
        }
    }
    Ok(all)
}

#[cfg(test)]
#[path = "torch_file/tests.rs"]
mod tests;
