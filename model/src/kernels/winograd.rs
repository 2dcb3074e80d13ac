//! A 5³ convolution of unit stride with its activation and 2³ max pooling on
//! the CPU, without gradients.
//!
//! Along z it is Winograd's minimal filtering F(4, 5) (Lavin and Gray 2016): for
//! four consecutive outputs, eight input values and five weights take eight
//! products instead of twenty, y = Aᵀ[(G g) ⊙ (Bᵀ d)], with Bᵀ of the points
//! 0, ±1, ±2, ±½, ∞. Along x and y the sums are direct, so the rounding error stays
//! at 1e-6 of the result. Everything stays in the cache: four rows of outputs are
//! summed in the eight frequencies, transformed back and pooled, and an eighth is
//! written.
//!
//! The speed depends on keeping sums, weights and an input in the 16 registers of
//! AVX2: with one more value the compiler spills a sum to memory, and all wait for it.

use std::ops::Range;

use pulp::{Simd, WithSimd};

/// Samples per side of the kernel.
pub(crate) const KERNEL: usize = 5;
/// Outputs along z per tile.
const TILE: usize = 4;
/// Products per tile.
const FREQUENCIES: usize = TILE + KERNEL - 1;
/// Tiles that are summed together. With two vectors of channels each, these are
/// twelve independent sums, which occupy both multipliers and leave registers for
/// the weights and an input.
const AT_ONCE: usize = 6;

/// G: weights → frequencies. Rows are f·(1, a, a², a³, a⁴) of the points a.
#[rustfmt::skip]
const WEIGHTS: [[f64; KERNEL]; FREQUENCIES] = [
    [1.0, 0.0, 0.0, 0.0, 0.0],
    [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
    [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
    [1.0 / 90.0, 2.0 / 90.0, 4.0 / 90.0, 8.0 / 90.0, 16.0 / 90.0],
    [1.0 / 90.0, -2.0 / 90.0, 4.0 / 90.0, -8.0 / 90.0, 16.0 / 90.0],
    [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0, 4.0 / 45.0, 2.0 / 45.0],
    [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0, -4.0 / 45.0, 2.0 / 45.0],
    [0.0, 0.0, 0.0, 0.0, 1.0],
];

/// Sizes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolShape {
    /// Channels of the input.
    pub(crate) ci: usize,
    /// Channels of the output, a multiple of 16.
    pub(crate) co: usize,
    /// Samples per side of the padded input.
    pub(crate) input: usize,
}

impl PoolShape {
    /// Samples per side after pooling, which drops an odd last one.
    pub(crate) fn pooled(&self) -> usize {
        (self.input + 1 - KERNEL) / 2
    }

    pub(crate) fn row_len(&self) -> usize {
        self.pooled() * self.co
    }

    /// Tiles along z.
    fn tiles(&self) -> usize {
        (2 * self.pooled()).div_ceil(TILE)
    }

    /// Samples along z that the tiles read: the depth of the padded input.
    pub(crate) fn deep(&self) -> usize {
        (TILE * self.tiles() + KERNEL - 1).max(self.input)
    }

    /// Number of values of one window's padded input, `[D][D][deep][ci]`.
    pub(crate) fn input_len(&self) -> usize {
        self.input.pow(2) * self.deep() * self.ci
    }

    /// Number of values of one plane of inputs in one frequency, `[group][y][ci][tile]`:
    /// the values that an output sums over are contiguous in each plane.
    fn plane_len(&self) -> usize {
        self.input * self.ci * self.tiles()
    }
}

/// Weights `[kx][ky][kz][ci][co]` → `[f][kx][ky][ci][co]`.
pub(crate) fn transformed(weights: &[f32], shape: &PoolShape) -> Vec<f32> {
    let each = shape.ci * shape.co;
    let mut all = vec![0.0; FREQUENCIES * KERNEL * KERNEL * each];
    let mut sums = vec![0.0_f64; each];
    for (f, frequency) in all.chunks_exact_mut(KERNEL * KERNEL * each).enumerate() {
        let taps = weights.chunks_exact(KERNEL * each);
        for (tap, out) in taps.zip(frequency.chunks_exact_mut(each)) {
            sums.fill(0.0);
            for (g, weights) in WEIGHTS[f].iter().zip(tap.chunks_exact(each)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += g * f64::from(*weight);
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = *sum as f32;
            }
        }
    }
    all
}

/// Some rows along z of the pooled outputs of one window.
pub(crate) struct ConvPool<'a> {
    pub(crate) shape: PoolShape,
    /// `[D][D][deep][ci]`.
    pub(crate) input: &'a [f32],
    /// From [`transformed`].
    pub(crate) weights: &'a [f32],
    pub(crate) bias: &'a [f32],
    /// Factor of negative values, per output channel.
    pub(crate) slopes: &'a [f32],
    /// The rows, numbered by x, then y.
    pub(crate) rows: Range<usize>,
    /// `[rows][pooled][co]`.
    pub(crate) output: &'a mut [f32],
}

impl WithSimd for ConvPool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.shape.co.is_multiple_of(2 * S::F32_LANES) {
            self.all::<S, 2>(simd);
        } else {
            self.all::<S, 1>(simd);
        }
    }
}

impl ConvPool<'_> {
    /// C vectors of channels at a time.
    #[inline(always)]
    fn all<S: Simd, const C: usize>(self, simd: S) {
        let s = self.shape;
        let (pooled, tiles) = (s.pooled(), s.tiles());
        if self.rows.is_empty() {
            return;
        }
        // Planes along x that these rows read.
        let first = 2 * (self.rows.start / pooled);
        let last = 2 * ((self.rows.end - 1) / pooled) + KERNEL + 1;
        let plane = s.input * s.deep() * s.ci;
        let planes = frequencies(&s, &self.input[first * plane..last * plane]);
        let weights = in_blocks::<S, C>(simd, &s, self.weights);
        let (bias, _) = S::as_simd_f32s(self.bias);
        let (slopes, _) = S::as_simd_f32s(self.slopes);
        let mut four = vec![[simd.splat_f32s(0.0); C]; 4 * FREQUENCIES * tiles];
        let taps = KERNEL * KERNEL * s.ci;
        for (at, output) in self.rows.zip(self.output.chunks_exact_mut(s.row_len())) {
            let (x, y) = (2 * (at / pooled) - first, 2 * (at % pooled));
            for (block, weights) in weights.chunks_exact(FREQUENCIES * taps).enumerate() {
                for (f, weights) in weights.chunks_exact(taps).enumerate() {
                    for (row, sums) in four.chunks_exact_mut(FREQUENCIES * tiles).enumerate() {
                        let part = Part::<S, C> {
                            shape: s,
                            planes: &planes,
                            weights,
                            frequency: f,
                            at: [x + row / 2, y + row % 2],
                        };
                        part.sum(simd, &mut sums[f * tiles..(f + 1) * tiles]);
                    }
                }
                let of = block * C..(block + 1) * C;
                let channels = (&bias[of.clone()], &slopes[of]);
                pool::<S, C>(simd, &four, channels, s.co, block, output);
            }
        }
    }
}

/// `[x][y][deep][ci]` → `[x][f][group][y][ci][tile]`: Bᵀ of each tile. A group
/// holds the tiles that are summed together.
#[inline(always)]
fn frequencies(s: &PoolShape, planes: &[f32]) -> Vec<f32> {
    let (ci, tiles) = (s.ci, s.tiles());
    let deep = s.deep() * ci;
    let mut all = vec![0.0; planes.len() / deep * ci * tiles * FREQUENCIES];
    let inputs = planes.chunks_exact(s.input * deep);
    for (plane, out) in inputs.zip(all.chunks_exact_mut(FREQUENCIES * s.plane_len())) {
        for (y, column) in plane.chunks_exact(deep).enumerate() {
            for tile in 0..tiles {
                let group = tile - tile % AT_ONCE;
                let width = AT_ONCE.min(tiles - group);
                let to = (group * s.input + y * width) * ci + tile - group;
                let numbers = &column[TILE * tile * ci..][..FREQUENCIES * ci];
                for c in 0..ci {
                    let d: [f32; FREQUENCIES] = std::array::from_fn(|i| numbers[i * ci + c]);
                    for (f, value) in input_transform(d).into_iter().enumerate() {
                        out[f * s.plane_len() + to + c * width] = value;
                    }
                }
            }
        }
    }
    all
}

/// Bᵀ d.
#[inline(always)]
fn input_transform(d: [f32; FREQUENCIES]) -> [f32; FREQUENCIES] {
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
    let (even_1, odd_1) = (d2 + d6 - 4.25 * d4, d1 + d5 - 4.25 * d3);
    let (even_2, odd_2) = (d6 + 0.25 * d2 - 1.25 * d4, 0.5 * d1 - 2.5 * d3 + 2.0 * d5);
    let (even_h, odd_h) = (d6 + 4.0 * d2 - 5.0 * d4, 2.0 * d1 - 2.5 * d3 + 0.5 * d5);
    [
        d0 - d6 + 5.25 * (d4 - d2),
        even_1 + odd_1,
        even_1 - odd_1,
        even_2 + odd_2,
        even_2 - odd_2,
        even_h + odd_h,
        even_h - odd_h,
        d7 - d1 + 5.25 * (d3 - d5),
    ]
}

/// `[f][kx][ky][ci][co]` → `[block][f][kx][ky][ci]`, C vectors of channels each.
#[inline(always)]
fn in_blocks<S: Simd, const C: usize>(
    simd: S,
    shape: &PoolShape,
    weights: &[f32],
) -> Vec<[S::f32s; C]> {
    let blocks = shape.co / S::F32_LANES / C;
    let (weights, _) = S::as_simd_f32s(weights);
    let taps = weights.len() / (blocks * C);
    let mut ordered = Vec::with_capacity(blocks * taps);
    for block in 0..blocks {
        for tap in 0..taps {
            let mut vectors = [simd.splat_f32s(0.0); C];
            let from = (tap * blocks + block) * C;
            vectors.copy_from_slice(&weights[from..from + C]);
            ordered.push(vectors);
        }
    }
    ordered
}

/// One row of outputs in one frequency, for one block of channels.
struct Part<'a, S: Simd, const C: usize> {
    shape: PoolShape,
    /// From [`frequencies`].
    planes: &'a [f32],
    /// `[kx][ky][ci]`.
    weights: &'a [[S::f32s; C]],
    frequency: usize,
    /// (x, y) of the row, and therefore of the first inputs that it reads.
    at: [usize; 2],
}

impl<S: Simd, const C: usize> Part<'_, S, C> {
    #[inline(always)]
    fn sum(&self, simd: S, sums: &mut [[S::f32s; C]]) {
        for (i, sums) in sums.chunks_mut(AT_ONCE).enumerate() {
            let tile = i * AT_ONCE;
            match sums.len() {
                1 => self.tiles::<1>(simd, tile, sums),
                2 => self.tiles::<2>(simd, tile, sums),
                3 => self.tiles::<3>(simd, tile, sums),
                4 => self.tiles::<4>(simd, tile, sums),
                5 => self.tiles::<5>(simd, tile, sums),
                _ => self.tiles::<AT_ONCE>(simd, tile, sums),
            }
        }
    }

    /// Sums of a group of T tiles, starting at `tile`.
    #[inline(always)]
    fn tiles<const T: usize>(&self, simd: S, tile: usize, sums: &mut [[S::f32s; C]]) {
        let s = self.shape;
        let mut kept = [[simd.splat_f32s(0.0); C]; T];
        let [x, y] = self.at;
        for (kx, weights) in self.weights.chunks_exact(KERNEL * s.ci).enumerate() {
            let plane = ((x + kx) * FREQUENCIES + self.frequency) * s.plane_len();
            let from = plane + (tile * s.input + y * T) * s.ci;
            let (inputs, _) = self.planes[from..from + KERNEL * s.ci * T].as_chunks::<T>();
            for (weights, inputs) in weights.iter().zip(inputs) {
                for (kept, input) in kept.iter_mut().zip(inputs) {
                    let input = simd.splat_f32s(*input);
                    for (kept, weight) in kept.iter_mut().zip(weights) {
                        *kept = simd.mul_add_e_f32s(input, *weight, *kept);
                    }
                }
            }
        }
        sums[..T].copy_from_slice(&kept);
    }
}

/// Four rows in all frequencies, `[row][f][tile]`, → the maximum of each 2³ block
/// of outputs, after bias and activation.
#[inline(always)]
fn pool<S: Simd, const C: usize>(
    simd: S,
    four: &[[S::f32s; C]],
    (bias, slopes): (&[S::f32s], &[S::f32s]),
    co: usize,
    block: usize,
    output: &mut [f32],
) {
    let tiles = four.len() / (4 * FREQUENCIES);
    let (zero, lowest) = (simd.splat_f32s(0.0), simd.splat_f32s(f32::NEG_INFINITY));
    for tile in 0..tiles {
        for c in 0..C {
            let mut largest = [lowest; 2];
            for row in 0..4 {
                let m = std::array::from_fn(|f| four[(row * FREQUENCIES + f) * tiles + tile][c]);
                for (i, y) in output_transform(simd, m).into_iter().enumerate() {
                    let y = simd.add_f32s(y, bias[c]);
                    let low = simd.mul_f32s(y, slopes[c]);
                    let y = simd.select_f32s(simd.less_than_f32s(zero, y), y, low);
                    let most = &mut largest[i / 2];
                    let larger = simd.select_f32s(simd.less_than_f32s(*most, y), y, *most);
                    // NaN is propagated, as in libtorch's pooling.
                    *most = simd.select_f32s(simd.equal_f32s(y, y), larger, y);
                }
            }
            for (half, largest) in largest.into_iter().enumerate() {
                let from = (2 * tile + half) * co;
                // The last tile may extend beyond the last pooled output.
                if let Some(output) = output.get_mut(from..from + co) {
                    let (output, _) = S::as_mut_simd_f32s(output);
                    output[block * C + c] = largest;
                }
            }
        }
    }
}

/// Aᵀ m.
#[inline(always)]
fn output_transform<S: Simd>(simd: S, m: [S::f32s; FREQUENCIES]) -> [S::f32s; TILE] {
    let times = |factor: f32, v, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), v, plus);
    let (even_1, odd_1) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (even_2, odd_2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    let (even_h, odd_h) = (simd.add_f32s(m[5], m[6]), simd.sub_f32s(m[5], m[6]));
    let sum = |a, b, c| simd.add_f32s(a, simd.add_f32s(b, c));
    [
        simd.add_f32s(m[0], sum(even_1, even_2, even_h)),
        times(0.5, odd_h, times(2.0, odd_2, odd_1)),
        times(0.25, even_h, times(4.0, even_2, even_1)),
        times(0.125, odd_h, times(8.0, odd_2, simd.add_f32s(odd_1, m[7]))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::run::cpu::levels;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| ((i * 37 + seed * 101) % 29) as f32 / 29.0 - 0.5;
        (0..count).map(number).collect()
    }

    /// Convolution, bias, slope and pooling in f64, `[x][y][z][co]`.
    fn plain(s: &PoolShape, [input, weights, bias, slopes]: [&[f32]; 4]) -> Vec<f64> {
        let place = |x: usize, y: usize, z: usize| ((x * s.input + y) * s.deep() + z) * s.ci;
        let sum = |[x, y, z]: [usize; 3], o: usize| {
            let mut sum = f64::from(bias[o]);
            for tap in 0..KERNEL.pow(3) {
                let [kx, ky, kz] = [tap / 25, tap / 5 % 5, tap % 5];
                for c in 0..s.ci {
                    let x = input[place(x + kx, y + ky, z + kz) + c];
                    sum += f64::from(x) * f64::from(weights[(tap * s.ci + c) * s.co + o]);
                }
            }
            if sum > 0.0 {
                sum
            } else {
                sum * f64::from(slopes[o])
            }
        };
        let h = s.pooled();
        let mut pooled = Vec::new();
        for cell in 0..h.pow(3) {
            let first = [cell / (h * h), cell / h % h, cell % h].map(|v| 2 * v);
            for o in 0..s.co {
                let corners = (0..8).map(|i| [i >> 2, i >> 1 & 1, i & 1]);
                let of = corners.map(|c| sum(std::array::from_fn(|a| first[a] + c[a]), o));
                pooled.push(of.fold(f64::NEG_INFINITY, f64::max));
            }
        }
        pooled
    }

    #[test]
    fn outputs_are_the_sums_written_out_whatever_the_vectors() {
        for (ci, co, input) in [(1, 16, 11), (4, 32, 10), (3, 48, 17)] {
            let shape = PoolShape { ci, co, input };
            let input = numbers(shape.input_len(), 1);
            let weights = numbers(KERNEL.pow(3) * ci * co, 2);
            let (bias, slopes) = (numbers(co, 3), numbers(co, 4));
            let expected = plain(&shape, [&input, &weights, &bias, &slopes]);
            let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            let transformed = transformed(&weights, &shape);
            for level in levels() {
                let mut found = vec![0.0; shape.pooled().pow(2) * shape.row_len()];
                level.dispatch(ConvPool {
                    shape,
                    input: &input,
                    weights: &transformed,
                    bias: &bias,
                    slopes: &slopes,
                    rows: 0..shape.pooled().pow(2),
                    output: &mut found,
                });
                assert_eq!(found.len(), expected.len());
                for (f, e) in found.iter().zip(&expected) {
                    let apart = (f64::from(*f) - e).abs();
                    assert!(apart <= 1e-5 * largest, "{shape:?} {level:?}: {f} for {e}");
                }
            }
        }
    }
}
