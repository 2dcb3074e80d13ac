//! Decodes bytes into voxels, in chunks.

use super::Samples;
use super::header::{Datatype, Layout};

/// The voxels decoded so far.
#[derive(Debug)]
pub(super) struct Decoder {
    datatype: Datatype,
    big_endian: bool,
    scaling: Option<(f64, f64)>,
    samples: Samples,
    not_finite: u64,
}

macro_rules! numbers {
    ($type:ty, $bytes:expr, $big:expr, $each:expr) => {
        for chunk in $bytes.as_chunks::<{ size_of::<$type>() }>().0 {
            let value = if $big {
                <$type>::from_be_bytes(*chunk)
            } else {
                <$type>::from_le_bytes(*chunk)
            };
            $each(value as f64);
        }
    };
}

fn reserved<T>(voxels: usize) -> Result<Vec<T>, u64> {
    let mut values = Vec::new();
    let bytes = |_| (voxels * size_of::<T>()) as u64;
    values.try_reserve_exact(voxels).map_err(bytes)?;
    Ok(values)
}

impl Decoder {
    /// Allocates the memory for all voxels; an error holds the number of bytes.
    pub(super) fn new(layout: &Layout) -> Result<Self, u64> {
        let voxels = layout.voxels();
        let plain = layout.datatype == Datatype::U8 && layout.scaling.is_none();
        let samples = match plain {
            true => Samples::U8(reserved(voxels)?),
            false => Samples::F32(reserved(voxels)?),
        };
        Ok(Self {
            datatype: layout.datatype,
            big_endian: layout.big_endian,
            scaling: layout.scaling,
            samples,
            not_finite: 0,
        })
    }

    /// Adds the voxels of `bytes`, which must hold whole voxels.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let values = match &mut self.samples {
            Samples::U8(values) => {
                values.extend_from_slice(bytes);
                return;
            }
            Samples::F32(values) => values,
        };
        let (slope, inter) = self.scaling.unwrap_or((1.0, 0.0));
        let mut count = self.not_finite;
        let mut keep = |value: f64| {
            // Too large becomes infinite.
            let value = (value * slope + inter) as f32;
            if value.is_finite() {
                values.push(value);
            } else {
                count += 1;
                values.push(0.0);
            }
        };
        let big = self.big_endian;
        match self.datatype {
            Datatype::U8 => bytes.iter().for_each(|&b| keep(f64::from(b))),
            Datatype::I8 => bytes.iter().for_each(|&b| keep(f64::from(b.cast_signed()))),
            Datatype::U16 => numbers!(u16, bytes, big, keep),
            Datatype::I16 => numbers!(i16, bytes, big, keep),
            Datatype::U32 => numbers!(u32, bytes, big, keep),
            Datatype::I32 => numbers!(i32, bytes, big, keep),
            Datatype::U64 => numbers!(u64, bytes, big, keep),
            Datatype::I64 => numbers!(i64, bytes, big, keep),
            Datatype::F32 => numbers!(f32, bytes, big, keep),
            Datatype::F64 => numbers!(f64, bytes, big, keep),
        }
        self.not_finite = count;
    }

    /// The voxels, and how many were not finite: they are 0, as ITK reads them.
    pub(super) fn finish(self) -> (Samples, u64) {
        (self.samples, self.not_finite)
    }
}
