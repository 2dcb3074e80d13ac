//! Initial values of parameters, drawn from the caller's random number generator
//! and never from libtorch's global one, so that equal seeds give equal bits.
//!
//! | | weights | biases |
//! |---|---|---|
//! | Xavier | uniform ±√(6 / (fan_in + fan_out)) | uniform ±1/√fan_in |
//! | Kaiming | uniform ±√(6 / ((1 + 0.01²) fan_in)); last layer ±1/√fan_in | uniform ±1/√fan_in |
//! | He truncated | normal, σ² = 1.3 · 2 / fan_in, cut at 2σ | 0 |
//!
//! Xavier is rl-medical's: Glorot and Bengio 2010 with PyTorch's default
//! biases. Kaiming is He et al. 2015 for LeakyReLU, which preserves the scale of
//! activations from layer to layer; the last layer is drawn smaller so that
//! initial Q-values stay near zero, below the rewards. He truncated is
//! TensorFlow 1's `variance_scaling_initializer(factor=2)`, whose 1.3 compensates
//! for the truncation. PReLU slopes start at 0.25, attention scores as standard normals.

use rand::Rng;
use tch::Tensor;

use crate::error::Result;
use crate::network::layer::as_i64;
use crate::network::layout::{Layout, Role, Slot};
use crate::network::parameters::Parameters;
use crate::network::spec::{Init, NetworkSpec};

/// Initial values for every parameter of a network, on the CPU.
///
/// # Errors
/// When the spec is invalid or there is no memory.
pub fn draw(spec: &NetworkSpec, rng: &mut impl Rng) -> Result<Parameters> {
    let layout = Layout::new(spec)?;
    let mut entries = Vec::with_capacity(layout.slots.len());
    for slot in &layout.slots {
        let values = values(slot, spec.init, rng);
        let shape = as_i64(&slot.shape);
        let tensor = Tensor::f_from_slice(&values)?.f_reshape(shape)?;
        entries.push((slot.name(), tensor));
    }
    Ok(Parameters::new(entries))
}

#[expect(clippy::cast_precision_loss, reason = "fans are far below 2^52")]
fn values(slot: &Slot, init: Init, rng: &mut impl Rng) -> Vec<f32> {
    let count = slot.shape.iter().product();
    let (fan_in, fan_out) = (slot.fan_in as f64, slot.fan_out as f64);
    let default = 1.0 / fan_in.sqrt();
    let uniform = |bound: f64, rng: &mut dyn FnMut() -> f64| {
        let values = (0..count).map(|_| narrow((2.0 * rng() - 1.0) * bound));
        values.collect()
    };
    let mut unit = || unit(rng);
    match (slot.role, init) {
        (Role::ConvPrelu | Role::HeadPrelu, _) => vec![0.25; count],
        (Role::Attention, _) => (0..count).map(|_| narrow(normal(&mut unit))).collect(),
        (Role::ConvBias | Role::HeadBias, Init::HeTruncated) => vec![0.0; count],
        (Role::ConvBias | Role::HeadBias, _) => uniform(default, &mut unit),
        (Role::ConvWeight | Role::HeadWeight, Init::Xavier) => {
            uniform((6.0 / (fan_in + fan_out)).sqrt(), &mut unit)
        }
        (Role::ConvWeight | Role::HeadWeight, Init::Kaiming) => {
            let bound = if slot.last {
                default
            } else {
                (6.0 / ((1.0 + 0.01 * 0.01) * fan_in)).sqrt()
            };
            uniform(bound, &mut unit)
        }
        (Role::ConvWeight | Role::HeadWeight, Init::HeTruncated) => {
            let sigma = (1.3 * 2.0 / fan_in).sqrt();
            let values = (0..count).map(|_| narrow(sigma * truncated_normal(&mut unit)));
            values.collect()
        }
    }
}

/// Uniform in [0, 1).
fn unit(rng: &mut impl Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// Standard normal, Box and Muller 1958.
fn normal(unit: &mut impl FnMut() -> f64) -> f64 {
    let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit()).cos()
}

fn truncated_normal(unit: &mut impl FnMut() -> f64) -> f64 {
    loop {
        let x = normal(unit);
        if x.abs() <= 2.0 {
            return x;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::spec::NetworkKind;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;
    use tch::Kind;

    fn drawn(spec: &NetworkSpec, seed: u64) -> Parameters {
        draw(spec, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn equal_seeds_give_equal_bits() {
        let spec = NetworkSpec::small(2, 1, Some(3));
        let (a, b, c) = (drawn(&spec, 7), drawn(&spec, 7), drawn(&spec, 8));
        assert!(a.iter().zip(b.iter()).all(|((_, x), (_, y))| x.equal(y)));
        assert!(!a.at(0).equal(c.at(0)));
    }

    #[test]
    fn standard_deviations_are_those_of_the_formulas() {
        let torch = NetworkSpec::reference_torch(NetworkKind::Commnet, 3);
        let torch = NetworkSpec {
            attention: true,
            ..torch
        };
        let small = NetworkSpec::small(2, 1, None);
        let tf = NetworkSpec::reference_tf(1);
        let table = [
            // (spec, parameter, variance, square of the largest)
            (&torch, "conv1.weight", 2.0 / 8000.0, 6.0 / 8000.0),
            (&torch, "fc1.weight", 2.0 / 1280.0, 6.0 / 1280.0),
            (&torch, "fc1.bias", 1.0 / 1024.0 / 3.0, 1.0 / 1024.0),
            (&small, "fc1.weight", 2.0 / 1728.0, 6.0 / 1728.0),
            (&small, "fc3.weight", 1.0 / 128.0 / 3.0, 1.0 / 128.0),
            (&tf, "conv1.weight", 2.0 / 4000.0, 4.0 * 2.6 / 4000.0),
        ];
        for (spec, name, variance, most) in table {
            let (sigma, most) = (f64::sqrt(variance), f64::sqrt(most));
            let parameters = drawn(spec, 1);
            let (_, tensor) = parameters.iter().find(|(n, _)| *n == name).unwrap();
            let std = tensor.std(true).double_value(&[]);
            let apart = (std / sigma - 1.0).abs();
            assert!(apart < 0.05, "{name}: {std} for {sigma}");
            let largest = tensor.abs().max().double_value(&[]);
            let near = largest <= most * 1.000_01 && largest > most * 0.9;
            assert!(near, "{name}: {largest} for {most}");
            let mean = tensor.mean(Kind::Float).double_value(&[]);
            assert!(mean.abs() < sigma / 5.0, "{name}: {mean}");
        }
        let slopes = drawn(&torch, 1);
        let (_, prelu) = slopes.iter().find(|(n, _)| *n == "prelu4.weight").unwrap();
        assert_eq!(Vec::<f32>::try_from(prelu).unwrap(), [0.25; 3]);
        let (_, scores) = slopes.iter().find(|(n, _)| *n == "comm_att2").unwrap();
        assert_eq!(scores.size(), [3, 3]);
        assert!(scores.std(true).double_value(&[]) > 0.3);
    }
}
