//! Renders windows on a device: volumes stay there as bytes, windows are gathered by
//! index arithmetic. [`common::environment::window::axis_samples`] alone determines which
//! voxel a sample reads, so every window is bit-equal to the CPU renderer's.

use common::environment::pose::{FRACTION, Pose};
use common::environment::window::{OUTSIDE, WindowRule, axis_samples};
use common::imaging::volume::{Volume, Voxels};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::network::input;
use crate::network::layer::as_i64;

/// Maximum number of samples rendered at a time; bounds the index tensor to 256 MiB.
const CHUNK: usize = 1 << 25;

/// One frame to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAt {
    /// Number of the scan in [`DeviceScans`].
    pub scan: usize,
    /// Voxel position.
    pub position: [i32; 3],
    /// Voxels between neighbouring samples.
    pub stride: u8,
    /// An invalid frame (before an episode's first) is all zero.
    pub valid: bool,
    /// The pose of the scan.
    pub pose: Option<Pose>,
}

/// The volumes of many scans in one tensor of bytes on a device.
#[derive(Debug)]
pub struct DeviceScans {
    voxels: Tensor,
    /// Start of each volume, and its voxels per axis.
    volumes: Vec<(usize, [usize; 3])>,
}

impl DeviceScans {
    /// Copies volumes to a device; frames refer to them by their index.
    ///
    /// Float volumes are truncated to bytes, as rl-medical's replay memory does.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn new<'a>(volumes: impl IntoIterator<Item = &'a Volume>, device: Device) -> Result<Self> {
        let volumes: Vec<&Volume> = volumes.into_iter().collect();
        let sizes = volumes.iter().map(|v| v.dims().iter().product::<usize>());
        // One voxel more, so that indexing works even without scans.
        let total = sizes.sum::<usize>() + 1;
        let voxels = Tensor::f_zeros(as_i64(&[total]), (Kind::Uint8, device))?;
        let mut places = Vec::with_capacity(volumes.len());
        let mut start = 0;
        for volume in volumes {
            let bytes = match volume.voxels() {
                Voxels::U8(bytes) => Tensor::f_from_slice((**bytes).as_ref())?,
                Voxels::F32(values) => Tensor::f_from_slice(values)?.f_to_kind(Kind::Uint8)?,
            };
            let count = bytes.numel();
            let at = as_i64(&[start, count]);
            voxels.f_narrow(0, at[0], at[1])?.f_copy_(&bytes)?;
            places.push((start, volume.dims()));
            start += count;
        }
        Ok(Self {
            voxels,
            volumes: places,
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.volumes.len()
    }

    /// Whether there are no volumes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Bytes held on the device.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.voxels.numel()
    }

    /// Renders frames as u8 `[B, n, n, n]`, indexed x, y, z, on the scans' device.
    ///
    /// # Errors
    /// [`crate::ModelError::Input`] for an unknown scan or a position whose window
    /// overflows 32 bits.
    pub fn render(&self, rule: WindowRule, n: usize, frames: &[FrameAt]) -> Result<Tensor> {
        let kind = (Kind::Uint8, self.voxels.device());
        let out = Tensor::f_zeros(as_i64(&[frames.len(), n, n, n]), kind)?;
        let per_chunk = (CHUNK / n.pow(3).max(1)).max(1);
        for (i, chunk) in frames.chunks(per_chunk).enumerate() {
            let at = as_i64(&[i * per_chunk, chunk.len()]);
            let windows = self.render_chunk(rule, n, chunk)?;
            out.f_narrow(0, at[0], at[1])?.f_copy_(&windows)?;
        }
        Ok(out)
    }

    fn render_chunk(&self, rule: WindowRule, n: usize, frames: &[FrameAt]) -> Result<Tensor> {
        if frames.iter().all(|f| f.pose.is_none()) {
            return self.render_plain(rule, n, frames);
        }
        let device = self.voxels.device();
        let size = as_i64(&[frames.len(), n, n, n]);
        let mut out = Tensor::f_empty(&size, (Kind::Uint8, device))?;
        for posed in [false, true] {
            let (places, chosen): (Vec<i64>, Vec<FrameAt>) = (0..)
                .zip(frames)
                .filter(|(_, f)| f.pose.is_some() == posed)
                .unzip();
            // A posed sample's index takes several times the memory of an unposed one's.
            let most = if posed { CHUNK / 8 } else { CHUNK };
            let most = (most / n.pow(3).max(1)).max(1);
            for (places, chosen) in places.chunks(most).zip(chosen.chunks(most)) {
                let windows = if posed {
                    self.render_posed(rule, n, chosen)?
                } else {
                    self.render_plain(rule, n, chosen)?
                };
                let places = Tensor::f_from_slice(places)?.f_to_device(device)?;
                out = out.f_index_copy_(0, &places, &windows)?;
            }
        }
        Ok(out)
    }

    fn render_plain(&self, rule: WindowRule, n: usize, frames: &[FrameAt]) -> Result<Tensor> {
        let tables = self.tables(rule, n, frames)?;
        let device = self.voxels.device();
        let shape = as_i64(&[frames.len(), 3, n]);
        let offsets = Tensor::f_from_slice(&tables.offsets)?
            .f_reshape(&shape)?
            .f_to_device(device)?;
        // 32-bit indices, where they suffice, take half the memory traffic.
        let small = i32::try_from(self.voxels.numel()).is_ok();
        let kind = if small { Kind::Int } else { Kind::Int64 };
        let (x, y, z) = per_axis(&offsets.f_to_kind(kind)?)?;
        let index = x.f_add(&y)?.f_add(&z)?;
        let samples = self.voxels.f_index_select(0, &index.f_flatten(0, -1)?)?;
        let samples = samples.f_reshape(as_i64(&[frames.len(), n, n, n]))?;
        tables.cut(samples, &shape)
    }

    /// Each sample inside the posed grid reads the scan's voxel that [`Pose::voxel`]
    /// computes, in the same integer arithmetic.
    fn render_posed(&self, rule: WindowRule, n: usize, frames: &[FrameAt]) -> Result<Tensor> {
        let device = self.voxels.device();
        let tables = self.tables(rule, n, frames)?;
        let shape = as_i64(&[frames.len(), 3, n]);
        let on_device = |values: &[i64], shape: &[i64]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?
                .f_reshape(shape)?
                .f_to_device(device)?)
        };
        let places = on_device(&tables.places, &shape)?;
        let (x, y, z) = per_axis(&places)?;
        let starts: Vec<i64> = frames.iter().map(|f| self.start(f.scan)).collect();
        let mut index = on_device(&starts, &as_i64(&[frames.len(), 1, 1, 1]))?;
        let mut inside: Option<Tensor> = None;
        for axis in 0..3 {
            let numbers = self.pose_numbers(frames, axis);
            let numbers = on_device(&numbers, &as_i64(&[frames.len(), 6, 1, 1, 1]))?;
            let number = |i: i64| numbers.f_select(1, i);
            let row = x.f_mul(&number(0)?)?.f_add(&y.f_mul(&number(1)?)?)?;
            let row = row.f_add(&number(3)?)?;
            let voxel = row.f_add(&z.f_mul(&number(2)?)?)?;
            let voxel = voxel.f_bitwise_right_shift_tensor_scalar(i64::from(FRACTION))?;
            let here = voxel
                .f_ge(0)?
                .f_logical_and(&voxel.f_lt_tensor(&number(5)?)?)?;
            index = index.f_add(&voxel.f_mul(&here)?.f_mul(&number(4)?)?)?;
            inside = Some(match inside {
                Some(inside) => inside.f_logical_and(&here)?,
                None => here,
            });
        }
        let mut samples = self.voxels.f_index_select(0, &index.f_flatten(0, -1)?)?;
        samples = samples.f_reshape(as_i64(&[frames.len(), n, n, n]))?;
        if let Some(inside) = inside {
            samples = samples.f_mul_(&inside)?;
        }
        tables.cut(samples, &shape)
    }

    /// Six values per frame: the pose's row of this axis, its offset, the index
    /// increment per voxel along the axis, and the scan's size.
    fn pose_numbers(&self, frames: &[FrameAt], axis: usize) -> Vec<i64> {
        let mut numbers = Vec::with_capacity(6 * frames.len());
        for frame in frames {
            let dims = self.volumes.get(frame.scan).map_or([0; 3], |v| v.1);
            let steps = [dims[1] * dims[2], dims[2], 1];
            let pose = frame.pose.map(|p| p.fixed_point());
            let (matrix, offset) = pose.unwrap_or(([[0; 3]; 3], [0; 3]));
            numbers.extend(matrix[axis]);
            numbers.push(offset[axis]);
            numbers.extend(as_i64(&[steps[axis], dims[axis]]));
        }
        numbers
    }

    fn start(&self, scan: usize) -> i64 {
        let start = self.volumes.get(scan).map_or(0, |v| v.0);
        i64::try_from(start).unwrap_or(0)
    }

    fn tables(&self, rule: WindowRule, n: usize, frames: &[FrameAt]) -> Result<Tables> {
        let mut tables = Tables {
            offsets: Vec::with_capacity(frames.len() * 3 * n),
            inside: Vec::with_capacity(frames.len() * 3 * n),
            places: Vec::new(),
            some_outside: false,
        };
        let mut samples = vec![OUTSIDE; n];
        for frame in frames {
            let Some(&(start, dims)) = self.volumes.get(frame.scan) else {
                let expected = format!("0..{}", self.volumes.len());
                return Err(input("scan", expected, frame.scan.to_string()));
            };
            if frame.position.iter().any(|p| p.unsigned_abs() > 1 << 24) {
                let found = format!("{:?}", frame.position);
                return Err(input("position", "voxels within 2^24 of 0", found));
            }
            let steps = [dims[1] * dims[2], dims[2], 1];
            for axis in 0..3 {
                samples.fill(OUTSIDE);
                if frame.valid {
                    let (at, size) = (frame.position[axis], dims[axis]);
                    axis_samples(rule, n, at, frame.stride, size, &mut samples);
                }
                let base = if axis == 0 { start } else { 0 };
                tables.push(&samples, base, steps[axis]);
                if frame.pose.is_some() {
                    tables.places.extend(samples.iter().map(|&s| i64::from(s)));
                }
            }
        }
        Ok(tables)
    }
}

/// Per frame, axis and sample: the sample's contribution to the index of its voxel
/// (0 outside), and whether it is inside.
struct Tables {
    offsets: Vec<i64>,
    inside: Vec<u8>,
    /// The samples' voxels in the posed grid, for frames with a pose.
    places: Vec<i64>,
    some_outside: bool,
}

impl Tables {
    fn push(&mut self, samples: &[i32], base: usize, step: usize) {
        for &sample in samples {
            let inside = usize::try_from(sample).ok();
            self.some_outside |= inside.is_none();
            self.inside.push(u8::from(inside.is_some()));
            let offset = base + inside.unwrap_or(0) * step;
            self.offsets.push(i64::try_from(offset).unwrap_or(0));
        }
    }

    /// Zeroes the samples that lie outside; `shape`: `[B, 3, n]`.
    fn cut(&self, mut samples: Tensor, shape: &[i64]) -> Result<Tensor> {
        if !self.some_outside {
            return Ok(samples);
        }
        let inside = Tensor::f_from_slice(&self.inside)?
            .f_reshape(shape)?
            .f_to_device(samples.device())?;
        let (x, y, z) = per_axis(&inside)?;
        Ok(samples.f_mul_(&x)?.f_mul_(&y)?.f_mul_(&z)?)
    }
}

/// `[B, 3, n]` → its three axes as `[B, n, 1, 1]`, `[B, 1, n, 1]`, `[B, 1, 1, n]`.
fn per_axis(table: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let size = table.size();
    let (b, n) = (size[0], size[2]);
    Ok((
        table.f_select(1, 0)?.f_reshape([b, n, 1, 1])?,
        table.f_select(1, 1)?.f_reshape([b, 1, n, 1])?,
        table.f_select(1, 2)?.f_reshape([b, 1, 1, n])?,
    ))
}

/// Bytes 0..=255 → f32 0..1, the input of networks.
///
/// # Errors
/// When libtorch has no memory.
pub fn to_unit(bytes: &Tensor) -> Result<Tensor> {
    Ok(bytes.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
}
