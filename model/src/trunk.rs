//! The shared convolutions.

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::blocked;
use crate::error::Result;
use crate::init::as_i64;
use crate::layout::{Layout, Role};
use crate::parameters::Parameters;
use crate::spec::{Activation, ConvSpec, NetworkSpec};

/// How the trunk computes; parameters and results are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Convolutions in bfloat16, from f32 master weights.
    pub bf16: bool,
    /// Channels next to each other in memory, which suits cuDNN and oneDNN.
    pub channels_last: bool,
    /// Most windows that pass the trunk together; all of a batch where `None`.
    pub windows: Option<usize>,
    /// Pooled convolutions block by block (`blocked`), which suits GPUs.
    pub blocked: bool,
}

/// Bytes of a layer's output that should not leave the cache before the next
/// layer reads it: about what a CPU's last level holds.
const CACHED: usize = 16 << 20;

/// The same on a GPU: what actors may take of a memory that a learner needs.
const BESIDE: usize = 1 << 30;

/// The shared convolutions, as places in the parameters.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) layers: Vec<Layer>,
    pub(crate) activation: Activation,
}

/// One convolution with what follows it, as places in the parameters.
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
    /// Of `blocked`, once it was needed.
    pub(crate) block_places: OnceCell<Tensor>,
}

impl Trunk {
    /// Finds the convolutions in a layout.
    pub(crate) fn new(spec: &NetworkSpec, layout: &Layout) -> Result<Self> {
        let sides = spec.feature_sides()?;
        let inputs = std::iter::once(spec.window).chain(sides);
        let mut places = layout
            .slots
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.role.stacked())
            .peekable();
        let mut layers = Vec::with_capacity(spec.conv.len());
        for (conv, side) in spec.conv.iter().zip(inputs) {
            let mut next = || places.next().map_or(0, |(place, _)| place);
            let (weight, bias) = (next(), next());
            let prelu = places
                .next_if(|(_, s)| s.role == Role::ConvPrelu)
                .map(|(place, _)| place);
            let (before, after) = conv.padding.around(side, conv.kernel, conv.stride);
            let padding = as_i64(&[before, after]);
            layers.push(Layer {
                conv: *conv,
                side,
                padding: (padding[0], padding[1]),
                weight,
                bias,
                prelu,
                block_places: OnceCell::new(),
            });
        }
        Ok(Self {
            layers,
            activation: spec.activation,
        })
    }

    /// Windows `[B, H, n, n, n]` → features `[B, F]`, f32.
    pub(crate) fn forward(
        &self,
        p: &Parameters,
        windows: &Tensor,
        compute: Compute,
    ) -> Result<Tensor> {
        let batch = windows.size().first().copied().unwrap_or(0);
        let part = compute.windows.and_then(|n| i64::try_from(n.max(1)).ok());
        let Some(part) = part.filter(|&n| n < batch) else {
            return self.together(p, windows, compute);
        };
        let parts = windows.f_split(part, 0)?;
        let features: Result<Vec<Tensor>> = parts
            .iter()
            .map(|part| self.together(p, part, compute))
            .collect();
        Ok(Tensor::f_cat(&features?, 0)?)
    }

    fn together(&self, p: &Parameters, windows: &Tensor, compute: Compute) -> Result<Tensor> {
        let mut x = match self.layers.first() {
            // Blocks are put in order from either layout.
            Some(first) if compute.blocked && blocked::is_for(first) => {
                windows.f_to_kind(compute.kind())?
            }
            _ => compute.ready(windows)?,
        };
        for layer in &self.layers {
            x = self.layer(layer, p, &x, compute)?;
        }
        Ok(x.f_flatten(1, -1)?.f_to_kind(Kind::Float)?)
    }

    /// One layer's output.
    pub(crate) fn layer(
        &self,
        layer: &Layer,
        p: &Parameters,
        x: &Tensor,
        compute: Compute,
    ) -> Result<Tensor> {
        let slope = layer
            .prelu
            .map(|place| p.at(place).f_to_kind(compute.kind()))
            .transpose()?;
        let (weight, bias) = (p.at(layer.weight), p.at(layer.bias));
        if compute.blocked && blocked::is_for(layer) {
            let (parameters, kind) = ([weight, bias], compute.kind());
            return blocked::layer(layer, x, parameters, slope.as_ref(), self.activation, kind);
        }
        let (weight, bias) = (compute.ready(weight)?, bias.f_to_kind(compute.kind())?);
        let x = layer.convolve(x, &weight, &bias)?;
        let x = activate(&x, self.activation, slope.as_ref())?;
        if layer.conv.pool {
            return Ok(x.f_max_pool3d([2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1], false)?);
        }
        Ok(x)
    }
}

impl Compute {
    /// What suits forward passes without gradients: on a CPU as many windows at
    /// once as leave each layer's output in the cache (the published networks'
    /// first one is 10 MB for a single window), on a GPU as many as take a
    /// gigabyte there.
    ///
    /// # Errors
    /// [`crate::ModelError::Spec`] for a spec that is not valid.
    pub fn acting(spec: &NetworkSpec, device: Device) -> Result<Self> {
        let room = if device == Device::Cpu {
            CACHED
        } else {
            BESIDE
        };
        Ok(Self {
            bf16: false,
            channels_last: true,
            windows: Some((room / spec.largest_output()?.max(1)).max(1)),
            blocked: device != Device::Cpu,
        })
    }

    pub(crate) fn kind(self) -> Kind {
        if self.bf16 {
            Kind::BFloat16
        } else {
            Kind::Float
        }
    }

    /// A tensor `[a, c, x, y, z]` as this computes with it.
    pub(crate) fn ready(self, tensor: &Tensor) -> Result<Tensor> {
        let tensor = tensor.f_to_kind(self.kind())?;
        if self.channels_last {
            channels_last(&tensor)
        } else {
            Ok(tensor)
        }
    }
}

impl Layer {
    fn convolve(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let stride = as_i64(&[self.conv.stride; 3]);
        let (before, after) = self.padding;
        if before == after {
            return Ok(x.f_conv3d(weight, Some(bias), stride, [before; 3], [1; 3], 1)?);
        }
        // libtorch's convolutions pad both sides alike.
        let padded = x.f_constant_pad_nd([before, after, before, after, before, after])?;
        Ok(padded.f_conv3d(weight, Some(bias), stride, [0; 3], [1; 3], 1)?)
    }
}

/// Applies an activation; `slope` belongs to PReLU and has one number, or one
/// per entry of axis 1.
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

/// The same `[a, c, x, y, z]` with c fastest in memory; tch has no word for
/// the memory format, so the strides are made by hand.
fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor
        .f_permute([0, 2, 3, 4, 1])?
        .f_contiguous()?
        .f_permute([0, 4, 1, 2, 3])?)
}
