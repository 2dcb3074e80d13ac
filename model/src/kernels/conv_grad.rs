//! Gradients of one strided convolution for one sample, on the CPU.
//!
//! oneDNN's backward passes of small strided 3D convolutions take three to four
//! times as long as its forward pass (`cargo bench -p model`), because they
//! unfold the input; these do not. All arrays are channels last: input
//! `[D][D][D][ci]`, already padded; output gradient `[O][O][O][co]`; weights
//! `[k][k][…]`. The k·ci values that one output reads along z are then contiguous
//! in memory and are processed as one axis, `j`.

use pulp::{Simd, WithSimd};

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    /// Channels of the input.
    pub(crate) ci: usize,
    /// Channels of the output, a multiple of 16.
    pub(crate) co: usize,
    /// Samples per side of the kernel.
    pub(crate) kernel: usize,
    /// Samples between neighbouring outputs.
    pub(crate) stride: usize,
    /// D: samples per side of the padded input.
    pub(crate) input: usize,
    /// O: samples per side of the output.
    pub(crate) output: usize,
}

impl ConvShape {
    /// Number of values that one output reads along z.
    fn along_z(&self) -> usize {
        self.kernel * self.ci
    }

    /// Number of values of the padded input.
    pub(crate) fn input_len(&self) -> usize {
        self.input.pow(3) * self.ci
    }

    pub(crate) fn output_len(&self) -> usize {
        self.output.pow(3) * self.co
    }

    pub(crate) fn weight_len(&self) -> usize {
        self.kernel.pow(2) * self.along_z() * self.co
    }

    /// Start of the column of samples along z that output row (ox, oy) reads for
    /// the kernel's (kx, ky).
    fn column(&self, [ox, oy]: [usize; 2], [kx, ky]: [usize; 2]) -> usize {
        let (x, y) = (ox * self.stride + kx, oy * self.stride + ky);
        (x * self.input + y) * self.input * self.ci
    }

    fn planes(side: usize) -> impl Iterator<Item = [usize; 2]> {
        (0..side).flat_map(move |a| (0..side).map(move |b| [a, b]))
    }
}

/// Adds the gradient of the weights, `[k][k][j][co]`.
pub(crate) struct WeightGradient<'a> {
    pub(crate) shape: ConvShape,
    pub(crate) input: &'a [f32],
    pub(crate) output_gradient: &'a [f32],
    pub(crate) sum: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.shape.co.is_multiple_of(2 * S::F32_LANES) {
            self.blocks::<S, 2>(simd);
        } else {
            self.blocks::<S, 1>(simd);
        }
    }
}

impl WeightGradient<'_> {
    /// Processes blocks of up to six `j` by C vectors of output channels: their sums
    /// stay in registers for a whole pass over the sample.
    #[inline(always)]
    fn blocks<S: Simd, const C: usize>(&mut self, simd: S) {
        let width = self.shape.along_z();
        for tap in ConvShape::planes(self.shape.kernel) {
            for c in (0..self.shape.co / S::F32_LANES).step_by(C) {
                let mut j = 0;
                while j < width {
                    let place = (tap, j, c);
                    match width - j {
                        1 => self.block::<S, C, 1>(simd, place),
                        2 => self.block::<S, C, 2>(simd, place),
                        3 => self.block::<S, C, 3>(simd, place),
                        4 => self.block::<S, C, 4>(simd, place),
                        5 => self.block::<S, C, 5>(simd, place),
                        _ => self.block::<S, C, 6>(simd, place),
                    }
                    j += 6;
                }
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const C: usize, const J: usize>(
        &mut self,
        simd: S,
        (tap, j, c): ([usize; 2], usize, usize),
    ) {
        let s = self.shape;
        let vectors = s.co / S::F32_LANES;
        let (gradient, _) = S::as_simd_f32s(self.output_gradient);
        let mut sums = [[simd.splat_f32s(0.0); C]; J];
        for row in ConvShape::planes(s.output) {
            let mut from = s.column(row, tap) + j;
            let mut at = (row[0] * s.output + row[1]) * s.output * vectors + c;
            for _ in 0..s.output {
                let inputs = &self.input[from..from + J];
                let outputs = &gradient[at..at + C];
                for i in 0..J {
                    let x = simd.splat_f32s(inputs[i]);
                    for k in 0..C {
                        sums[i][k] = simd.mul_add_e_f32s(x, outputs[k], sums[i][k]);
                    }
                }
                from += s.stride * s.ci;
                at += vectors;
            }
        }
        let (all, _) = S::as_mut_simd_f32s(self.sum);
        let first = (tap[0] * s.kernel + tap[1]) * s.along_z() + j;
        for i in 0..J {
            for k in 0..C {
                let sum = &mut all[(first + i) * vectors + c + k];
                *sum = simd.add_f32s(*sum, sums[i][k]);
            }
        }
    }
}

/// Adds the gradient of the padded input. `weights` are `[k][k][co][j]`, and
/// `ci` is a multiple of 16.
pub(crate) struct InputGradient<'a> {
    pub(crate) shape: ConvShape,
    pub(crate) weights: &'a [f32],
    pub(crate) output_gradient: &'a [f32],
    pub(crate) sum: &'a mut [f32],
}

impl WithSimd for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.shape.along_z().is_multiple_of(2 * S::F32_LANES) {
            self.rows::<S, 2>(simd);
        } else {
            self.rows::<S, 1>(simd);
        }
    }
}

impl InputGradient<'_> {
    #[inline(always)]
    fn rows<S: Simd, const C: usize>(&mut self, simd: S) {
        let s = self.shape;
        for tap in ConvShape::planes(s.kernel) {
            for row in ConvShape::planes(s.output) {
                let mut z = 0;
                while z < s.output {
                    let place = (tap, row, z);
                    match s.output - z {
                        1 => self.outputs::<S, C, 1>(simd, place),
                        2 => self.outputs::<S, C, 2>(simd, place),
                        3 => self.outputs::<S, C, 3>(simd, place),
                        4 => self.outputs::<S, C, 4>(simd, place),
                        5 => self.outputs::<S, C, 5>(simd, place),
                        _ => self.outputs::<S, C, 6>(simd, place),
                    }
                    z += 6;
                }
            }
        }
    }

    /// Adds the gradients of P neighbouring outputs along z to the samples they read.
    #[inline(always)]
    fn outputs<S: Simd, const C: usize, const P: usize>(
        &mut self,
        simd: S,
        (tap, row, z): ([usize; 2], [usize; 2], usize),
    ) {
        let s = self.shape;
        let vectors = s.along_z() / S::F32_LANES;
        let first = (tap[0] * s.kernel + tap[1]) * s.co * s.along_z();
        let (weights, _) = S::as_simd_f32s(&self.weights[first..]);
        let at = ((row[0] * s.output + row[1]) * s.output + z) * s.co;
        let gradient = &self.output_gradient[at..at + P * s.co];
        let column = s.column(row, tap) + z * s.stride * s.ci;
        for c in (0..vectors).step_by(C) {
            let mut sums = [[simd.splat_f32s(0.0); C]; P];
            for o in 0..s.co {
                let weights = &weights[o * vectors + c..o * vectors + c + C];
                for p in 0..P {
                    let g = simd.splat_f32s(gradient[p * s.co + o]);
                    for k in 0..C {
                        sums[p][k] = simd.mul_add_e_f32s(g, weights[k], sums[p][k]);
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                let from = column + p * s.stride * s.ci + c * S::F32_LANES;
                let (to, _) = S::as_mut_simd_f32s(&mut self.sum[from..]);
                for k in 0..C {
                    to[k] = simd.add_f32s(to[k], sums[k]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::run::cpu::levels;

    /// Multiples of 1/32 below a half: sums of up to a thousand of their products fit
    /// the 24 bits of an f32, so they are exact in any order.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| ((i * 37 + seed * 101) % 29) as f32 / 32.0 - 14.0 / 32.0;
        (0..count).map(number).collect()
    }

    /// Every (output, tap) pair: index of the input, of the output gradient's
    /// first channel, and of (kx, ky, j).
    fn pairs(s: ConvShape) -> Vec<[usize; 3]> {
        let mut all = Vec::new();
        for [ox, oy] in ConvShape::planes(s.output) {
            for oz in 0..s.output {
                for [kx, ky] in ConvShape::planes(s.kernel) {
                    for j in 0..s.along_z() {
                        let input = s.column([ox, oy], [kx, ky]) + oz * s.stride * s.ci + j;
                        let output = ((ox * s.output + oy) * s.output + oz) * s.co;
                        all.push([input, output, (kx * s.kernel + ky) * s.along_z() + j]);
                    }
                }
            }
        }
        all
    }

    fn shapes() -> [ConvShape; 3] {
        let shape = |[ci, co, kernel, stride, input, output]: [usize; 6]| ConvShape {
            ci,
            co,
            kernel,
            stride,
            input,
            output,
        };
        [
            [1, 16, 5, 2, 11, 4],
            [16, 32, 3, 2, 9, 4],
            [32, 48, 2, 1, 9, 8],
        ]
        .map(shape)
    }

    #[test]
    fn weight_gradients_are_the_sums_written_out_whatever_the_vectors() {
        for s in shapes() {
            let (input, gradient) = (numbers(s.input_len(), 1), numbers(s.output_len(), 2));
            // [k][k][j][co], added to what is there.
            let before = numbers(s.weight_len(), 3);
            let mut expected = before.clone();
            for [i, o, j] in pairs(s) {
                for c in 0..s.co {
                    expected[j * s.co + c] += input[i] * gradient[o + c];
                }
            }
            for level in levels() {
                let mut found = before.clone();
                level.dispatch(WeightGradient {
                    shape: s,
                    input: &input,
                    output_gradient: &gradient,
                    sum: &mut found,
                });
                assert!(found == expected, "{s:?} {level:?}");
            }
        }
    }

    #[test]
    fn input_gradients_are_the_sums_written_out_whatever_the_vectors() {
        for s in shapes().into_iter().filter(|s| s.ci.is_multiple_of(16)) {
            let (weights, gradient) = (numbers(s.weight_len(), 4), numbers(s.output_len(), 2));
            let before = numbers(s.input_len(), 5);
            let mut expected = before.clone();
            for [i, o, kj] in pairs(s) {
                let (k, j) = (kj / s.along_z(), kj % s.along_z());
                for c in 0..s.co {
                    let weight = weights[(k * s.co + c) * s.along_z() + j];
                    expected[i] += weight * gradient[o + c];
                }
            }
            for level in levels() {
                let mut found = before.clone();
                level.dispatch(InputGradient {
                    shape: s,
                    weights: &weights,
                    output_gradient: &gradient,
                    sum: &mut found,
                });
                assert!(found == expected, "{s:?} {level:?}");
            }
        }
    }
}
