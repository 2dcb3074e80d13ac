//! Q-values and gradients against PyTorch's, `tests/reference/numbers.json`.
//!
//! Values that must be equal are compared in f64. In f32 the order of a sum, which
//! depends on the CPU, decides pooling ties and the signs of activations near zero,
//! and a single one of them changes a gradient by more than all rounding together:
//! a difference of 3e-6 between two sums of the second convolution changes a bias's
//! gradient by 4e-4. numbers.json bounds the effect of such kinks on each gradient.

use std::collections::BTreeMap;

use model::network::layout::{Layout, Role};
use model::{Compute, HeadPlan, Network, NetworkKind, NetworkSpec};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::noise::{floats, network, noise, scales, windows};

#[derive(Deserialize)]
struct Numbers {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    spec: NetworkSpec,
    batch: Batch,
    q: Vec<f64>,
    /// Per tensor of the weights file.
    gradients: BTreeMap<String, Gradient>,
}

/// Projection on noise, and norm; the effect of kinks on both in f32.
#[derive(Deserialize)]
struct Gradient {
    along: f64,
    norm: f64,
    along_jumps: f64,
    norm_jumps: f64,
}

/// The type that a network computes in; the reference is f64.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Precision {
    F32,
    F64,
}

/// f64 takes three times as long, so one or two large windows suffice: the other
/// cases differ from those only in their heads, where f32 has no kinks.
fn precisions(case: &Case) -> impl Iterator<Item = Precision> + use<> {
    let large = case.spec.window == 45 && case.q.len() > 2 * case.spec.actions;
    [Precision::F64, Precision::F32]
        .into_iter()
        .filter(move |p| !(large && *p == Precision::F64))
}

impl Precision {
    fn network(self, spec: &NetworkSpec, compute: Compute) -> Network {
        let mut network = network(spec);
        network.set_compute(compute);
        match self {
            Self::F32 => network,
            Self::F64 => network.to_f64().unwrap(),
        }
    }

    /// Tolerance relative to the largest Q-value.
    fn of_q(self) -> f64 {
        match self {
            Self::F32 => 1e-5,
            Self::F64 => 1e-11,
        }
    }

    /// Tolerance of a gradient's projection and norm. A PReLU's slope sums terms of
    /// both signs, so `largest`, the norm of the largest gradient, determines its
    /// rounding error, not the value that remains.
    fn of_gradient(self, expected: &Gradient, largest: f64) -> [f64; 2] {
        let Gradient { norm, .. } = *expected;
        match self {
            Self::F32 => {
                let rounding = 1e-4 * norm + 1e-7 * largest;
                [expected.along_jumps, expected.norm_jumps].map(|jumps| rounding + jumps)
            }
            Self::F64 => [1e-10 * norm + 1e-13 * largest; 2],
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Batch {
    Rows(Vec<i64>),
    Groups(usize),
}

fn numbers() -> Numbers {
    serde_json::from_str(include_str!("../reference/numbers.json")).unwrap()
}

fn forward(network: &Network, batch: &Batch) -> Tensor {
    let spec = network.spec();
    match batch {
        Batch::Rows(agents) => {
            let plan = HeadPlan::new(agents, spec.agents, Device::Cpu).unwrap();
            let shape = [agents.len()];
            let (windows, scale) = (windows(spec, &shape), scales(spec, &shape));
            network.forward_rows(&windows, &plan, scale.as_ref())
        }
        Batch::Groups(groups) => {
            let shape = [*groups, spec.agents];
            let (windows, scale) = (windows(spec, &shape), scales(spec, &shape));
            network.forward_groups(&windows, scale.as_ref())
        }
    }
    .unwrap()
}

/// Gradients by name in a weights file, in the file's layout.
fn file_gradients(network: &Network) -> BTreeMap<String, Tensor> {
    let layout = Layout::new(network.spec()).unwrap();
    let mut gradients = BTreeMap::new();
    for (slot, (_, tensor)) in layout.slots.iter().zip(network.parameters().iter()) {
        let grad = tensor.grad();
        for agent in 0..slot.file_parts() {
            let part = match slot.role {
                Role::HeadWeight => grad.get(agent as i64).transpose(0, 1),
                role if role.stacked() => grad.get(agent as i64),
                _ => grad.shallow_clone(),
            };
            let part = part.contiguous().flatten(0, -1).to_kind(Kind::Double);
            gradients.insert(slot.file_name(agent), part);
        }
    }
    gradients
}

const CHANNELS_LAST: Compute = Compute {
    bf16: false,
    channels_last: true,
    windows: None,
    blocked: false,
    fused: false,
};

fn assert_like_pytorch(case: &Case, compute: Compute) {
    for precision in precisions(case) {
        let network = precision.network(&case.spec, compute);
        let q = assert_q_like_pytorch(case, &network, precision);
        assert_gradients_like_pytorch(case, &network, q, precision);
    }
}

fn assert_q_like_pytorch(case: &Case, network: &Network, precision: Precision) -> Tensor {
    let q = forward(network, &case.batch);
    let found: Vec<f64> = Vec::try_from(q.flatten(0, -1).to_kind(Kind::Double)).unwrap();
    let largest = case.q.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert_eq!(found.len(), case.q.len(), "{}", case.name);
    for (i, (&found, &expected)) in found.iter().zip(&case.q).enumerate() {
        assert!(
            (found - expected).abs() <= precision.of_q() * largest,
            "{} in {precision:?}: q[{i}] is {found}, PyTorch has {expected}",
            case.name
        );
    }
    q
}

fn assert_gradients_like_pytorch(case: &Case, network: &Network, q: Tensor, precision: Precision) {
    let count = q.numel();
    let shape: Vec<usize> = q.size().iter().map(|&n| n as usize).collect();
    let kind = q.kind();
    let loss = q * floats(&noise("loss", count), &shape);
    loss.sum(kind).backward();
    let mut checked = 0;
    let largest = case.gradients.values().map(|g| g.norm).fold(0.0, f64::max);
    for (name, grad) in file_gradients(network) {
        let norm = grad.norm().double_value(&[]);
        let Some(expected) = case.gradients.get(&name) else {
            // Heads without rows.
            assert_eq!(norm, 0.0, "{}: {name}", case.name);
            continue;
        };
        let place = format!("{} in {precision:?}: {name}", case.name);
        let [of_along, of_norm] = precision.of_gradient(expected, largest);
        let direction = Tensor::from_slice(&noise("gradient", grad.numel()));
        let along = (&grad * direction).sum(Kind::Double).double_value(&[]);
        for (what, found, expected, within) in [
            ("norm", norm, expected.norm, of_norm),
            ("along", along, expected.along, of_along),
        ] {
            let near = (found - expected).abs() <= within;
            assert!(near, "{place}: {what} {found} for {expected}");
        }
        assert!(expected.norm > 0.0, "{place} is not tested");
        checked += 1;
    }
    assert_eq!(checked, case.gradients.len(), "{}", case.name);
}

#[test]
fn q_values_and_gradients_are_pytorchs() {
    let cases = numbers().cases;
    assert_eq!(cases.len(), 10);
    for case in &cases {
        assert_like_pytorch(case, Compute::default());
    }
}

#[test]
fn memory_order_and_parts_change_nothing() {
    let compute = Compute {
        windows: Some(2),
        ..CHANNELS_LAST
    };
    let small = |c: &&Case| c.spec.window == 24 || c.name == "commnet";
    for case in numbers().cases.iter().filter(small) {
        assert_like_pytorch(case, compute);
    }
}

#[test]
fn blocks_change_nothing() {
    let compute = Compute {
        blocked: true,
        ..CHANNELS_LAST
    };
    for case in &numbers().cases {
        assert_like_pytorch(case, compute);
    }
}

#[test]
fn kernels_of_our_own_change_nothing() {
    let compute = Compute {
        fused: true,
        ..CHANNELS_LAST
    };
    for case in &numbers().cases {
        let network = Precision::F32.network(&case.spec, compute);
        let _ = tch::no_grad(|| assert_q_like_pytorch(case, &network, Precision::F32));
    }
}

#[test]
fn kinks_are_allowed_little() {
    for case in &numbers().cases {
        for (name, g) in &case.gradients {
            let jumps = g.norm_jumps.max(g.along_jumps);
            let place = format!("{}: {name}: {jumps} of {}", case.name, g.norm);
            // A slope is a single number, whose gradient may cancel to almost nothing.
            if name.starts_with("conv") {
                assert!(jumps <= 0.08 * g.norm, "{place}");
            } else {
                let mut layers = 0..case.spec.conv.len();
                let of_trunk = layers.any(|layer| name.starts_with(&format!("prelu{layer}")));
                assert!(of_trunk || jumps == 0.0, "{place}");
            }
        }
    }
}

#[test]
fn bf16_is_close() {
    for case in numbers().cases.iter().filter(|c| c.spec.window == 24) {
        let mut network = network(&case.spec);
        network.set_compute(Compute {
            bf16: true,
            ..CHANNELS_LAST
        });
        let q = forward(&network, &case.batch);
        assert_eq!(q.kind(), Kind::Float);
        let found: Vec<f32> = Vec::try_from(q.flatten(0, -1)).unwrap();
        let largest = case.q.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (&found, &expected) in found.iter().zip(&case.q) {
            assert!(
                (f64::from(found) - expected).abs() < 0.03 * largest,
                "{}: {found} for {expected}",
                case.name
            );
        }
        q.sum(Kind::Float).backward();
        for parameter in network.trainable() {
            assert_eq!(parameter.grad().kind(), Kind::Float);
        }
    }
}

#[test]
fn the_cases_are_the_presets() {
    let cases = numbers().cases;
    let spec = |name: &str| &cases.iter().find(|c| c.name == name).unwrap().spec;
    let torch = |kind| NetworkSpec::reference_torch(kind, 3);
    for (name, preset) in [
        ("network3d of three agents", torch(NetworkKind::Collab)),
        ("commnet", torch(NetworkKind::Commnet)),
        ("small with scales", NetworkSpec::small(4, 1, Some(3))),
        ("tensorflow single agent", NetworkSpec::reference_tf(1)),
    ] {
        assert_eq!(*spec(name), preset, "{name}");
    }
}
