//! The shared convolutions.

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::device;
use crate::error::Result;
use crate::kernels::fused;
use crate::kernels::space_to_depth;
use crate::network::input;
use crate::network::layer::{Layer, activate, as_i64};
use crate::network::layout::{Layout, Role};
use crate::network::parameters::Parameters;
use crate::network::spec::{Activation, NetworkSpec};

/// How the trunk computes; the kind of parameters and results does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Convolutions in bfloat16, from f32 master weights.
    pub bf16: bool,
    /// Channels next to each other in memory, which suits cuDNN and oneDNN.
    pub channels_last: bool,
    /// Maximum number of windows per pass of the trunk; `None`: the whole batch.
    pub windows: Option<usize>,
    /// Pooled convolutions block by block (`space_to_depth`), which suits GPUs.
    pub blocked: bool,
    /// Pooled convolutions of 5³ by our own kernel (`fused`) if windows are on a CPU
    /// in f32: for acting, because it has no gradients. With `bf16` only the first
    /// one, whose few channels are slow in libtorch.
    pub fused: bool,
}

/// Bytes of a layer's output that should stay in the cache until the next layer
/// reads it: about the size of a CPU's last level.
const CACHED: usize = 16 << 20;

/// The same on a GPU: the memory that actors may take beside a learner.
const BESIDE: usize = 1 << 30;

/// Number of input channels from which libtorch's bf16 convolutions on a CPU beat our
/// own in f32: 32 do, the four frames of a window do not (`cargo xtask bench actor`).
const BF16_CHANNELS: i64 = 16;

/// The shared convolutions, as indices of parameters.
#[derive(Debug, Clone)]
pub(crate) struct Trunk {
    pub(crate) layers: Vec<Layer>,
    pub(crate) activation: Activation,
}

impl Trunk {
    /// Finds the convolutions in a layout.
    pub(crate) fn new(spec: &NetworkSpec, layout: &Layout) -> Result<Self> {
        let sides = spec.feature_sides()?;
        let inputs = std::iter::once(spec.window).chain(sides);
        let slots = layout.slots.iter().enumerate();
        let mut places = slots.filter(|(_, s)| !s.role.stacked()).peekable();
        let mut layers = Vec::with_capacity(spec.conv.len());
        for (conv, side) in spec.conv.iter().zip(inputs) {
            let mut next = || places.next().map_or(0, |(place, _)| place);
            let (weight, bias) = (next(), next());
            let prelu = places.next_if(|(_, s)| s.role == Role::ConvPrelu);
            let (before, after) = conv.padding.around(side, conv.kernel, conv.stride);
            let padding = as_i64(&[before, after]);
            layers.push(Layer {
                conv: *conv,
                side,
                padding: (padding[0], padding[1]),
                weight,
                bias,
                prelu: prelu.map(|(place, _)| place),
                block_places: OnceCell::new(),
            });
        }
        Ok(Self {
            layers,
            activation: spec.activation,
        })
    }

    /// Windows `[B, H, n, n, n]` → features `[B, F]`, in the parameters' kind.
    pub(crate) fn forward(
        &self,
        p: &Parameters,
        windows: &Tensor,
        compute: Compute,
    ) -> Result<Tensor> {
        let threads = i64::from(tch::get_num_threads());
        let batch = windows.size().first().copied().unwrap_or(0);
        let fused = self
            .layers
            .first()
            .is_some_and(|l| compute.fuses(l, windows));
        if fused && threads.min(batch) > 1 {
            return self.side_by_side(p, windows, compute, threads.min(batch));
        }
        self.in_parts(p, windows, compute)
    }

    /// Runs windows on several threads, each computing independently: this is faster than
    /// several threads per operation, which synchronise after each one and spin in between.
    fn side_by_side(
        &self,
        p: &Parameters,
        windows: &Tensor,
        compute: Compute,
        threads: i64,
    ) -> Result<Tensor> {
        let batch = windows.size().first().copied().unwrap_or(0);
        let parts = windows.f_split((batch + threads - 1) / threads, 0)?;
        let before = tch::get_num_threads();
        let work = |trunk: &Self, p: &Parameters, part: &Tensor| {
            device::set_threads(1);
            tch::no_grad(|| trunk.in_parts(p, part, compute))
        };
        let features: Result<Vec<Tensor>> = std::thread::scope(|scope| {
            let (first, others) = parts
                .split_first()
                .ok_or_else(|| input("windows", "at least one", "none"))?;
            let handles: Vec<_> = others
                .iter()
                .map(|part| {
                    let (trunk, p, part) = (self.clone(), p.share(), part.shallow_clone());
                    scope.spawn(move || work(&trunk, &p, &part))
                })
                .collect();
            let mut features = vec![work(self, p, first)];
            for handle in handles {
                let joined = handle.join();
                features.push(joined.unwrap_or_else(|e| std::panic::resume_unwind(e)));
            }
            features.into_iter().collect()
        });
        tch::set_num_threads(before);
        Ok(Tensor::f_cat(&features?, 0)?)
    }

    fn in_parts(&self, p: &Parameters, windows: &Tensor, compute: Compute) -> Result<Tensor> {
        let batch = windows.size().first().copied().unwrap_or(0);
        let part = compute.windows.and_then(|n| i64::try_from(n.max(1)).ok());
        let Some(part) = part.filter(|&n| n < batch) else {
            return self.together(p, windows, compute);
        };
        let parts = windows.f_split(part, 0)?;
        let features = parts.iter().map(|part| self.together(p, part, compute));
        let features: Result<Vec<Tensor>> = features.collect();
        Ok(Tensor::f_cat(&features?, 0)?)
    }

    fn together(&self, p: &Parameters, windows: &Tensor, compute: Compute) -> Result<Tensor> {
        let mut x = match self.layers.first() {
            Some(first) if compute.blocked && space_to_depth::is_for(first) => {
                windows.f_to_kind(compute.kind(p))?
            }
            // Both of these reorder the windows themselves.
            Some(first) if compute.fuses(first, windows) => windows.shallow_clone(),
            _ => compute.ready(windows, compute.kind(p))?,
        };
        for layer in &self.layers {
            x = self.layer(layer, p, &x, compute)?;
        }
        Ok(x.f_flatten(1, -1)?.f_to_kind(p.kind())?)
    }

    /// One layer's output.
    pub(crate) fn layer(
        &self,
        layer: &Layer,
        p: &Parameters,
        x: &Tensor,
        compute: Compute,
    ) -> Result<Tensor> {
        let slope = layer.prelu.map(|place| p.at(place));
        let (weight, bias) = (p.at(layer.weight), p.at(layer.bias));
        if compute.fuses(layer, x) {
            return fused::layer(layer, x, [weight, bias], slope, self.activation);
        }
        let kind = compute.kind(p);
        let slope = slope.map(|s| s.f_to_kind(kind)).transpose()?;
        if compute.blocked && space_to_depth::is_for(layer) {
            let (slope, activation) = (slope.as_ref(), self.activation);
            return space_to_depth::layer(layer, x, [weight, bias], slope, activation, kind);
        }
        let [x, bias] = [x, bias].map(|t| t.f_to_kind(kind));
        let (x, bias) = (x?, bias?);
        let x = if layer.is_dense() {
            layer.multiply(&x, &weight.f_to_kind(kind)?, &bias)?
        } else {
            layer.convolve(&x, &compute.ready(weight, kind)?, &bias)?
        };
        let x = activate(&x, self.activation, slope.as_ref())?;
        if layer.conv.pool {
            return Ok(x.f_max_pool3d([2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1], false)?);
        }
        Ok(x)
    }
}

impl Compute {
    /// The settings for forward passes without gradients: on a CPU as many windows at
    /// once as keep each layer's output in the cache (the published networks' first
    /// one takes 10 MB for a single window), on a GPU as many as take a gigabyte.
    ///
    /// # Errors
    /// [`crate::ModelError::Spec`] for an invalid spec.
    pub fn acting(spec: &NetworkSpec, device: Device, bf16: bool) -> Result<Self> {
        let fused = device == Device::Cpu;
        let room = if fused { CACHED } else { BESIDE };
        Ok(Self {
            bf16,
            channels_last: true,
            windows: Some((room / largest_output(spec, fused)?.max(1)).max(1)),
            blocked: !fused,
            fused,
        })
    }

    /// The kind in which the convolutions of a network with these parameters compute.
    pub(crate) fn kind(self, p: &Parameters) -> Kind {
        if self.bf16 { Kind::BFloat16 } else { p.kind() }
    }

    fn fuses(self, layer: &Layer, x: &Tensor) -> bool {
        let here = self.fused && fused::is_for(&layer.conv) && fused::takes(x);
        here && (!self.bf16 || x.size().get(1).is_some_and(|c| *c < BF16_CHANNELS))
    }

    /// Converts a tensor `[a, c, x, y, z]` to the kind and memory order of this computation.
    pub(crate) fn ready(self, tensor: &Tensor, kind: Kind) -> Result<Tensor> {
        let tensor = tensor.f_to_kind(kind)?;
        if self.channels_last {
            channels_last(&tensor)
        } else {
            Ok(tensor)
        }
    }
}

/// Bytes per window of the largest output of a convolution in f32; after pooling
/// if `fused` layers pool while they compute.
fn largest_output(spec: &NetworkSpec, fused: bool) -> Result<usize> {
    let sides = spec.feature_sides()?;
    let outputs = spec.conv.iter().zip(sides).map(|(conv, side)| {
        let pooled_later = conv.pool && !(fused && fused::is_for(conv));
        let side = if pooled_later { 2 * side } else { side };
        4 * conv.channels * side.pow(3)
    });
    Ok(outputs.max().unwrap_or(0))
}

/// `[a, c, x, y, z]` with c fastest in memory; tch does not expose the memory
/// format, so the strides are set explicitly.
fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor
        .f_permute([0, 2, 3, 4, 1])?
        .f_contiguous()?
        .f_permute([0, 4, 1, 2, 3])?)
}
