//! Q-values and gradients against PyTorch's, `tests/reference/numbers.json`.

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
    /// Per tensor of the weights file: projection on noise, and norm.
    gradients: BTreeMap<String, (f64, f64)>,
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
            let scale = scales(spec, &shape);
            network
                .forward_rows(&windows(spec, &shape), &plan, scale.as_ref())
                .unwrap()
        }
        Batch::Groups(groups) => {
            let shape = [*groups, spec.agents];
            network
                .forward_groups(&windows(spec, &shape), scales(spec, &shape).as_ref())
                .unwrap()
        }
    }
}

/// Gradients by name in a weights file, in the file's layout.
fn file_gradients(network: &Network) -> BTreeMap<String, Tensor> {
    let layout = Layout::new(network.spec()).unwrap();
    let mut gradients = BTreeMap::new();
    for (slot, (_, tensor)) in layout.slots.iter().zip(network.parameters().iter()) {
        let grad = tensor.grad();
        for agent in 0..slot.file_parts() {
            let part = if slot.role.stacked() {
                grad.get(agent as i64)
            } else {
                grad.shallow_clone()
            };
            let part = if slot.role == Role::HeadWeight {
                part.transpose(0, 1)
            } else {
                part
            };
            gradients.insert(
                slot.file_name(agent),
                part.contiguous().flatten(0, -1).to_kind(Kind::Double),
            );
        }
    }
    gradients
}

fn assert_like_pytorch(case: &Case, compute: Compute) {
    let mut network = network(&case.spec);
    network.set_compute(compute);
    let q = assert_q_like_pytorch(case, &network);
    assert_gradients_like_pytorch(case, &network, q);
}

fn assert_q_like_pytorch(case: &Case, network: &Network) -> Tensor {
    let q = forward(network, &case.batch);
    let found: Vec<f32> = Vec::try_from(q.flatten(0, -1)).unwrap();
    let largest = case.q.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert_eq!(found.len(), case.q.len(), "{}", case.name);
    for (i, (&found, &expected)) in found.iter().zip(&case.q).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= 1e-4 * largest,
            "{}: q[{i}] is {found}, PyTorch has {expected}",
            case.name
        );
    }
    q
}

fn assert_gradients_like_pytorch(case: &Case, network: &Network, q: Tensor) {
    let count = q.numel();
    let shape: Vec<usize> = q.size().iter().map(|&n| n as usize).collect();
    (q * floats(&noise("loss", count), &shape))
        .sum(Kind::Float)
        .backward();
    let mut checked = 0;
    // A PReLU's slope sums terms of both signs: CPUs with other vector widths
    // round it by the largest, not by what is left.
    let largest = case.gradients.values().map(|g| g.1).fold(0.0, f64::max);
    for (name, grad) in file_gradients(network) {
        let norm = grad.norm().double_value(&[]);
        let Some(&(along, expected)) = case.gradients.get(&name) else {
            // Heads that no row asked for.
            assert_eq!(norm, 0.0, "{}: {name}", case.name);
            continue;
        };
        let tolerance = 1e-4 * expected + 1e-7 * largest;
        let direction = Tensor::from_slice(&noise("gradient", grad.numel()));
        let found = (&grad * direction).sum(Kind::Double).double_value(&[]);
        assert!(
            (norm - expected).abs() <= tolerance,
            "{}: {name}: norm {norm} for {expected}",
            case.name
        );
        assert!(
            (found - along).abs() <= tolerance,
            "{}: {name}: along {found} for {along}",
            case.name
        );
        assert!(expected > 0.0, "{}: {name} is not tested", case.name);
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
    for case in numbers()
        .cases
        .iter()
        .filter(|c| c.spec.window == 24 || c.name == "commnet")
    {
        let compute = Compute {
            channels_last: true,
            windows: Some(2),
            ..Compute::default()
        };
        assert_like_pytorch(case, compute);
    }
}

#[test]
fn blocks_change_nothing() {
    for case in &numbers().cases {
        let compute = Compute {
            blocked: true,
            channels_last: true,
            ..Compute::default()
        };
        assert_like_pytorch(case, compute);
    }
}

#[test]
fn kernels_of_our_own_change_nothing() {
    for case in &numbers().cases {
        let compute = Compute {
            fused: true,
            channels_last: true,
            ..Compute::default()
        };
        let mut network = network(&case.spec);
        network.set_compute(compute);
        let _ = tch::no_grad(|| assert_q_like_pytorch(case, &network));
    }
}

#[test]
fn bf16_is_close() {
    for case in numbers().cases.iter().filter(|c| c.spec.window == 24) {
        let mut network = network(&case.spec);
        network.set_compute(Compute {
            bf16: true,
            channels_last: true,
            ..Compute::default()
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
        assert!(
            network
                .trainable()
                .iter()
                .all(|p| p.grad().kind() == Kind::Float)
        );
    }
}

#[test]
fn the_cases_are_the_presets() {
    let cases = numbers().cases;
    let spec = |name: &str| &cases.iter().find(|c| c.name == name).unwrap().spec;
    assert_eq!(
        *spec("network3d of three agents"),
        NetworkSpec::reference_torch(NetworkKind::Collab, 3)
    );
    assert_eq!(
        *spec("commnet"),
        NetworkSpec::reference_torch(NetworkKind::Commnet, 3)
    );
    assert_eq!(
        *spec("small with scales"),
        NetworkSpec::small(4, 1, Some(3))
    );
    assert_eq!(
        *spec("tensorflow single agent"),
        NetworkSpec::reference_tf(1)
    );
}
