//! Small NIfTI-1 files, built byte by byte, for tests.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A file to be: change a field, then take [`Fixture::bytes`].
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) big_endian: bool,
    pub(crate) dim: [i16; 8],
    pub(crate) datatype: i16,
    pub(crate) bitpix: i16,
    pub(crate) vox_offset: f32,
    pub(crate) slope: f32,
    pub(crate) inter: f32,
    pub(crate) pixdim: [f32; 4],
    pub(crate) quaternion: [f32; 6],
    pub(crate) codes: [i16; 2],
    pub(crate) srow: [f32; 12],
    pub(crate) magic: [u8; 4],
    /// The voxels as they stand in the file.
    pub(crate) voxels: Vec<u8>,
}

impl Fixture {
    /// 2×3×4 bytes counting from 0, 1 mm, sform with a flipped x.
    pub(crate) fn counting() -> Self {
        Self {
            big_endian: false,
            dim: [3, 2, 3, 4, 1, 1, 1, 1],
            datatype: 2,
            bitpix: 8,
            vox_offset: 352.0,
            slope: 0.0,
            inter: 0.0,
            pixdim: [1.0; 4],
            quaternion: [0.0; 6],
            codes: [0, 1],
            srow: [
                -1.0, 0.0, 0.0, 10.0, 0.0, 1.0, 0.0, -20.0, 0.0, 0.0, 1.0, 30.0,
            ],
            magic: *b"n+1\0",
            voxels: (0..24).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = vec![0; 348];
        let big = self.big_endian;
        let mut put = |at: usize, little: &[u8]| {
            let mut bytes = little.to_vec();
            if big {
                bytes.reverse();
            }
            header[at..at + bytes.len()].copy_from_slice(&bytes);
        };
        put(0, &348_i32.to_le_bytes());
        for (i, value) in self.dim.iter().enumerate() {
            put(40 + 2 * i, &value.to_le_bytes());
        }
        put(70, &self.datatype.to_le_bytes());
        put(72, &self.bitpix.to_le_bytes());
        put(252, &self.codes[0].to_le_bytes());
        put(254, &self.codes[1].to_le_bytes());
        let scaling = [self.vox_offset, self.slope, self.inter];
        let fields: [(usize, &[f32]); 4] = [
            (76, &self.pixdim),
            (108, &scaling),
            (256, &self.quaternion),
            (280, &self.srow),
        ];
        for (start, values) in fields {
            for (i, value) in values.iter().enumerate() {
                put(start + 4 * i, &value.to_le_bytes());
            }
        }
        header[344..].copy_from_slice(&self.magic);
        let mut bytes = header;
        let start = if self.vox_offset.is_finite() {
            self.vox_offset.clamp(352.0, 4096.0)
        } else {
            352.0
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        bytes.resize(start as usize, 0);
        bytes.extend_from_slice(&self.voxels);
        bytes
    }
}

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
