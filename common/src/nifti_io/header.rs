//! What the first 348 bytes say, checked before anything is believed.

use std::path::Path;

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::{Limits, ReadError};

/// Bytes of a NIfTI-1 header.
pub(super) const HEADER_LEN: usize = 348;
/// Where voxels start at the earliest: the header and four extension bytes.
pub(super) const MIN_OFFSET: u64 = 352;

/// Types of single numbers; all others are refused.
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

/// How the voxels lie in the file.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dims: [usize; 3],
    pub(super) datatype: Datatype,
    pub(super) big_endian: bool,
    pub(super) offset: u64,
    /// `value · slope + inter`, `None` where the stored value is the value.
    pub(super) scaling: Option<(f64, f64)>,
}

impl Layout {
    /// Voxels in all; the header's check keeps it in range.
    pub(super) fn voxels(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Parses and checks a header: magic, type, shape, size, offset, scaling.
pub(super) fn parse(
    bytes: &[u8],
    path: &Path,
    limits: &Limits,
) -> Result<(NiftiHeader, Layout), ReadError> {
    if let Some(error) = foreign(bytes, path) {
        return Err(error);
    }
    let header = NiftiHeader::from_reader(bytes).map_err(|_| wrong_magic(bytes, path))?;
    if &header.magic != nifti::header::MAGIC_CODE_NIP1 {
        return Err(wrong_magic(bytes, path));
    }
    if header.sizeof_hdr != 348 {
        return Err(bad(
            path,
            "sizeof_hdr",
            format!("is {}, not 348", header.sizeof_hdr),
        ));
    }
    let dims = dims(&header, path, limits)?;
    let datatype = datatype(&header, path)?;
    let offset = offset(&header, path)?;
    let scaling = scaling(&header, path)?;
    let big_endian = header.endianness == Endianness::Big;
    Ok((
        header,
        Layout {
            dims,
            datatype,
            big_endian,
            offset,
            scaling,
        },
    ))
}

fn bad(path: &Path, field: &'static str, problem: String) -> ReadError {
    ReadError::BadHeader {
        path: path.to_owned(),
        field,
        problem,
    }
}

fn wrong_magic(bytes: &[u8], path: &Path) -> ReadError {
    let magic = bytes.get(344..348).unwrap_or_default();
    ReadError::WrongMagic {
        path: path.to_owned(),
        found: format!("something else (magic \"{}\")", magic.escape_ascii()),
        advice: "check that the list names the right file",
    }
}

const TO_SINGLE: &str = "write it as one .nii.gz (e.g. `fslchfiletype NIFTI_GZ` or nibabel)";
const TO_NIFTI: &str = "convert it to .nii.gz (e.g. with 3D Slicer or SimpleITK)";
const UNPACK: &str = "unpack it, or pack it with gzip";

/// Other formats that people have, told apart by their first bytes.
pub(super) fn foreign(bytes: &[u8], path: &Path) -> Option<ReadError> {
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    let size = bytes.get(..4).map(|b| [b[0], b[1], b[2], b[3]]);
    let is_size = |n: i32| size.is_some_and(|b| b == n.to_le_bytes() || b == n.to_be_bytes());
    let magic = bytes.get(344..348).unwrap_or_default();
    let (found, advice) = if is_size(540) && bytes.get(4..7) == Some(b"n+2") {
        (
            "a NIfTI-2 file",
            "convert it to NIfTI-1 (nibabel: Nifti1Image.from_image)",
        )
    } else if is_size(540) && bytes.get(4..7) == Some(b"ni2") {
        ("the header of a NIfTI-2 pair", TO_SINGLE)
    } else if bytes.get(128..132) == Some(b"DICM") {
        ("a DICOM file", "convert the series with dcm2niix")
    } else if magic == b"ni1\0" {
        ("the header of a NIfTI-1 hdr/img pair", TO_SINGLE)
    } else if is_size(348) && magic != b"n+1\0" && bytes.len() >= HEADER_LEN {
        ("an Analyze 7.5 header", TO_SINGLE)
    } else if starts(b"NRRD000") {
        ("an NRRD file", TO_NIFTI)
    } else if starts(b"ObjectType") || starts(b"NDims") {
        ("a MetaImage file", TO_NIFTI)
    } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ("compressed with zstd", UNPACK)
    } else if starts(b"\xfd7zXZ") {
        ("compressed with xz", UNPACK)
    } else if starts(b"BZh") {
        ("compressed with bzip2", UNPACK)
    } else if starts(b"PK\x03\x04") {
        ("a zip archive", UNPACK)
    } else if starts(&[0x1f, 0x8b]) {
        ("compressed with gzip twice", "unpack it once")
    } else {
        return None;
    };
    Some(ReadError::WrongMagic {
        path: path.to_owned(),
        found: found.to_owned(),
        advice,
    })
}

fn dims(header: &NiftiHeader, path: &Path, limits: &Limits) -> Result<[usize; 3], ReadError> {
    let rank = usize::from(header.dim[0]);
    if !(1..=7).contains(&rank) {
        return Err(bad(path, "dim[0]", format!("is {rank}, not 1 to 7")));
    }
    let shape = &header.dim[1..=rank];
    if shape.iter().any(|&d| d == 0 || d > 32767) {
        // The standard has signed dimensions; the crate reads them unsigned.
        let dims = shape.iter().map(|&d| d.cast_signed()).collect();
        return Err(ReadError::ZeroDims {
            path: path.to_owned(),
            dims,
        });
    }
    if rank < 3 || shape[3..].iter().any(|&d| d != 1) {
        return Err(ReadError::NotThreeD {
            path: path.to_owned(),
            shape: shape.to_vec(),
        });
    }
    let dims = [shape[0], shape[1], shape[2]];
    // 32767^3 < 2^45: no overflow.
    let voxels: u64 = dims.iter().map(|&d| u64::from(d)).product();
    let dims = dims.map(usize::from);
    if voxels > limits.max_voxels || usize::try_from(voxels * 8).is_err() {
        let limit = limits.max_voxels;
        return Err(ReadError::TooManyVoxels {
            path: path.to_owned(),
            dims,
            voxels,
            limit,
        });
    }
    Ok(dims)
}

fn datatype(header: &NiftiHeader, path: &Path) -> Result<Datatype, ReadError> {
    let code = header.datatype;
    let unsupported = |name| {
        Err(ReadError::UnsupportedDatatype {
            path: path.to_owned(),
            name,
            code,
        })
    };
    let datatype = match header.data_type() {
        Ok(NiftiType::Uint8) => Datatype::U8,
        Ok(NiftiType::Int8) => Datatype::I8,
        Ok(NiftiType::Uint16) => Datatype::U16,
        Ok(NiftiType::Int16) => Datatype::I16,
        Ok(NiftiType::Uint32) => Datatype::U32,
        Ok(NiftiType::Int32) => Datatype::I32,
        Ok(NiftiType::Uint64) => Datatype::U64,
        Ok(NiftiType::Int64) => Datatype::I64,
        Ok(NiftiType::Float32) => Datatype::F32,
        Ok(NiftiType::Float64) => Datatype::F64,
        Ok(NiftiType::Float128) => return unsupported("float128"),
        Ok(NiftiType::Complex64) => return unsupported("complex64"),
        Ok(NiftiType::Complex128) => return unsupported("complex128"),
        Ok(NiftiType::Complex256) => return unsupported("complex256"),
        Ok(NiftiType::Rgb24) => return unsupported("RGB24"),
        Ok(NiftiType::Rgba32) => return unsupported("RGBA32"),
        Err(_) if code == 1 => return unsupported("binary (1 bit)"),
        Err(_) => return unsupported("unknown"),
    };
    let bits = i16::try_from(datatype.bytes() * 8).unwrap_or(i16::MAX);
    if header.bitpix == bits {
        Ok(datatype)
    } else {
        let problem = format!("is {}, but datatype {code} has {bits} bits", header.bitpix);
        Err(bad(path, "bitpix", problem))
    }
}

fn offset(header: &NiftiHeader, path: &Path) -> Result<u64, ReadError> {
    let offset = f64::from(header.vox_offset);
    if offset == 0.0 {
        return Ok(MIN_OFFSET);
    }
    if !offset.is_finite() || offset.fract() != 0.0 || !(352.0..=4_294_967_296.0).contains(&offset)
    {
        let problem = format!("is {offset}, not a whole number of bytes from 352 on");
        return Err(bad(path, "vox_offset", problem));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    Ok(offset as u64)
}

/// A slope of 0, NaN or infinity means no scaling, as in nibabel.
fn scaling(header: &NiftiHeader, path: &Path) -> Result<Option<(f64, f64)>, ReadError> {
    let (slope, inter) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !inter.is_finite() {
        return Err(bad(
            path,
            "scl_inter",
            format!("is {inter} beside a slope of {slope}"),
        ));
    }
    Ok((slope != 1.0 || inter != 0.0).then_some((slope, inter)))
}
