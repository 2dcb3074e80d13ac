//! Pooled layers with 5³ kernels on the CPU, through `winograd`.

use pulp::Arch;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::kernels::winograd::{ConvPool, KERNEL, PoolShape, transformed};
use crate::network::layer::as_i64;
use crate::network::layer::{LEAK, Layer, numbers};
use crate::network::spec::{Activation, ConvSpec};

/// Whether this module computes a layer; without our vector instructions,
/// libtorch is faster.
pub(crate) fn is_for(conv: &ConvSpec) -> bool {
    conv.pool
        && conv.stride == 1
        && conv.kernel == KERNEL
        && conv.channels.is_multiple_of(16)
        && !matches!(Arch::new(), Arch::Scalar)
}

/// Whether this module supports a tensor.
pub(crate) fn takes(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float
}

/// `[B, C, n, n, n]` → `[B, O, h, h, h]`, channels last in memory. Uses as many
/// threads as libtorch.
pub(crate) fn layer(
    layer: &Layer,
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    slope: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (before, after) = layer.padding;
    let sizes = x.size();
    let [batch, channels, side] = [0, 1, 2].map(|axis| {
        let size = sizes.get(axis).copied().unwrap_or(0);
        usize::try_from(size).unwrap_or(0)
    });
    let padding = usize::try_from(before + after).unwrap_or(0);
    let shape = PoolShape {
        ci: channels,
        co: layer.conv.channels,
        input: side + padding,
    };
    let deeper = after + as_i64(&[shape.deep() - shape.input])[0];
    let padded = x.f_permute([0, 2, 3, 4, 1])?;
    let padded = padded.f_constant_pad_nd([0, 0, before, deeper, before, after, before, after])?;
    let weights = numbers(&weight.f_permute([2, 3, 4, 1, 0])?)?;
    let numbers_of = [
        numbers(&padded)?,
        transformed(&weights, &shape),
        numbers(bias)?,
        slopes(slope, activation, shape.co)?,
    ];
    let half = shape.pooled();
    let mut output = vec![0.0; batch * half * half * shape.row_len()];
    let numbers_of = numbers_of.each_ref().map(Vec::as_slice);
    share(&shape, numbers_of, &mut output);
    let size = as_i64(&[batch, half, half, half, shape.co]);
    let output = Tensor::f_from_slice(&output)?.f_view(&size[..])?;
    Ok(output.f_permute([0, 4, 1, 2, 3])?)
}

/// Divides the rows of all windows among threads.
fn share(shape: &PoolShape, numbers: [&[f32]; 4], output: &mut [f32]) {
    let rows = output.len() / shape.row_len().max(1);
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let part = rows.div_ceil(threads).max(1);
    let mut parts = output.chunks_mut(part * shape.row_len()).enumerate();
    std::thread::scope(|scope| {
        let mine = parts.next();
        for (i, output) in parts {
            scope.spawn(move || work(shape, numbers, i * part, output));
        }
        if let Some((i, output)) = mine {
            work(shape, numbers, i * part, output);
        }
    });
}

/// Computes rows from `first` on, numbered by window, then x, then y.
fn work(
    shape: &PoolShape,
    [input, weights, bias, slopes]: [&[f32]; 4],
    first: usize,
    output: &mut [f32],
) {
    let each = shape.pooled().pow(2);
    let mut rest = output;
    let mut row = first;
    while !rest.is_empty() {
        let (window, from) = (row / each, row % each);
        let count = (each - from).min(rest.len() / shape.row_len());
        let (now, later) = rest.split_at_mut(count * shape.row_len());
        Arch::new().dispatch(ConvPool {
            shape: *shape,
            input: &input[window * shape.input_len()..][..shape.input_len()],
            weights,
            bias,
            slopes,
            rows: from..from + count,
            output: now,
        });
        (rest, row) = (later, row + count);
    }
}

/// One slope per output channel.
fn slopes(slope: Option<&Tensor>, activation: Activation, co: usize) -> Result<Vec<f32>> {
    Ok(match (activation, slope) {
        (Activation::Prelu, Some(slope)) => {
            let own = numbers(slope)?;
            match own.as_slice() {
                [one] => vec![*one; co],
                _ => own,
            }
        }
        (Activation::LeakyRelu, _) => vec![LEAK; co],
        (Activation::Relu, _) => vec![0.0; co],
        (Activation::Linear | Activation::Prelu, _) => vec![1.0; co],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;
    use crate::network::spec::{NetworkKind, NetworkSpec};
    use crate::network::trunk::Compute;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    /// Compares both computations of the first layer alone, for every activation,
    /// padding and number of channels that changes the blocks.
    #[test]
    fn layers_are_libtorchs_to_rounding() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (channels, window, history, activation) in [
            (32, 45, 4, Activation::Prelu),
            (16, 14, 1, Activation::LeakyRelu),
            (48, 15, 2, Activation::Relu),
            (64, 13, 3, Activation::Linear),
        ] {
            let mut spec = NetworkSpec::reference_torch(NetworkKind::Collab, 1);
            (spec.window, spec.history, spec.activation) = (window, history, activation);
            spec.conv.truncate(1);
            spec.conv[0].channels = channels;
            let mut network = Network::new(&spec, &mut rng, Device::Cpu).unwrap();
            let [h, n] = [history, window].map(|v| i64::try_from(v).unwrap());
            let count = 3 * h * n.pow(3);
            let values: Vec<f32> = (0..count)
                .map(|i| (i * 7919 % 100_003) as f32 / 100_003.0 - 0.4)
                .collect();
            let windows = Tensor::from_slice(&values).view([3, h, n, n, n]);
            let features = |network: &Network, kind: Kind| {
                let (trunk, compute) = network.trunk();
                let windows = windows.to_kind(kind);
                let parameters = network.parameters();
                tch::no_grad(|| trunk.forward(parameters, &windows, compute).unwrap())
            };
            let plain = features(&network.to_f64().unwrap(), Kind::Double);
            for threads in [1, 2, 3] {
                tch::set_num_threads(threads);
                network.set_compute(Compute {
                    fused: true,
                    ..Compute::default()
                });
                let fused = features(&network, Kind::Float);
                assert_eq!(fused.size(), plain.size());
                let worst = (&fused - &plain).abs().max().double_value(&[]);
                let size = plain.abs().max().double_value(&[]);
                assert!(worst < 1e-5 * size, "{worst} of {size}: {spec:?}");
                assert!(size > 0.05, "{size}");
            }
        }
    }
}
