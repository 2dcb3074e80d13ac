//! The used fields of a NIfTI-1 or NIfTI-2 header, in types wide enough for both.
//! Only the version of the header is checked here.
//!
//! The `nifti` crate parses NIfTI-1; this module parses NIfTI-2, which it does not support.

use nifti::NiftiHeader;

/// Bytes of a NIfTI-1 header, and of an Analyze 7.5 one.
pub(super) const NIFTI1_LEN: usize = 348;
/// Bytes of a NIfTI-2 header.
pub(super) const NIFTI2_LEN: usize = 540;

/// Which of the two headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    /// The version and byte order (true for big-endian) that the first four bytes claim.
    pub(super) fn claimed(start: &[u8]) -> Option<(Self, bool)> {
        let size = *start.first_chunk::<4>()?;
        for (version, len) in [(Self::One, 348_i32), (Self::Two, 540)] {
            if size == len.to_le_bytes() {
                return Some((version, false));
            }
            if size == len.to_be_bytes() {
                return Some((version, true));
            }
        }
        None
    }

    pub(super) fn header_len(self) -> usize {
        match self {
            Self::One => NIFTI1_LEN,
            Self::Two => NIFTI2_LEN,
        }
    }

    /// The magic of a header followed by its voxels, and of one in a file of its own.
    pub(super) fn magics(self) -> [&'static [u8]; 2] {
        match self {
            Self::One => [b"n+1\0", b"ni1\0"],
            Self::Two => [b"n+2\0", b"ni2\0"],
        }
    }

    /// The bytes of the magic.
    pub(super) fn magic(self, bytes: &[u8]) -> &[u8] {
        let at = match self {
            Self::One => 344,
            Self::Two => 4,
        };
        bytes.get(at..at + 4).unwrap_or_default()
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One => "NIfTI-1",
            Self::Two => "NIfTI-2",
        })
    }
}

/// A header's fields, by their names in the standard.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) version: Version,
    pub(super) big_endian: bool,
    pub(super) dim: [i64; 8],
    pub(super) datatype: i16,
    pub(super) bitpix: i16,
    /// `pixdim[0]` is qfac.
    pub(super) pixdim: [f64; 4],
    pub(super) vox_offset: f64,
    pub(super) slope: f64,
    pub(super) inter: f64,
    pub(super) qform_code: i32,
    pub(super) sform_code: i32,
    /// `quatern_b, c, d`.
    pub(super) quatern: [f64; 3],
    /// `qoffset_x, y, z`.
    pub(super) qoffset: [f64; 3],
    pub(super) srow: [[f64; 4]; 3],
    pub(super) xyzt_units: u8,
    /// Bytes 8 to 12 of NIfTI-2, which line-end conversions damage.
    pub(super) line_ends: [u8; 4],
}

impl Fields {
    /// Parses a header whose version, byte order and length are known; `None` when
    /// there are fewer bytes, or the magic is wrong.
    pub(super) fn of(bytes: &[u8], version: Version, big_endian: bool) -> Option<Self> {
        let bytes = bytes.get(..version.header_len())?;
        let at = Reader { bytes, big_endian };
        match version {
            Version::One => at.nifti1(),
            Version::Two => Some(at.nifti2()),
        }
    }
}

struct Reader<'a> {
    /// As long as the version's header.
    bytes: &'a [u8],
    big_endian: bool,
}

impl Reader<'_> {
    /// `N` bytes in little-endian order.
    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut number = [0; N];
        number.copy_from_slice(&self.bytes[at..at + N]);
        if self.big_endian {
            number.reverse();
        }
        number
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.number(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.number(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.number(at))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.number(at))
    }

    fn f64s<const N: usize>(&self, at: usize) -> [f64; N] {
        std::array::from_fn(|i| self.f64(at + 8 * i))
    }

    /// Parsed by the `nifti` crate; `None` for a magic that is not NIfTI-1's.
    ///
    /// The crate guesses the byte order from `dim[0]`, which may be damaged; here the
    /// header's size determines it. The crate therefore gets a `dim[0]` that cannot
    /// mislead it, and the real value is read separately.
    fn nifti1(&self) -> Option<Fields> {
        let mut bytes = self.bytes.to_vec();
        let three = if self.big_endian { [0, 3] } else { [3, 0] };
        bytes.get_mut(40..42)?.copy_from_slice(&three);
        let h = NiftiHeader::from_reader(bytes.as_slice()).ok()?;
        let wide = |v: [f32; 4]| v.map(f64::from);
        let mut dim = h.dim.map(|d| i64::from(d.cast_signed()));
        dim[0] = i64::from(self.i16(40));
        Some(Fields {
            version: Version::One,
            big_endian: self.big_endian,
            dim,
            datatype: h.datatype,
            bitpix: h.bitpix,
            pixdim: std::array::from_fn(|i| f64::from(h.pixdim[i])),
            vox_offset: h.vox_offset.into(),
            slope: h.scl_slope.into(),
            inter: h.scl_inter.into(),
            qform_code: h.qform_code.into(),
            sform_code: h.sform_code.into(),
            quatern: [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from),
            qoffset: [h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
            srow: [h.srow_x, h.srow_y, h.srow_z].map(wide),
            xyzt_units: h.xyzt_units,
            line_ends: [0; 4],
        })
    }

    fn nifti2(&self) -> Fields {
        Fields {
            version: Version::Two,
            big_endian: self.big_endian,
            dim: std::array::from_fn(|i| self.i64(16 + 8 * i)),
            datatype: self.i16(12),
            bitpix: self.i16(14),
            pixdim: self.f64s(104),
            vox_offset: self.i64(168) as f64,
            slope: self.f64(176),
            inter: self.f64(184),
            qform_code: self.i32(344),
            sform_code: self.i32(348),
            quatern: self.f64s(352),
            qoffset: self.f64s(376),
            srow: [400, 432, 464].map(|at| self.f64s(at)),
            // Only the lowest bits of the four bytes are used.
            xyzt_units: self.i32(500).to_le_bytes()[0],
            line_ends: [self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]],
        }
    }
}
