//! Named tensors ↔ safetensors bytes.
//!
//! The written bytes depend only on their content: keys and tensors are in a fixed
//! order. The `safetensors` crate's own writer does not guarantee that for
//! metadata, so the header is written here.

use std::collections::{BTreeMap, BTreeSet};

use common::imaging::manifest::hex;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};

use crate::error::{ModelError, Result};
use crate::files::foreign;
use crate::network::layer::as_i64;

/// Text stored along with tensors.
pub type Metadata = BTreeMap<String, String>;

const METADATA: &str = "__metadata__";

/// Metadata key of the SHA-256 of everything else in the file, hexadecimal.
pub const DIGEST_KEY: &str = "landmarl.sha256";

/// The digest's characters.
const DIGEST_CHARS: usize = 64;

/// Writes tensors (f32, bf16, f16, f64, i64 or u8, from any device) and metadata.
///
/// # Errors
/// [`ModelError::TensorType`] for another kind; libtorch's error when a tensor
/// cannot be read.
pub fn write(tensors: &[(String, Tensor)], metadata: &Metadata) -> Result<Vec<u8>> {
    let mut ordered = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let kind = tensor.f_kind()?;
        let known = DTYPES.iter().find(|(_, k)| *k == kind);
        let (dtype, _) = known.ok_or_else(|| wrong_type(name, ALL_TYPES, kind))?;
        ordered.push((name, tensor, *dtype));
    }
    // Wide types first, so that every tensor is aligned.
    ordered.sort_by(|a, b| b.2.bitsize().cmp(&a.2.bitsize()).then(a.0.cmp(b.0)));

    let mut header = serde_json::Map::new();
    header.insert(METADATA.to_owned(), json(metadata)?);
    let mut end = 0;
    for (name, tensor, dtype) in &ordered {
        let sizes = tensor.size().into_iter();
        let shape: Vec<usize> = sizes.map(|n| usize::try_from(n).unwrap_or(0)).collect();
        let begin = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let info = TensorInfo {
            dtype: *dtype,
            shape,
            data_offsets: (begin, end),
        };
        header.insert((*name).clone(), json(&info)?);
    }
    let mut bytes = header_bytes(&header, end)?;
    for (_, tensor, dtype) in &ordered {
        let start = bytes.len();
        let count = tensor.numel();
        bytes.resize(start + count * dtype.bitsize() / 8, 0);
        let flat = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        flat.f_copy_data_u8(&mut bytes[start..], count)?;
    }
    Ok(bytes)
}

/// Writes as [`write()`], and stores the digest of it all under [`DIGEST_KEY`].
///
/// # Errors
/// As [`write()`].
pub fn write_sealed(tensors: &[(String, Tensor)], metadata: &Metadata) -> Result<Vec<u8>> {
    let mut metadata = metadata.clone();
    metadata.insert(DIGEST_KEY.to_owned(), "0".repeat(DIGEST_CHARS));
    fill_digest(write(tensors, &metadata)?)
}

/// Replaces the zeros in the place of the digest: the header precedes the data that it covers.
fn fill_digest(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let file = TensorFile::open(&bytes)?;
    let (digest, header) = (file.digest(), bytes.len() - file.data.len());
    let mark = format!("\"{DIGEST_KEY}\":\"{}\"", "0".repeat(DIGEST_CHARS));
    let found = bytes[..header].windows(mark.len());
    let found = found.into_iter().position(|w| w == mark.as_bytes());
    let missing = || ModelError::Metadata {
        key: DIGEST_KEY.to_owned(),
        reason: "the header has no place for it".to_owned(),
    };
    let end = found.ok_or_else(missing)? + mark.len() - 1;
    bytes[end - DIGEST_CHARS..end].copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// The length of the header and the header, with room for `data` bytes behind it.
fn header_bytes(
    header: &serde_json::Map<String, serde_json::Value>,
    data: usize,
) -> Result<Vec<u8>> {
    let mut text = json(header)?.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + text.len() + data);
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
    Ok(bytes)
}

/// The same file with more metadata, and with its digest under [`DIGEST_KEY`]; the bytes of
/// the tensors stay as they are.
///
/// # Errors
/// As [`TensorFile::open`].
pub fn seal(bytes: &[u8], more: &Metadata) -> Result<Vec<u8>> {
    let mut metadata = TensorFile::open(bytes)?.metadata;
    metadata.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
    metadata.insert(DIGEST_KEY.to_owned(), "0".repeat(DIGEST_CHARS));
    let refuse = |reason: String| ModelError::NotSafetensors {
        size: bytes.len(),
        reason,
    };
    let parts = bytes.split_first_chunk::<8>().and_then(|(length, rest)| {
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
    });
    let (header, data) = parts.ok_or_else(|| refuse("it is cut off".to_owned()))?;
    let header = serde_json::from_slice(header);
    let mut header: serde_json::Map<String, serde_json::Value> =
        header.map_err(|e| refuse(e.to_string()))?;
    header.insert(METADATA.to_owned(), json(&metadata)?);
    let mut written = header_bytes(&header, data.len())?;
    written.extend(data);
    fill_digest(written)
}

/// The types in [`DTYPES`].
const ALL_TYPES: &str = "F32, BF16, F16, F64, I64 or U8";

const DTYPES: [(Dtype, Kind); 6] = [
    (Dtype::F32, Kind::Float),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F16, Kind::Half),
    (Dtype::F64, Kind::Double),
    (Dtype::I64, Kind::Int64),
    (Dtype::U8, Kind::Uint8),
];

fn wrong_type(name: &str, expected: &'static str, found: impl std::fmt::Debug) -> ModelError {
    ModelError::TensorType {
        name: name.to_owned(),
        expected,
        found: format!("{found:?}"),
    }
}

fn wrong_shape(name: &str, expected: &[usize], found: &[usize]) -> ModelError {
    ModelError::TensorShape {
        name: name.to_owned(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    }
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| ModelError::Metadata {
        key: METADATA.to_owned(),
        reason: e.to_string(),
    })
}

/// Reads every tensor, on the CPU, sorted by name, and the metadata.
///
/// # Errors
/// As [`TensorFile::open`]; [`ModelError::TensorType`] and
/// [`ModelError::TensorShape`] for types and shapes that [`write()`] never writes.
pub fn read(bytes: &[u8]) -> Result<(Vec<(String, Tensor)>, Metadata)> {
    let file = TensorFile::open(bytes)?;
    let mut tensors = Vec::with_capacity(file.shapes.len());
    for (name, shape) in &file.shapes {
        tensors.push((name.clone(), file.raw(name, shape)?));
    }
    Ok((tensors, file.metadata))
}

/// An opened safetensors file: names, shapes and metadata are validated; values
/// are copied on request.
#[derive(Debug)]
pub struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    /// Names in the file, by the names that are used here.
    stored: BTreeMap<String, String>,
    shapes: BTreeMap<String, Vec<usize>>,
    metadata: Metadata,
    /// The bytes of all tensors.
    data: &'a [u8],
}

impl<'a> TensorFile<'a> {
    /// Opens a file's bytes.
    ///
    /// # Errors
    /// [`ModelError::NotSafetensors`] for anything but a complete file.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let refuse = |e: safetensors::SafeTensorError| ModelError::NotSafetensors {
            size: bytes.len(),
            reason: foreign::reason(bytes, &e),
        };
        let (length, header) = SafeTensors::read_metadata(bytes).map_err(refuse)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(refuse)?;
        let shapes = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), view.shape().to_vec()));
        let shapes: BTreeMap<_, _> = shapes.collect();
        let metadata = header.metadata().iter().flatten();
        Ok(Self {
            stored: shapes.keys().map(|n| (n.clone(), n.clone())).collect(),
            shapes,
            metadata: metadata.map(|(k, v)| (k.clone(), v.clone())).collect(),
            tensors,
            data: bytes.get(8 + length..).unwrap_or_default(),
        })
    }

    /// SHA-256, in hex, of all metadata except the digest itself, and of the tensors with
    /// their names and shapes.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut text = |text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for (key, value) in self.metadata.iter().filter(|(key, _)| *key != DIGEST_KEY) {
            text(key);
            text(value);
        }
        for (name, shape) in &self.shapes {
            text(name);
            text(&format!("{shape:?}"));
        }
        hasher.update(self.data);
        hex(&hasher.finalize())
    }

    /// Compares the digest that the file records with its content; files without one pass.
    ///
    /// # Errors
    /// [`ModelError::Damaged`] if they differ.
    pub fn check_digest(&self) -> Result<()> {
        let Some(recorded) = self.metadata.get(DIGEST_KEY).cloned() else {
            return Ok(());
        };
        let found = self.digest();
        if recorded == found {
            return Ok(());
        }
        Err(ModelError::Damaged { found, recorded })
    }

    /// Shape of each tensor, by name.
    #[must_use]
    pub fn shapes(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.shapes
    }

    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Gives tensors other names, as pairs of the new name and the one before; forgets the others.
    pub(super) fn rename(&mut self, names: Vec<(String, String)>) {
        let mut shapes = BTreeMap::new();
        let mut stored = BTreeMap::new();
        for (name, before) in names {
            if let (Some(shape), Some(place)) = (self.shapes.get(&before), self.stored.get(&before))
            {
                shapes.insert(name.clone(), shape.clone());
                stored.insert(name, place.clone());
            }
        }
        (self.shapes, self.stored) = (shapes, stored);
    }

    /// A tensor of the given shape as f32 on the CPU; stored as f32, f64, bf16 or f16.
    ///
    /// # Errors
    /// Names the tensor and the expected and found shape or type.
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let view = self.view(name, shape)?;
        if !matches!(
            view.dtype(),
            Dtype::F32 | Dtype::F64 | Dtype::BF16 | Dtype::F16
        ) {
            return Err(wrong_type(name, "F32, F64, BF16 or F16", view.dtype()));
        }
        Ok(self.raw(name, shape)?.f_to_kind(Kind::Float)?)
    }

    /// The first tensor whose name is not among `known`.
    #[must_use]
    pub fn first_extra(&self, known: &BTreeSet<String>) -> Option<&str> {
        self.shapes
            .keys()
            .find(|name| !known.contains(*name))
            .map(String::as_str)
    }

    fn view(&self, name: &str, shape: &[usize]) -> Result<safetensors::tensor::TensorView<'a>> {
        let missing = || ModelError::MissingTensor {
            name: name.to_owned(),
            expected: shape.to_vec(),
        };
        let stored = self.stored.get(name);
        let view = stored.and_then(|stored| self.tensors.tensor(stored).ok());
        let view = view.ok_or_else(missing)?;
        if view.shape() == shape {
            return Ok(view);
        }
        Err(wrong_shape(name, shape, view.shape()))
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let view = self.view(name, shape)?;
        let known = DTYPES.iter().find(|(dtype, _)| *dtype == view.dtype());
        let (_, kind) = known.ok_or_else(|| wrong_type(name, ALL_TYPES, view.dtype()))?;
        // An empty tensor may claim any size on its other axes, which overflows
        // libtorch's arithmetic.
        if shape.contains(&0) {
            return Err(wrong_shape(name, &[1], shape));
        }
        let shape = as_i64(shape);
        Ok(Tensor::f_from_data_size(view.data(), &shape, *kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(String, Tensor)> {
        let square = Tensor::from_slice(&[1.5_f32, -2.0, 3.25, 0.0]).reshape([2, 2]);
        let half = Tensor::from_slice(&[2.0_f32]).to_kind(Kind::BFloat16);
        let scalar = Tensor::from_slice(&[4.0_f64]).reshape([] as [i64; 0]);
        vec![
            ("b".to_owned(), square),
            ("a".to_owned(), Tensor::from_slice(&[7_u8, 8, 9])),
            ("c".to_owned(), Tensor::from_slice(&[i64::MIN, 3])),
            ("d".to_owned(), half),
            (
                "f".to_owned(),
                Tensor::from_slice(&[0.5_f32]).to_kind(Kind::Half),
            ),
            ("e".to_owned(), scalar),
        ]
    }

    fn notes() -> Metadata {
        let note = |i: u32| (format!("key {i}"), format!("\"value\" {i}\n"));
        (0..20).map(note).collect()
    }

    #[test]
    fn tensors_come_back_and_bytes_are_always_the_same() {
        let bytes = write(&sample(), &notes()).unwrap();
        let mut backwards = sample();
        backwards.reverse();
        assert_eq!(bytes, write(&backwards, &notes()).unwrap());
        let (tensors, metadata) = read(&bytes).unwrap();
        assert_eq!(metadata, notes());
        for (name, tensor) in sample() {
            let (_, found) = tensors.iter().find(|(n, _)| *n == name).unwrap();
            assert_eq!(found.kind(), tensor.kind(), "{name}");
            assert!(found.equal(&tensor), "{name}");
        }
    }

    #[test]
    fn metadata_is_added_and_the_bytes_of_the_tensors_stay() {
        let bytes = write(&sample(), &notes()).unwrap();
        let more = Metadata::from([
            ("key 3".to_owned(), "other".to_owned()),
            ("long".to_owned(), "ab".repeat(5000)),
        ]);
        let changed = seal(&bytes, &more).unwrap();
        let mut all = notes();
        all.extend(more);
        // Equal to what is written with all of it at once.
        assert_eq!(changed, write_sealed(&sample(), &all).unwrap());
        assert_eq!(changed, seal(&changed, &Metadata::new()).unwrap());
        assert!(seal(&bytes[..bytes.len() - 1], &all).is_err());
    }

    #[test]
    fn a_changed_bit_in_any_byte_of_a_sealed_file_is_found() {
        let check = |bytes: &[u8]| TensorFile::open(bytes)?.check_digest();
        assert!(check(&write(&sample(), &notes()).unwrap()).is_ok(), "none");
        let tricky = format!("\"{DIGEST_KEY}\":\"{}\"", "0".repeat(DIGEST_CHARS));
        let more = Metadata::from([("a".to_owned(), tricky)]);
        let good = write_sealed(&sample(), &more).unwrap();
        assert!(check(&good).is_ok());
        let recorded = TensorFile::open(&good).unwrap().digest();
        let contents = |bytes: &[u8]| {
            let file = TensorFile::open(bytes).unwrap();
            let mut metadata = file.metadata.clone();
            // A changed key of the digest is that of another program's file.
            metadata.retain(|_, value| *value != recorded);
            (metadata, file.shapes.clone(), file.data.to_vec())
        };
        for place in 0..good.len() {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << (place % 8);
            // What passes, such as other white space, means the same.
            if check(&bytes).is_ok() {
                assert_eq!(contents(&bytes), contents(&good), "byte {place}");
            }
        }
        let mut last = good.clone();
        *last.last_mut().unwrap() ^= 1;
        let error = check(&last).unwrap_err();
        assert!(matches!(error, ModelError::Damaged { .. }), "{error}");
    }

    #[test]
    fn files_of_other_formats_are_named() {
        let whole = write(&sample(), &notes()).unwrap();
        for (bytes, words) in [
            (&b""[..], "it is empty"),
            (&whole[..40], "it is cut off or damaged"),
            (
                b"<!DOCTYPE html>",
                "it is a web page; download the file again",
            ),
            (
                b"version https://git-lfs.github.com/spec/v1",
                "`git lfs pull`",
            ),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
            (b"any text, such as this", "it has another format"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }

    #[test]
    fn the_crate_reads_what_we_write() {
        let bytes = write(&sample(), &notes()).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 6);
        assert_eq!(file.tensor("a").unwrap().data(), [7, 8, 9]);
        assert_eq!(file.tensor("b").unwrap().data()[..4], 1.5_f32.to_le_bytes());
    }

    #[test]
    fn empty_tensors_and_odd_types_are_refused() {
        let empty = safetensors::tensor::TensorView::new(Dtype::F32, vec![0, usize::MAX / 8], &[]);
        let file = safetensors::serialize([("x", empty.unwrap())], None);
        if let Ok(file) = file {
            assert!(read(&file).is_err());
        }
        let half = safetensors::tensor::TensorView::new(Dtype::I8, vec![2], &[1, 2]).unwrap();
        let file = safetensors::serialize([("x", half)], None).unwrap();
        assert!(matches!(read(&file), Err(ModelError::TensorType { .. })));
        let int = [("x".to_owned(), Tensor::from_slice(&[1_i32]))];
        let error = write(&int, &Metadata::new()).unwrap_err();
        assert!(matches!(error, ModelError::TensorType { .. }), "{error}");
    }
}
