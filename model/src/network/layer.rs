//! One convolution of the trunk with its activation.

use std::cell::OnceCell;

use tch::Tensor;

use crate::error::Result;
use crate::network::spec::{Activation, ConvSpec};

/// Slope of libtorch's `leaky_relu` for negative inputs.
pub(crate) const LEAK: f32 = 0.01;

/// One convolution with its activation and pooling, as indices of parameters.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) conv: ConvSpec,
    /// Samples per side of the input.
    pub(crate) side: usize,
    /// Zeros (before, after) each axis.
    pub(crate) padding: (i64, i64),
    pub(crate) weight: usize,
    pub(crate) bias: usize,
    pub(crate) prelu: Option<usize>,
    /// Cache of `space_to_depth`, filled at its first use.
    pub(crate) block_places: OnceCell<Tensor>,
}

impl Clone for Layer {
    fn clone(&self) -> Self {
        Self {
            block_places: OnceCell::new(),
            ..*self
        }
    }
}

impl Layer {
    /// Whether the kernel covers the whole input: a fully connected layer.
    pub(crate) fn is_dense(&self) -> bool {
        self.conv.kernel == self.side && self.padding == (0, 0) && !self.conv.pool
    }

    /// `[B, C, k, k, k]` → `[B, O, 1, 1, 1]` as one matrix product.
    pub(crate) fn multiply(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let y = x.f_flatten(1, -1)?;
        let y = y.f_linear(&weight.f_flatten(1, -1)?, Some(bias))?;
        Ok(y.f_unflatten(1, [-1, 1, 1, 1])?)
    }

    pub(crate) fn convolve(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let stride = as_i64(&[self.conv.stride; 3]);
        let (before, after) = self.padding;
        if before == after {
            return Ok(x.f_conv3d(weight, Some(bias), stride, [before; 3], [1; 3], 1)?);
        }
        // libtorch's convolutions only pad both sides equally.
        let padded = x.f_constant_pad_nd([before, after, before, after, before, after])?;
        Ok(padded.f_conv3d(weight, Some(bias), stride, [0; 3], [1; 3], 1)?)
    }
}

/// Applies an activation; `slope` is PReLU's and has one value, or one per
/// entry of axis 1.
pub(crate) fn activate(
    x: &Tensor,
    activation: Activation,
    slope: Option<&Tensor>,
) -> Result<Tensor> {
    Ok(match (activation, slope) {
        (Activation::Prelu, Some(slope)) => x.f_prelu(slope)?,
        (Activation::LeakyRelu, _) => x.f_leaky_relu()?,
        (Activation::Relu, _) => x.f_relu()?,
        (Activation::Linear | Activation::Prelu, _) => x.shallow_clone(),
    })
}

/// A tensor's values in row-major order.
pub(crate) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_contiguous()?;
    let mut all = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut all, tensor.numel())?;
    Ok(all)
}

/// A shape in libtorch's integer type.
pub(crate) fn as_i64(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|&n| i64::try_from(n).unwrap_or(i64::MAX))
        .collect()
}
