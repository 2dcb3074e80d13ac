//! Small NIfTI files, built byte by byte, for tests.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A file to build: change a field, then take [`Fixture::bytes`].
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) big_endian: bool,
    /// 1 or 2.
    pub(crate) version: u8,
    pub(crate) dim: [i64; 8],
    pub(crate) datatype: i16,
    pub(crate) bitpix: i16,
    /// 0 means the first valid offset.
    pub(crate) vox_offset: f32,
    pub(crate) slope: f32,
    pub(crate) inter: f32,
    pub(crate) pixdim: [f32; 4],
    pub(crate) quaternion: [f32; 6],
    /// `qform_code`, `sform_code`.
    pub(crate) codes: [i16; 2],
    /// `xyzt_units`; 0 is unknown.
    pub(crate) units: u8,
    pub(crate) srow: [f32; 12],
    pub(crate) magic: [u8; 4],
    /// The voxels as stored in the file.
    pub(crate) voxels: Vec<u8>,
}

impl Fixture {
    /// 2×3×4 bytes counting from 0, 1 mm, sform with a flipped x.
    pub(crate) fn counting() -> Self {
        Self {
            big_endian: false,
            version: 1,
            dim: [3, 2, 3, 4, 1, 1, 1, 1],
            datatype: 2,
            bitpix: 8,
            vox_offset: 352.0,
            slope: 0.0,
            inter: 0.0,
            pixdim: [1.0; 4],
            quaternion: [0.0; 6],
            codes: [0, 1],
            units: 0,
            srow: [
                -1.0, 0.0, 0.0, 10.0, 0.0, 1.0, 0.0, -20.0, 0.0, 0.0, 1.0, 30.0,
            ],
            magic: *b"n+1\0",
            voxels: (0..24).collect(),
        }
    }

    /// The same as NIfTI-2.
    pub(crate) fn counting2() -> Self {
        Self {
            version: 2,
            vox_offset: 544.0,
            magic: *b"n+2\0",
            ..Self::counting()
        }
    }

    /// The single file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        let least = if self.version == 1 { 352.0 } else { 544.0 };
        let start = match self.vox_offset.is_finite() {
            true => self.vox_offset.clamp(least, 4096.0),
            false => least,
        };
        bytes.resize(start as usize, 0);
        bytes.extend_from_slice(&self.voxels);
        bytes
    }

    /// The two files of a pair; the voxels start at 0.
    pub(crate) fn pair(&self) -> [Vec<u8>; 2] {
        let header = Self {
            vox_offset: 0.0,
            magic: *[b"ni1\0", b"ni2\0"][usize::from(self.version - 1)],
            ..self.clone()
        };
        [header.header(), self.voxels.clone()]
    }

    /// 348 or 540 bytes.
    pub(crate) fn header(&self) -> Vec<u8> {
        let two = self.version == 2;
        let mut header = Header {
            bytes: vec![0; if two { 540 } else { 348 }],
            big: self.big_endian,
        };
        let scaling = [self.vox_offset, self.slope, self.inter];
        if two {
            header.put(0, &540_i32.to_le_bytes());
            header.bytes[4..8].copy_from_slice(&self.magic);
            header.bytes[8..12].copy_from_slice(b"\r\n\x1a\n");
            header.all(16, &self.dim, |v| v.to_le_bytes().to_vec());
            header.put(12, &self.datatype.to_le_bytes());
            header.put(14, &self.bitpix.to_le_bytes());
            header.put(500, &i32::from(self.units).to_le_bytes());
            header.put(168, &(self.vox_offset as i64).to_le_bytes());
            let double = |v: &f32| f64::from(*v).to_le_bytes().to_vec();
            header.all(104, &self.pixdim, double);
            header.all(176, &scaling[1..], double);
            header.all(352, &self.quaternion, double);
            header.all(400, &self.srow, double);
            header.all(344, &self.codes, |v| i32::from(*v).to_le_bytes().to_vec());
        } else {
            header.put(0, &348_i32.to_le_bytes());
            header.bytes[344..].copy_from_slice(&self.magic);
            header.all(40, &self.dim, |v| (*v as i16).to_le_bytes().to_vec());
            header.put(70, &self.datatype.to_le_bytes());
            header.put(123, &[self.units]);
            header.put(72, &self.bitpix.to_le_bytes());
            let single = |v: &f32| v.to_le_bytes().to_vec();
            header.all(76, &self.pixdim, single);
            header.all(108, &scaling, single);
            header.all(256, &self.quaternion, single);
            header.all(280, &self.srow, single);
            header.all(252, &self.codes, |v| v.to_le_bytes().to_vec());
        }
        header.bytes
    }
}

struct Header {
    bytes: Vec<u8>,
    big: bool,
}

impl Header {
    fn put(&mut self, at: usize, little: &[u8]) {
        let mut bytes = little.to_vec();
        if self.big {
            bytes.reverse();
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// Writes numbers of equal length one after the other.
    fn all<T>(&mut self, at: usize, values: &[T], little: impl Fn(&T) -> Vec<u8>) {
        for (i, value) in values.iter().enumerate() {
            let bytes = little(value);
            self.put(at + bytes.len() * i, &bytes);
        }
    }
}

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("written to memory")
}
