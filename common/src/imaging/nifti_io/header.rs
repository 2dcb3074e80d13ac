//! Validates a header before its values are used.

use std::path::Path;

use super::fields::{Fields, Version};
use super::foreign;
use super::{Limits, MAX_AXIS, ReadError};
use crate::imaging::scan::ScanWarning;

/// Largest accepted voxel offset.
const MAX_OFFSET: f64 = 4_294_967_296.0;
/// Bytes 8 to 12 of a NIfTI-2 magic.
const LINE_ENDS: [u8; 4] = *b"\r\n\x1a\n";

/// Scalar types; all others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datatype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Datatype {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Location of the voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// After the header.
    Same,
    /// In the other file of a `.hdr`/`.img` pair.
    Beside,
}

/// Layout of the voxels in their file.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dims: [usize; 3],
    pub(super) datatype: Datatype,
    pub(super) big_endian: bool,
    pub(super) offset: u64,
    /// `value · slope + inter`, `None` where the stored value is the value.
    pub(super) scaling: Option<(f64, f64)>,
    /// About the fields above.
    pub(super) warnings: Vec<ScanWarning>,
}

impl Layout {
    /// Total number of voxels; validation keeps it in range.
    pub(super) fn voxels(&self) -> usize {
        self.dims.iter().product()
    }

    /// Total bytes of voxels; validation keeps it in range.
    pub(super) fn bytes(&self) -> u64 {
        self.voxels() as u64 * self.datatype.bytes() as u64
    }

    /// The header's claim, for messages.
    pub(super) fn claim(&self) -> String {
        let size = self.datatype.bytes();
        format!("a grid of {:?} at {size} B per voxel", self.dims)
    }
}

/// The version, byte order and voxel location of a header; an error describes other files.
pub(super) fn identify(bytes: &[u8], path: &Path) -> Result<(Version, bool, Place), ReadError> {
    let known = Version::claimed(bytes).and_then(|(version, big_endian)| {
        let magic = version.magic(bytes);
        let place = version.magics().iter().position(|m| *m == magic)?;
        let place = [Place::Same, Place::Beside][place];
        Some((version, big_endian, place))
    });
    if let Some(known) = known {
        return Ok(known);
    }
    if let Some(error) = foreign::foreign(bytes, path) {
        return Err(error);
    }
    if Version::One.magics().contains(&Version::One.magic(bytes)) {
        let size = bytes.first_chunk().map_or(0, |b| i32::from_le_bytes(*b));
        return Err(bad(path, "sizeof_hdr", format!("is {size}, not 348")));
    }
    Err(foreign::unknown(bytes, path))
}

/// Validates a header: type, shape, size, offset, scaling.
pub(super) fn layout(
    header: &Fields,
    place: Place,
    path: &Path,
    limits: &Limits,
) -> Result<Layout, ReadError> {
    if header.version == Version::Two && ![LINE_ENDS, [0; 4]].contains(&header.line_ends) {
        let found = header.line_ends.escape_ascii();
        let problem = format!("ends in \"{found}\", so line ends were converted in a binary file");
        return Err(bad(path, "magic", problem));
    }
    let dims = dims(header, path, limits)?;
    let mut warnings = Vec::new();
    Ok(Layout {
        dims,
        datatype: datatype(header, path, &mut warnings)?,
        big_endian: header.big_endian,
        offset: offset(header, place, path)?,
        scaling: scaling(header, &mut warnings),
        warnings,
    })
}

fn bad(path: &Path, field: &'static str, problem: String) -> ReadError {
    ReadError::BadHeader {
        path: path.to_owned(),
        field,
        problem,
    }
}

fn dims(header: &Fields, path: &Path, limits: &Limits) -> Result<[usize; 3], ReadError> {
    let rank = header.dim[0];
    let shape = usize::try_from(rank)
        .ok()
        .filter(|rank| (1..=7).contains(rank))
        .map(|rank| &header.dim[1..=rank])
        .ok_or_else(|| bad(path, "dim[0]", format!("is {rank}, not 1 to 7")))?;
    let (path, claimed) = (path.to_owned(), shape.to_vec());
    if shape.iter().any(|&d| d < 1) {
        let dims = claimed;
        return Err(ReadError::ZeroDims { path, dims });
    }
    let (&[x, y, z, ..], true) = (shape, shape.iter().skip(3).all(|&d| d == 1)) else {
        let shape = claimed;
        return Err(ReadError::NotThreeD { path, shape });
    };
    let mut dims = [0; 3];
    for (to, from) in dims.iter_mut().zip([x, y, z]) {
        *to = match usize::try_from(from) {
            Ok(dim) if dim <= MAX_AXIS => dim,
            _ => {
                let shape = claimed;
                return Err(ReadError::AxisTooLong { path, shape });
            }
        };
    }
    // MAX_AXIS^3 < 2^45: no overflow.
    let voxels = dims.iter().map(|&d| d as u64).product();
    if voxels > limits.max_voxels || usize::try_from(voxels * 8).is_err() {
        let limit = limits.max_voxels;
        return Err(ReadError::TooManyVoxels {
            path,
            dims,
            voxels,
            limit,
        });
    }
    Ok(dims)
}

/// The datatype decides, whatever `bitpix` says, as in nibabel and ITK.
fn datatype(
    header: &Fields,
    path: &Path,
    warnings: &mut Vec<ScanWarning>,
) -> Result<Datatype, ReadError> {
    let code = header.datatype;
    let known = match code {
        2 => Ok(Datatype::U8),
        4 => Ok(Datatype::I16),
        8 => Ok(Datatype::I32),
        16 => Ok(Datatype::F32),
        64 => Ok(Datatype::F64),
        256 => Ok(Datatype::I8),
        512 => Ok(Datatype::U16),
        768 => Ok(Datatype::U32),
        1024 => Ok(Datatype::I64),
        1280 => Ok(Datatype::U64),
        1 => Err("binary (1 bit)"),
        32 => Err("complex64"),
        128 => Err("RGB24"),
        1536 => Err("float128"),
        1792 => Err("complex128"),
        2048 => Err("complex256"),
        2304 => Err("RGBA32"),
        _ => Err("unknown"),
    };
    let datatype = known.map_err(|name| ReadError::UnsupportedDatatype {
        path: path.to_owned(),
        name,
        code,
    })?;
    let bits = i16::try_from(datatype.bytes() * 8).unwrap_or(i16::MAX);
    if header.bitpix != bits {
        warnings.push(ScanWarning::Bitpix {
            bitpix: header.bitpix,
            datatype: bits,
        });
    }
    Ok(datatype)
}

/// Offset of the voxels: any in a file of their own, else after the header and
/// the four bytes that announce extensions, which 0 also means.
fn offset(header: &Fields, place: Place, path: &Path) -> Result<u64, ReadError> {
    let least = match place {
        Place::Same => header.version.header_len() as u64 + 4,
        Place::Beside => 0,
    };
    let offset = header.vox_offset;
    if offset == 0.0 {
        return Ok(least);
    }
    if offset.fract() == 0.0 && (0.0..=MAX_OFFSET).contains(&offset) {
        let whole = offset as u64;
        if whole >= least {
            return Ok(whole);
        }
    }
    let problem = format!("is {offset}, not a whole number of bytes from {least} on");
    Err(bad(path, "vox_offset", problem))
}

/// A slope of 0, NaN or infinity means no scaling, as in nibabel. An intercept that is not
/// finite is 0, as in ITK.
fn scaling(header: &Fields, warnings: &mut Vec<ScanWarning>) -> Option<(f64, f64)> {
    let (slope, mut inter) = (header.slope, header.inter);
    if slope == 0.0 || !slope.is_finite() {
        return None;
    }
    if !inter.is_finite() {
        warnings.push(ScanWarning::Intercept);
        inter = 0.0;
    }
    (slope != 1.0 || inter != 0.0).then_some((slope, inter))
}
