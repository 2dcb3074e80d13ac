//! Gradients of a whole trunk of small strided convolutions on the CPU: one sample
//! after another, channels last, through `conv_grad`. Subsequent fully connected
//! layers are matrix products over the batch.

use pulp::Arch;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::kernels::conv_grad::{ConvShape, InputGradient, WeightGradient};
use crate::network::layer::as_i64;
use crate::network::layer::{LEAK, Layer, numbers};
use crate::network::parameters::Parameters;
use crate::network::spec::Activation;
use crate::network::trunk::{Compute, Trunk};

/// Maximum number of channels per vector.
const VECTOR: usize = 16;

/// Whether this module computes a trunk's gradients: f32 on a CPU, activations
/// without parameters, no pooling, whole vectors of channels, strides that keep
/// the outputs few; then any number of layers that cover their whole input.
pub(crate) fn is_for(trunk: &Trunk, compute: Compute, p: &Parameters) -> bool {
    let (strided, dense) = trunk.layers.split_at(strided(trunk));
    let own = |(i, layer): (usize, &Layer)| {
        let inner = i == 0 || trunk.layers[i - 1].conv.channels.is_multiple_of(VECTOR);
        let strided = layer.conv.stride > 1 && !layer.conv.pool;
        strided && layer.prelu.is_none() && layer.conv.channels.is_multiple_of(VECTOR) && inner
    };
    p.device() == Device::Cpu
        && compute.kind(p) == Kind::Float
        && trunk.activation != Activation::Prelu
        && !strided.is_empty()
        && strided.iter().enumerate().all(own)
        && dense.iter().all(|layer| layer.prelu.is_none())
}

/// Number of layers before the fully connected ones at the end.
fn strided(trunk: &Trunk) -> usize {
    let dense = trunk.layers.iter().rev().take_while(|l| l.is_dense());
    trunk.layers.len() - dense.count()
}

/// The values of a forward pass that the gradients need.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Windows and each layer's output, `[B, C, x, y, z]`.
    values: Vec<Tensor>,
}

impl Recorded {
    /// Runs windows `[B, H, n, n, n]` through all layers.
    pub(crate) fn forward(
        trunk: &Trunk,
        p: &Parameters,
        windows: &Tensor,
        compute: Compute,
    ) -> Result<Self> {
        let mut values = vec![compute.ready(windows, Kind::Float)?];
        for layer in &trunk.layers {
            let input = &values[values.len() - 1];
            let output = trunk.layer(layer, p, input, compute)?;
            values.push(output);
        }
        Ok(Self { values })
    }

    /// Windows and each layer's output, `[B, C, x, y, z]`.
    #[cfg(test)]
    pub(crate) fn values(&self) -> &[Tensor] {
        &self.values
    }

    /// Features `[B, F]`.
    pub(crate) fn features(&self) -> Result<Tensor> {
        Ok(self.values[self.values.len() - 1].f_flatten(1, -1)?)
    }

    /// Gradients of weights and bias of each layer, from the features' gradient.
    pub(crate) fn gradients(
        &self,
        trunk: &Trunk,
        p: &Parameters,
        features: &Tensor,
    ) -> Result<Vec<Tensor>> {
        let slope = match trunk.activation {
            Activation::Relu => 0.0,
            Activation::LeakyRelu => LEAK,
            Activation::Linear | Activation::Prelu => 1.0,
        };
        let strided = strided(trunk);
        let mut gradient = features.shallow_clone();
        let mut dense = Vec::new();
        for (i, layer) in trunk.layers.iter().enumerate().skip(strided).rev() {
            let y = self.values[i + 1].f_flatten(1, -1)?;
            let scaled = gradient.f_mul_scalar(f64::from(slope))?;
            let before = gradient.f_where_self(&y.f_gt(0.0)?, &scaled)?;
            let x = self.values[i].f_flatten(1, -1)?;
            let weight = p.at(layer.weight).detach();
            let of_weight = before.f_transpose(0, 1)?.f_matmul(&x)?;
            let of_bias = before.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)?;
            dense.push([of_weight.f_view(&weight.size()[..])?, of_bias]);
            gradient = before.f_matmul(&weight.f_flatten(1, -1)?)?;
        }
        let mut all = self.convolutions(&trunk.layers[..strided], p, &gradient, slope)?;
        all.extend(dense.into_iter().rev().flatten());
        Ok(all)
    }

    /// Gradients of the layers before the fully connected ones.
    fn convolutions(
        &self,
        of: &[Layer],
        p: &Parameters,
        features: &Tensor,
        slope: f32,
    ) -> Result<Vec<Tensor>> {
        let values = self.values[..=of.len()]
            .iter()
            .map(channels_last)
            .collect::<Result<Vec<_>>>()?;
        let last = self.values[of.len()].size();
        let gradient = channels_last(&features.f_view(&last[..])?)?;
        let mut layers = Vec::with_capacity(of.len());
        for (i, layer) in of.iter().enumerate() {
            let sizes: Vec<usize> = [&self.values[i], &self.values[i + 1]]
                .map(|t| usize::try_from(t.size()[2]).unwrap_or(0))
                .into();
            let ci = usize::try_from(self.values[i].size()[1]).unwrap_or(0);
            layers.push(LayerGrad::new(layer, p, ci, &sizes, i > 0)?);
        }
        let samples = usize::try_from(last[0]).unwrap_or(0);
        let mut work = Vec::new();
        for sample in 0..samples {
            let of = |len: usize| sample * len..(sample + 1) * len;
            work.clear();
            work.extend_from_slice(&gradient[of(gradient.len() / samples)]);
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                let (x, y) = (&values[i], &values[i + 1]);
                let y = &y[of(layer.shape.output_len())];
                for (g, y) in work.iter_mut().zip(y) {
                    *g *= if *y > 0.0 { 1.0 } else { slope };
                }
                let x = &x[of(layer.side.pow(3) * layer.shape.ci)];
                layer.add(x, &mut work);
            }
        }
        let mut all = Vec::with_capacity(2 * layers.len());
        for layer in &layers {
            all.extend(layer.tensors()?);
        }
        Ok(all)
    }
}

/// Sums of one layer.
struct LayerGrad {
    shape: ConvShape,
    /// Samples per side of the unpadded input, and zeros before it.
    side: usize,
    before: usize,
    /// `[k][k][co][k·ci]`; empty where the input's gradient is not needed.
    weights: Vec<f32>,
    weight_sum: Vec<f32>,
    bias_sum: Vec<f32>,
    padded: Vec<f32>,
    padded_gradient: Vec<f32>,
}

impl LayerGrad {
    fn new(layer: &Layer, p: &Parameters, ci: usize, sides: &[usize], inner: bool) -> Result<Self> {
        let conv = &layer.conv;
        let (before, after) = conv.padding.around(layer.side, conv.kernel, conv.stride);
        let shape = ConvShape {
            ci,
            co: conv.channels,
            kernel: conv.kernel,
            stride: conv.stride,
            input: before + sides[0] + after,
            output: sides[1],
        };
        let weights = if inner {
            let weight = p.at(layer.weight).detach();
            numbers(&weight.f_permute([2, 3, 0, 4, 1])?)?
        } else {
            Vec::new()
        };
        Ok(Self {
            shape,
            side: sides[0],
            before,
            padded_gradient: vec![0.0; if inner { shape.input_len() } else { 0 }],
            weights,
            weight_sum: vec![0.0; shape.weight_len()],
            bias_sum: vec![0.0; shape.co],
            padded: vec![0.0; shape.input_len()],
        })
    }

    /// Adds one sample: its input `x`, and the gradient of its output, which is
    /// replaced by the gradient of its input.
    fn add(&mut self, x: &[f32], gradient: &mut Vec<f32>) {
        for outputs in gradient.chunks_exact(self.shape.co) {
            for (sum, g) in self.bias_sum.iter_mut().zip(outputs) {
                *sum += g;
            }
        }
        let row = self.side * self.shape.ci;
        for (from, to) in x.chunks_exact(row).zip(self.rows()) {
            self.padded[to..to + row].copy_from_slice(from);
        }
        let arch = Arch::new();
        arch.dispatch(WeightGradient {
            shape: self.shape,
            input: &self.padded,
            output_gradient: gradient,
            sum: &mut self.weight_sum,
        });
        if self.weights.is_empty() {
            return;
        }
        self.padded_gradient.fill(0.0);
        arch.dispatch(InputGradient {
            shape: self.shape,
            weights: &self.weights,
            output_gradient: gradient,
            sum: &mut self.padded_gradient,
        });
        gradient.clear();
        for from in self.rows() {
            gradient.extend_from_slice(&self.padded_gradient[from..from + row]);
        }
    }

    /// Start indices of the input's rows along z in the padded input.
    fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        let (side, before, padded, ci) = (self.side, self.before, self.shape.input, self.shape.ci);
        (0..side * side).map(move |i| {
            let (x, y) = (i / side + before, i % side + before);
            ((x * padded + y) * padded + before) * ci
        })
    }

    /// Gradients of weights `[co, ci, k, k, k]` and bias `[co]`.
    fn tensors(&self) -> Result<[Tensor; 2]> {
        let s = self.shape;
        let k = s.kernel;
        let size = as_i64(&[k, k, k, s.ci, s.co]);
        let weight = Tensor::f_from_slice(&self.weight_sum)?.f_view(&size[..])?;
        let weight = weight.f_permute([4, 3, 0, 1, 2])?.f_contiguous()?;
        Ok([weight, Tensor::f_from_slice(&self.bias_sum)?])
    }
}

/// Values of `[B, C, x, y, z]` with channels last.
fn channels_last(tensor: &Tensor) -> Result<Vec<f32>> {
    numbers(&tensor.f_permute([0, 2, 3, 4, 1])?)
}
