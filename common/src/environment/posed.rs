//! Windows of a posed scan, line by line along the posed z axis.
//!
//! The map to the scan is affine, so the samples of a line that lie inside the scan
//! are one run: its ends are computed once, and no sample of it is tested. The indices
//! of a run are computed by vectors, in 32 bits.

use crate::environment::pose::{FRACTION, Pose};
use crate::environment::strided::Source;
use crate::environment::window::OUTSIDE;

/// Most samples along an axis of a window.
pub(crate) const MOST: usize = 128;

/// Indices that are computed at once.
const LANES: usize = 8;

/// Lines whose indices are computed before the first voxel is read, so that many reads
/// are under way at once: most of them miss the first cache.
const LINES: usize = 8;

type Line = [[u32; LANES]; MOST / LANES];

/// A window in a posed scan.
#[derive(Debug)]
pub(crate) struct PosedWindow<'a> {
    pub(crate) dims: [usize; 3],
    pub(crate) pose: &'a Pose,
    /// Voxels in the posed grid of the samples along each axis, or [`OUTSIDE`].
    pub(crate) tables: [&'a [i32]; 3],
    pub(crate) stride: u8,
}

impl PosedWindow<'_> {
    /// Each sample inside the posed grid shows the scan's nearest voxel; all others, and
    /// those where the scan has none, are `zero`.
    #[inline(always)]
    pub(crate) fn fill<T: Copy>(&self, out: &mut [T], zero: T, source: impl Source<T>) {
        let [xs, ys, zs] = self.tables;
        let Some(first) = zs.iter().position(|&z| z != OUTSIDE) else {
            return out.fill(zero);
        };
        let last = zs.iter().rposition(|&z| z != OUTSIDE).unwrap_or(first);
        let Some(lines) = Lines::new(self, last - first + 1) else {
            return self.fill_wide(first..=last, out, zero, source);
        };
        let n = zs.len();
        let mut indices: [Line; LINES] = [[[0; LANES]; MOST / LANES]; LINES];
        for (&x, plane) in xs.iter().zip(out.chunks_exact_mut(n * n)) {
            if x == OUTSIDE {
                plane.fill(zero);
                continue;
            }
            let at = self.pose.fixed([x, 0, zs[first]]);
            for (ys, rows) in ys.chunks(LINES).zip(plane.chunks_mut(LINES * n)) {
                let mut runs = [(0, 0); LINES];
                for ((&y, run), indices) in ys.iter().zip(&mut runs).zip(&mut indices) {
                    if y != OUTSIDE {
                        *run = lines.indices(at, y, indices);
                    }
                }
                let rows = rows.chunks_exact_mut(n);
                for ((row, (low, high)), indices) in rows.zip(runs).zip(&indices) {
                    if high - low < n {
                        row[..first + low].fill(zero);
                        row[first + high..].fill(zero);
                    }
                    read(indices, &mut row[first + low..first + high], source);
                }
            }
        }
    }

    /// For scans that [`Lines`] cannot index: sample by sample in 64 bits.
    #[cold]
    fn fill_wide<T: Copy>(
        &self,
        inside: std::ops::RangeInclusive<usize>,
        out: &mut [T],
        zero: T,
        source: impl Source<T>,
    ) {
        out.fill(zero);
        let ([xs, ys, zs], size) = (self.tables, self.dims.map(|d| d as u64));
        let lines = xs.iter().flat_map(|&x| ys.iter().map(move |&y| (x, y)));
        for ((x, y), row) in lines.zip(out.chunks_exact_mut(zs.len())) {
            if x == OUTSIDE || y == OUTSIDE {
                continue;
            }
            for i in inside.clone() {
                // Cast to unsigned, a negative index is a huge one.
                let [i0, i1, i2] = self.pose.voxel([x, y, zs[i]]).map(|v| v as u64);
                if i0 < size[0] && i1 < size[1] && i2 < size[2] {
                    row[i] = source.at(((i0 * size[1] + i1) * size[2] + i2) as usize);
                }
            }
        }
    }
}

/// Reads a run's voxels; a block of constant length is unrolled.
#[inline(always)]
fn read<T: Copy>(indices: &Line, out: &mut [T], source: impl Source<T>) {
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let mut indices = indices.iter();
    for (samples, indices) in blocks.iter_mut().zip(&mut indices) {
        for (sample, &index) in samples.iter_mut().zip(indices) {
            *sample = source.at(index as usize);
        }
    }
    for (sample, &index) in rest.iter_mut().zip(indices.next().into_iter().flatten()) {
        *sample = source.at(index as usize);
    }
}

/// The lines of a window in 1/65536 voxels of the scan.
struct Lines {
    /// The change per voxel along the posed y axis.
    along_y: [i64; 3],
    /// The change per sample, and from the first sample to the last.
    step: [i64; 3],
    span: [i64; 3],
    /// The scan's size.
    sizes: [i64; 3],
    count: i64,
    /// The change from the first to each of [`LANES`] samples, and to the next one.
    lanes: [[u32; LANES]; 3],
    advance: [u32; 3],
    /// Index increments per voxel along x and y.
    strides: [u32; 2],
}

impl Lines {
    /// For lines of `count` samples inside the posed grid. `None` if a position or an
    /// index inside the scan does not fit 32 bits.
    fn new(window: &PosedWindow<'_>, count: usize) -> Option<Self> {
        let dims = window.dims;
        u32::try_from(dims.iter().product::<usize>()).ok()?;
        if dims.iter().any(|&dim| dim > 1 << (u32::BITS - FRACTION)) {
            return None;
        }
        let count = count as i64;
        let step = window.pose.along(2).map(|v| v * i64::from(window.stride));
        let lane = |step: i64, lane: usize| (step as u32).wrapping_mul(lane as u32);
        Some(Self {
            along_y: window.pose.along(1),
            step,
            span: step.map(|v| v * (count - 1)),
            sizes: dims.map(|dim| (dim as i64) << FRACTION),
            count,
            lanes: step.map(|step| std::array::from_fn(|i| lane(step, i))),
            advance: step.map(|step| lane(step, LANES)),
            strides: [dims[1] * dims[2], dims[2]].map(|v| v as u32),
        })
    }

    /// The run of samples of a line that lie inside the scan, with the indices of their
    /// voxels. `at`: the first sample's position for y = 0.
    #[inline(always)]
    fn indices(&self, mut at: [i64; 3], y: i32, indices: &mut Line) -> (usize, usize) {
        for (v, step) in at.iter_mut().zip(self.along_y) {
            *v += step * i64::from(y);
        }
        let (low, high) = self.run(at);
        if low >= high {
            return (0, 0);
        }
        // Positions outside the scan may wrap around; those of the run fit.
        let mut at = std::array::from_fn(|axis| (at[axis] + low * self.step[axis]) as u32);
        let (low, high) = (low as usize, high as usize);
        for block in &mut indices[..(high - low).div_ceil(LANES)] {
            for (lane, index) in block.iter_mut().enumerate() {
                let voxel = |axis: usize| {
                    let at: &[u32; 3] = &at;
                    at[axis].wrapping_add(self.lanes[axis][lane]) >> FRACTION
                };
                let x = voxel(0).wrapping_mul(self.strides[0]);
                let y = voxel(1).wrapping_mul(self.strides[1]);
                *index = x.wrapping_add(y).wrapping_add(voxel(2));
            }
            for (v, advance) in at.iter_mut().zip(self.advance) {
                *v = v.wrapping_add(advance);
            }
        }
        (low, high)
    }

    /// The samples `low..high` with `0 ≤ at + i · step < size` on every axis; none where
    /// `low ≥ high`.
    #[inline(always)]
    fn run(&self, at: [i64; 3]) -> (i64, i64) {
        let inside = |v: i64, axis: usize| (v as u64) < self.sizes[axis] as u64;
        if (0..3).all(|i| inside(at[i], i) && inside(at[i] + self.span[i], i)) {
            return (0, self.count);
        }
        let (mut low, mut high) = (0, self.count);
        for axis in 0..3 {
            let (mut at, mut step, size) = (at[axis], self.step[axis], self.sizes[axis]);
            if step < 0 {
                // Mirrored, the condition is the same.
                (at, step) = (size - 1 - at, -step);
            }
            if step == 0 {
                high = if inside(at, axis) { high } else { 0 };
                continue;
            }
            // A division takes as long as several samples, and few lines need one.
            if at < 0 {
                low = low.max((step - 1 - at) / step);
            }
            if at + (self.count - 1) * step >= size {
                high = high.min(((size - at).max(0) + step - 1) / step);
            }
        }
        (low, high)
    }
}
