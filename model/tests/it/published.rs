//! Weights of rl-medical's networks.

use std::path::Path;

use model::files::weights::from_bytes;
use model::{HeadPlan, NetworkKind, NetworkSpec};
use tch::Device;

use crate::noise::windows;

/// Reads weights of the shared reference folder; without it, reports a skip and returns `None`.
fn reference(test: &str, name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let path = folder.join(format!("rl-medical-{name}.safetensors"));
    let bytes = std::fs::read(path).ok();
    if bytes.is_none() {
        println!("skipped: {test}: ../shared/reference is absent");
    }
    bytes
}

#[test]
fn published_weights_load() {
    let table = [
        ("single-agent-ac", NetworkKind::Collab, 1, 550_860),
        ("collab3-made", NetworkKind::Collab, 3, 880_860),
        ("commnet3-made", NetworkKind::Commnet, 3, 1_374_684),
    ];
    for (name, kind, agents, count) in table {
        let Some(bytes) = reference("published_weights_load", name) else {
            return;
        };
        let network = from_bytes(&bytes).unwrap().network;
        assert_eq!(*network.spec(), NetworkSpec::reference_torch(kind, agents));
        let numbers: usize = network.trainable().iter().map(tch::Tensor::numel).sum();
        assert_eq!(numbers, count, "{name}");
        assert!(network.parameters().all_finite().unwrap());
    }
}

#[test]
fn published_q_values_are_near_the_output_bias() {
    let test = "published_q_values_are_near_the_output_bias";
    let Some(bytes) = reference(test, "single-agent-ac") else {
        return;
    };
    let network = from_bytes(&bytes).unwrap().network;
    let mut parameters = network.parameters().iter();
    let (_, bias) = parameters.find(|(n, _)| *n == "fc3.bias").unwrap();
    // Its learned output biases are 2.75 ± 0.04.
    let bias: Vec<f32> = Vec::try_from(bias.flatten(0, -1)).unwrap();
    assert!(bias.iter().all(|b| (2.6..2.9).contains(b)), "{bias:?}");
    let plan = HeadPlan::new(&[0], 1, Device::Cpu).unwrap();
    let windows = windows(network.spec(), &[1]);
    let q = tch::no_grad(|| network.forward_rows(&windows, &plan, None)).unwrap();
    let q: Vec<f32> = Vec::try_from(q.flatten(0, -1)).unwrap();
    assert!(q.iter().all(|q| q.is_finite() && q.abs() < 50.0), "{q:?}");
}
