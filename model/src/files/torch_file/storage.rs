//! Raw values of a PyTorch file, by the key of their storage.

use std::io::{Cursor, Read as _};

use zip::ZipArchive;

use super::pickle::{Pickle, Value};

/// The first bytes of every file in the format before PyTorch 1.6.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;
/// A pickle only describes tensors, so it is small.
const MAX_PICKLE: u64 = 64 << 20;

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    /// Integers of this many bytes, which are never weights.
    Whole(usize),
}

impl Element {
    /// Parses the name of PyTorch's class.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("torch ")? {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::Whole(8),
            "IntStorage" => Self::Whole(4),
            "ShortStorage" => Self::Whole(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Self::Whole(1),
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Whole(bytes) => bytes,
        }
    }
}

/// The description, and the location of its values.
pub(super) enum Container<'a> {
    /// Since PyTorch 1.6: a zip file with `<name>/data.pkl` and `<name>/data/<key>`.
    Zip {
        archive: Box<ZipArchive<Cursor<&'a [u8]>>>,
        prefix: String,
    },
    /// Before: pickles, then the number of elements and the elements of each storage.
    Legacy {
        /// The bytes after the pickles.
        rest: &'a [u8],
        /// In the order of the file.
        keys: Vec<String>,
    },
}

impl<'a> Container<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<(Pickle, Self), String> {
        if bytes.starts_with(b"PK") {
            Self::zipped(bytes)
        } else {
            Self::legacy(bytes)
        }
    }

    fn zipped(bytes: &'a [u8]) -> Result<(Pickle, Self), String> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
        let data = {
            let mut names = archive.file_names().flatten();
            let data = names.find(|name| name.ends_with("data.pkl"));
            data.ok_or("a zip file without data.pkl")?.into_owned()
        };
        let prefix = data.trim_end_matches("data.pkl").to_owned();
        let order = entry(&mut archive, &format!("{prefix}byteorder"), 16);
        if order.is_ok_and(|order| order == b"big") {
            return Err("it was written on a big-endian machine".into());
        }
        let pickle = Pickle::read(&entry(&mut archive, &data, MAX_PICKLE)?)?;
        let archive = Box::new(archive);
        Ok((pickle, Self::Zip { archive, prefix }))
    }

    fn legacy(bytes: &'a [u8]) -> Result<(Pickle, Self), String> {
        let other = || "neither a zip file nor PyTorch's older format".to_owned();
        let mut rest = bytes;
        let mut next = || {
            let window = &rest[..rest.len().min(MAX_PICKLE as usize)];
            let pickle = Pickle::read(window)?;
            rest = &rest[pickle.length..];
            Ok::<Pickle, String>(pickle)
        };
        let magic = next().map_err(|_| other())?;
        if *magic.get(magic.root()) != Value::Long(LEGACY_MAGIC.to_vec()) {
            return Err(other());
        }
        let protocol = next()?;
        if *protocol.get(protocol.root()) != Value::Int(LEGACY_PROTOCOL) {
            return Err("an unknown version of PyTorch's older format".into());
        }
        let _machine = next()?;
        let described = next()?;
        let keys = next()?;
        let named = keys.tuple(keys.root()).ok_or("no list of storages")?;
        let named = named.iter().map(|&id| keys.text(id).map(str::to_owned));
        let keys = named
            .collect::<Option<Vec<_>>>()
            .ok_or("a storage without name")?;
        Ok((described, Self::Legacy { rest, keys }))
    }

    /// The bytes of each storage of `wanted`: key, element and number of elements.
    pub(super) fn storages(
        &mut self,
        wanted: &[(String, Element, usize)],
    ) -> Result<Vec<Vec<u8>>, String> {
        match self {
            Self::Zip { archive, prefix } => {
                let read = |(key, element, count): &(String, Element, usize)| {
                    let length = count * element.bytes();
                    let name = format!("{prefix}data/{key}");
                    let bytes = entry(archive, &name, length as u64)?;
                    let found = bytes.len();
                    if found < length {
                        return Err(format!("storage {key} has {found} of {length} bytes"));
                    }
                    Ok(bytes)
                };
                wanted.iter().map(read).collect()
            }
            Self::Legacy { rest, keys } => legacy_storages(rest, keys, wanted),
        }
    }
}

fn entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, String> {
    let file = archive.by_name(name).map_err(|e| format!("{name}: {e}"))?;
    let mut bytes = Vec::new();
    // One byte more, to detect longer content.
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("{name}: {e}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{name} is longer than the {limit} bytes expected"));
    }
    Ok(bytes)
}

/// The sizes of elements are known only from the description, so the storages are
/// read in the order of the file.
fn legacy_storages(
    mut rest: &[u8],
    keys: &[String],
    wanted: &[(String, Element, usize)],
) -> Result<Vec<Vec<u8>>, String> {
    let mut found: Vec<Option<Vec<u8>>> = vec![None; wanted.len()];
    for key in keys {
        let place = wanted.iter().position(|(k, ..)| k == key);
        let place = place.ok_or_else(|| format!("storage {key} is not described"))?;
        let (_, element, count) = wanted[place];
        let (head, elements) = rest.split_at_checked(8).ok_or("it is cut off")?;
        let stored = head.try_into().map(u64::from_le_bytes).unwrap_or(0);
        if stored != count as u64 {
            return Err(format!("storage {key} has {stored} numbers, not {count}"));
        }
        let parts = elements.split_at_checked(count * element.bytes());
        let (numbers, after) = parts.ok_or("it is cut off")?;
        found[place] = Some(numbers.to_vec());
        rest = after;
    }
    let all = found.into_iter().zip(wanted);
    all.map(|(bytes, (key, ..))| bytes.ok_or_else(|| format!("storage {key} is missing")))
        .collect()
}
