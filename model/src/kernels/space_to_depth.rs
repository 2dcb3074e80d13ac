//! A convolution followed by 2³ max pooling, computed block by block on a GPU.
//!
//! The first layers of the published networks have 4 and 32 channels, far fewer
//! than matrix units need: cuDNN reaches 27 TFLOP/s in the first one on a card
//! that reaches 780. With the eight voxels of a 2³ block as channels, the same
//! convolution has 8 · C input channels, and its outputs are the eight outputs
//! that one pooling step reads: a kernel of 5³ becomes one of 3³ blocks. That takes
//! 6³ / 5³ = 1.7 times the multiplications at 15 times the rate, and pooling
//! becomes a maximum over channels. The sums are the same, in another order.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::network::layer::as_i64;
use crate::network::layer::{Layer, activate};
use crate::network::spec::Activation;

/// Voxels per side of a block, the same as of a pooling window.
const SIDE: i64 = 2;
/// Voxels of a block.
const VOXELS: i64 = SIDE * SIDE * SIDE;

/// Whether this is faster: pooled, unit stride, and at most twice the work.
pub(crate) fn is_for(layer: &Layer) -> bool {
    let conv = &layer.conv;
    let wide = 2 * blocks(conv.kernel);
    conv.pool && conv.stride == 1 && wide.pow(3) <= 2 * conv.kernel.pow(3)
}

/// Blocks per side that the kernel covers from any voxel of a block.
fn blocks(kernel: usize) -> usize {
    (kernel + 1).div_ceil(2)
}

/// `[B, C, n, n, n]` → the layer's output `[B, O, h, h, h]`: convolution,
/// activation, pooling. `slope` is PReLU's.
pub(crate) fn layer(
    layer: &Layer,
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    slope: Option<&Tensor>,
    activation: Activation,
    kind: Kind,
) -> Result<Tensor> {
    let y = convolve(layer, x, weight, kind)?;
    let bias = bias.f_to_kind(kind)?;
    // A bias and a non-decreasing activation keep the maximum at the same place, so
    // they are applied after pooling, to an eighth of the values.
    let falls = match slope {
        Some(slope) if activation == Activation::Prelu => slope.f_min()?.f_double_value(&[])? < 0.0,
        _ => false,
    };
    let channels = [1, bias.size()[0], 1, 1, 1];
    if falls {
        // [B, O, h, h, h, 8]: activations expect the channels on axis 1.
        let y = y.f_add(&bias)?.f_permute([0, 5, 1, 2, 3, 4])?;
        let y = activate(&y, activation, slope)?;
        return pool(&y.f_permute([0, 2, 3, 4, 5, 1])?);
    }
    let largest = pool(&y)?.f_add(&bias.f_view(channels)?)?;
    activate(&largest, activation, slope)
}

/// The convolution without its bias `[B, h, h, h, 8, O]`; axis 4 is the voxel
/// within a block.
fn convolve(layer: &Layer, x: &Tensor, weight: &Tensor, kind: Kind) -> Result<Tensor> {
    let (before, after) = layer.padding;
    let kernel = as_i64(&[layer.conv.kernel])[0];
    let reach = as_i64(&[blocks(layer.conv.kernel)])[0];
    let outputs = x.size()[2] + before + after - kernel + 1;
    // Pooling drops the last output if their number is odd.
    let half = outputs / SIDE;
    let x = to_blocks(x, half + reach - 1, before)?;
    let weight = weight_of_blocks(weight, layer.block_places(weight, reach)?, reach)?;
    let weight = weight.f_to_kind(kind)?;
    let no_bias: Option<&Tensor> = None;
    let y = x.f_conv3d(&weight, no_bias, [1; 3], [0; 3], [1; 3], 1)?;
    let size = y.size();
    let y = y.f_permute([0, 2, 3, 4, 1])?;
    Ok(y.f_reshape([size[0], half, half, half, VOXELS, size[1] / VOXELS])?)
}

/// `[B, h, h, h, 8, O]` → the maximum of each block, `[B, O, h, h, h]`. Without
/// gradients the indices of the maxima are not kept.
fn pool(y: &Tensor) -> Result<Tensor> {
    let largest = if y.requires_grad() {
        y.f_max_dim(4, false)?.0
    } else {
        y.f_amax([4_i64].as_slice(), false)?
    };
    Ok(largest.f_permute([0, 4, 1, 2, 3])?)
}

/// `[B, C, n, n, n]` with `before` zeros in front of each axis, cropped or padded
/// to `count` blocks per side → `[B, 8 · C, count, count, count]`, channels last.
fn to_blocks(x: &Tensor, count: i64, before: i64) -> Result<Tensor> {
    let size = x.size();
    let after = SIDE * count - size[2] - before;
    let x = x.f_constant_pad_nd([before, after, before, after, before, after])?;
    let split = [size[0], size[1], count, SIDE, count, SIDE, count, SIDE];
    let x = x
        .f_reshape(split)?
        .f_permute([0, 2, 4, 6, 3, 5, 7, 1])?
        .f_reshape([size[0], count, count, count, VOXELS * size[1]])?;
    Ok(x.f_permute([0, 4, 1, 2, 3])?)
}

/// `[O, C, k, k, k]` → `[8 · O, 8 · C, r, r, r]`, channels last: for each voxel of
/// a block, the kernel shifted by that voxel. A single gather, because on a GPU
/// launching many small copies takes longer than the copies themselves.
fn weight_of_blocks(weight: &Tensor, places: &Tensor, reach: i64) -> Result<Tensor> {
    let size = weight.size();
    let zero = Tensor::f_zeros([1], (weight.kind(), weight.device()))?;
    let numbers = Tensor::f_cat(&[weight.f_flatten(0, -1)?, zero], 0)?;
    let shape = [VOXELS * size[0], reach, reach, reach, VOXELS * size[1]];
    let blocks = numbers.f_index_select(0, places)?.f_reshape(shape)?;
    Ok(blocks.f_permute([0, 4, 1, 2, 3])?)
}

impl Layer {
    /// [`places`] on the weight's device, computed once.
    fn block_places(&self, weight: &Tensor, reach: i64) -> Result<&Tensor> {
        if let Some(there) = self.block_places.get() {
            return Ok(there);
        }
        let size = weight.size();
        let places = Tensor::f_from_slice(&places(size[0], size[1], size[2], reach))?;
        let places = places.f_to_device(weight.device())?;
        Ok(self.block_places.get_or_init(|| places))
    }
}

/// For each value `[8, O, r, r, r, 8, C]` of the blocks' weights, its index in a
/// weight `[O, C, k, k, k]`; one past the end for zeros.
fn places(outputs: i64, inputs: i64, kernel: i64, reach: i64) -> Vec<i64> {
    let end = outputs * inputs * kernel.pow(3);
    let mut places = Vec::new();
    for of_output in voxels() {
        for o in 0..outputs {
            for block in cube(reach) {
                for of_input in voxels() {
                    // Relative to the kernel's first voxel.
                    let [x, y, z]: [i64; 3] =
                        std::array::from_fn(|i| SIDE * block[i] + of_input[i] - of_output[i]);
                    let inside = [x, y, z].iter().all(|v| (0..kernel).contains(v));
                    places.extend((0..inputs).map(|c| {
                        let plane = (o * inputs + c) * kernel + x;
                        if inside {
                            (plane * kernel + y) * kernel + z
                        } else {
                            end
                        }
                    }));
                }
            }
        }
    }
    places
}

/// The voxels of a block in the order of their channels.
fn voxels() -> impl Iterator<Item = [i64; 3]> {
    cube(SIDE)
}

fn cube(side: i64) -> impl Iterator<Item = [i64; 3]> {
    (0..side).flat_map(move |x| (0..side).flat_map(move |y| (0..side).map(move |z| [x, y, z])))
}
