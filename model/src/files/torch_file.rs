//! Reads weights that PyTorch saved (`torch.save` of a state dict), without Python.
//!
//! Both formats are supported: zip files, and the older one of the published
//! rl-medical weights. A pickle is a program for Python; here it is only parsed as
//! a description (see `pickle.rs`), and nothing in the file is executed.

mod pickle;
mod storage;

use std::collections::BTreeMap;

use tch::Tensor;

use crate::error::{ModelError, Result};
use crate::files::tensor_file::Metadata;
use crate::files::weights::Weights;
use crate::network::layer::as_i64;
use pickle::{Id, Pickle, Value};
use storage::{Container, Element};

type Parsed<T> = std::result::Result<T, String>;

/// Keys that training scripts use for the weights in a larger dictionary.
const NESTED: [&str; 4] = ["model_state_dict", "state_dict", "model", "weights"];

/// Named tensors, f32 on the CPU, sorted by name.
///
/// The state dict may be the whole file or the value of `model_state_dict`,
/// `state_dict`, `model` or `weights`.
///
/// # Errors
/// [`ModelError::NotTorchFile`] with the reason.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let refuse = |reason: String| ModelError::NotTorchFile {
        size: bytes.len(),
        reason,
    };
    let (pickle, mut container) = Container::open(bytes).map_err(refuse)?;
    let described = describe(&pickle).map_err(refuse)?;
    // Parsing the older format requires the sizes of all storages.
    let all = all_storages(&pickle).map_err(refuse)?;
    let keys: Vec<_> = match container {
        Container::Legacy { .. } => all.into_iter().collect(),
        Container::Zip { .. } => {
            let used = |key: &String| described.iter().any(|t| t.key == *key);
            all.into_iter().filter(|(key, _)| used(key)).collect()
        }
    };
    let wanted: Vec<_> = keys.into_iter().map(|(key, (e, n))| (key, e, n)).collect();
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
    Ok(tensors)
}

/// The network of a state dict with rl-medical's names, with the caller's metadata.
///
/// # Errors
/// As [`read`] and [`crate::files::weights::from_bytes`].
pub fn weights(bytes: &[u8], metadata: &Metadata) -> Result<Weights> {
    crate::files::weights::from_bytes(&crate::files::tensor_file::write(&read(bytes)?, metadata)?)
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

/// The tensors of the state dict.
fn describe(pickle: &Pickle) -> Parsed<Vec<Described>> {
    let entries = |id| pickle.entries(id).unwrap_or_default();
    let tensors = |id: Id| -> Parsed<Vec<Described>> {
        let found = entries(id).into_iter();
        let found = found.filter_map(|(name, value)| tensor(pickle, name, value).transpose());
        found.collect()
    };
    let direct = tensors(pickle.root())?;
    if !direct.is_empty() {
        return Ok(direct);
    }
    for (key, value) in entries(pickle.root()) {
        if NESTED.contains(&key) {
            let nested = tensors(value)?;
            if !nested.is_empty() {
                return Ok(nested);
            }
        }
    }
    Err("it holds no state dict: save model.state_dict()".into())
}

/// Parses `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`, or a
/// parameter made of one; `None` for anything else.
fn tensor(pickle: &Pickle, name: &str, id: Id) -> Parsed<Option<Described>> {
    let call = |id: Id| match pickle.get(id) {
        Value::Call { name, arguments } => {
            Some((name.as_str(), pickle.tuple(*arguments).unwrap_or_default()))
        }
        _ => None,
    };
    let rebuilt = match call(id) {
        Some(("torch._utils _rebuild_parameter", [inner, ..])) => call(*inner),
        other => other,
    };
    let Some(("torch._utils _rebuild_tensor_v2", [storage, offset, size, stride, ..])) = rebuilt
    else {
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

/// Every storage that the pickle refers to.
fn all_storages(pickle: &Pickle) -> Parsed<Storages> {
    let mut all = Storages::new();
    for id in 0..pickle.len() {
        if let Value::Persistent(_) = pickle.get(id) {
            let (key, element, count) =
                storage_of(pickle, id).ok_or("a storage that is not described as PyTorch does")?;
            let before = all.insert(key.clone(), (element, count));
            if before.is_some_and(|b| b != (element, count)) {
                return Err(format!("storage {key} is described in two ways"));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
#[path = "torch_file/tests.rs"]
mod tests;
