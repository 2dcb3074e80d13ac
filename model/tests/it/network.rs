//! Invariants between forward passes, independent of the values.

use model::{HeadPlan, ModelError, Network, NetworkKind, NetworkSpec};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::{Device, Kind, Tensor};

use crate::noise::{network, scales, windows};

fn drawn(spec: &NetworkSpec, seed: u64) -> Network {
    Network::new(spec, &mut ChaCha8Rng::seed_from_u64(seed), Device::Cpu).unwrap()
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    a.size() == b.size() && (a - b).abs().max().double_value(&[]) <= tolerance
}

#[test]
fn rows_and_groups_agree() {
    for dueling in [false, true] {
        let spec = NetworkSpec {
            dueling,
            ..NetworkSpec::small(5, 2, Some(3))
        };
        let network = network(&spec);
        let groups = [3, 5];
        let (windows, scale) = (windows(&spec, &groups), scales(&spec, &groups).unwrap());
        let expected = network.forward_groups(&windows, Some(&scale)).unwrap();
        let agents: Vec<i64> = (0..15).map(|i| i % 5).collect();
        let plan = HeadPlan::new(&agents, 5, Device::Cpu).unwrap();
        let (windows, scale) = (windows.flatten(0, 1), scale.flatten(0, 1));
        let rows = network.forward_rows(&windows, &plan, Some(&scale));
        assert!(close(&rows.unwrap().reshape([3, 5, 6]), &expected, 1e-5));
    }
}

#[test]
fn dueling_streams_are_centred() {
    let spec = NetworkSpec {
        dueling: true,
        ..NetworkSpec::small(2, 1, None)
    };
    let network = network(&spec);
    let q = network.forward_groups(&windows(&spec, &[2, 2]), None);
    let mean = q.unwrap().mean_dim([-1_i64].as_slice(), false, Kind::Float);
    mean.sum(Kind::Float).backward();
    // The mean over actions is the value alone: advantages get no gradient.
    for (name, tensor) in network.parameters().iter() {
        let size = tensor.grad().abs().max().double_value(&[]);
        assert!(size.is_finite());
        assert_eq!(size < 1e-6, name.starts_with("fc"), "{name}: {size}");
    }
}

#[test]
fn copies_are_equal_and_independent() {
    let spec = NetworkSpec::small(2, 1, None);
    let online = drawn(&spec, 1);
    let mut target = drawn(&spec, 2);
    let windows = windows(&spec, &[1, 2]);
    let q = |n: &Network| tch::no_grad(|| n.forward_groups(&windows, None).unwrap());
    assert!(!q(&online).equal(&q(&target)));
    target.copy_from(&online).unwrap();
    let clone = online.deep_clone(Device::Cpu).unwrap();
    let before = q(&online);
    assert!(q(&target).equal(&before) && q(&clone).equal(&before));
    tch::no_grad(|| {
        for mut tensor in online.trainable() {
            let _ = tensor.g_add_scalar_(0.01);
        }
    });
    // An optimizer writes through `trainable`.
    assert!(!q(&online).equal(&before));
    assert!(q(&target).equal(&before) && q(&clone).equal(&before));
    assert!(clone.trainable().iter().all(Tensor::requires_grad));

    let other = drawn(&NetworkSpec::small(3, 1, None), 1);
    let error = target.copy_from(&other).unwrap_err().to_string();
    let expected = "these weights belong to another network: agents is 2 here and 3 there";
    assert_eq!(error, expected);
    assert!(q(&target).equal(&before));
}

#[test]
fn equal_seeds_give_equal_networks() {
    let spec = NetworkSpec::small(2, 1, Some(3));
    let (one, same) = (drawn(&spec, 3), drawn(&spec, 3));
    let (values, others) = (one.trainable(), same.trainable());
    assert!(values.iter().zip(&others).all(|(a, b)| a.equal(b)));
    assert!(one.parameters().all_finite().unwrap());
    let zeros = one.parameters().zeros_like().unwrap();
    assert_eq!(zeros.len(), one.parameters().len());
    for (name, t) in zeros.iter() {
        let largest = t.abs().max().double_value(&[]);
        assert!(largest == 0.0 && !t.requires_grad(), "{name}");
    }
}

#[test]
fn wrong_inputs_are_named() {
    let spec = NetworkSpec::small(3, 1, Some(3));
    let network = drawn(&spec, 1);
    let plan = HeadPlan::new(&[0, 1], 3, Device::Cpu).unwrap();
    let good = windows(&spec, &[2]);
    let scale = scales(&spec, &[2]).unwrap();
    let error = |r: model::Result<Tensor>| match r.unwrap_err() {
        e @ ModelError::Input { .. } => e.to_string(),
        e => panic!("{e}"),
    };
    let rows = |w: &Tensor, s: Option<&Tensor>| error(network.forward_rows(w, &plan, s));
    let sizes = "windows: expected Float [2, 1, 24, 24, 24], found Float [1, 1, 24, 24, 24]";
    assert_eq!(rows(&good.narrow(0, 0, 1), Some(&scale)), sizes);
    assert!(rows(&good.to_kind(Kind::Uint8), Some(&scale)).contains("found Uint8"));
    let none = "scale: expected an index per row, 0..3, found none";
    assert_eq!(rows(&good, None), none);
    let sizes = "expected Int64 [2], found Int64 [1]";
    assert!(rows(&good, Some(&scale.narrow(0, 0, 1))).contains(sizes));
    let outside = network.forward_rows(&good, &plan, Some(&(&scale + 7)));
    assert!(matches!(outside.unwrap_err(), ModelError::Torch(_)));
    let other = HeadPlan::new(&[0, 1], 2, Device::Cpu).unwrap();
    assert!(error(network.forward_rows(&good, &other, Some(&scale))).contains("3 agents"));
    assert!(error(network.forward_groups(&good, None)).contains("windows"));

    let team = NetworkSpec {
        kind: NetworkKind::Commnet,
        ..spec
    };
    let refused = drawn(&team, 1).forward_rows(&good, &plan, Some(&scale));
    assert!(error(refused).contains("all agents"));
}
