//! State dicts that PyTorch wrote (`reference/make_torch_files.py`).

use std::collections::BTreeMap;

use common::imaging::nifti_io::Limits;
use model::NetworkKind;
use model::files::torch_file::{self, ENTRY_KEY};
use model::files::weights;
use tch::Tensor;

const FILES: [(&str, &[u8]); 2] = [
    ("zip", include_bytes!("../reference/torch_zip.pt")),
    ("legacy", include_bytes!("../reference/torch_legacy.pt")),
];

/// Names and shapes in the script's order, in which the numbers count up.
const SHAPES: [(&str, &[i64]); 20] = [
    ("conv0.weight", &[2, 4, 5, 5, 5]),
    ("conv0.bias", &[2]),
    ("prelu0.weight", &[1]),
    ("conv1.weight", &[2, 2, 5, 5, 5]),
    ("conv1.bias", &[2]),
    ("prelu1.weight", &[1]),
    ("conv2.weight", &[2, 2, 4, 4, 4]),
    ("conv2.bias", &[2]),
    ("prelu2.weight", &[1]),
    ("conv3.weight", &[2, 2, 3, 3, 3]),
    ("conv3.bias", &[2]),
    ("prelu3.weight", &[1]),
    ("fc1.0.weight", &[3, 16]),
    ("fc1.0.bias", &[3]),
    ("prelu4.0.weight", &[1]),
    ("fc2.0.weight", &[3, 3]),
    ("fc2.0.bias", &[3]),
    ("prelu5.0.weight", &[1]),
    ("fc3.0.weight", &[6, 3]),
    ("fc3.0.bias", &[6]),
];

#[test]
fn files_of_pytorch_are_read() {
    for (format, bytes) in FILES {
        let tensors = torch_file::read(bytes, &Limits::default()).unwrap();
        assert_eq!(tensors.len(), SHAPES.len(), "{format}");
        let mut count = 0;
        for (name, shape) in SHAPES {
            let (_, found) = tensors.iter().find(|(n, _)| n == name).unwrap();
            let numbers = shape.iter().product::<i64>();
            let kind = (tch::Kind::Float, tch::Device::Cpu);
            let expected = Tensor::arange_start(count, count + numbers, kind) / 4096;
            let expected = if name == "fc1.0.weight" {
                // A transposed view of 16 x 3.
                expected.reshape([shape[1], shape[0]]).tr().contiguous()
            } else {
                expected.reshape(shape)
            };
            assert_eq!(found.size(), shape, "{format} {name}");
            assert!(found.equal(&expected), "{format} {name}");
            count += numbers;
        }
    }
}

#[test]
fn the_network_is_recognised() {
    for (format, bytes) in FILES {
        let weights = torch_file::weights(bytes, &Default::default(), &Limits::default()).unwrap();
        let spec = weights.network.spec();
        let found = (spec.kind, spec.agents);
        assert_eq!(found, (NetworkKind::Collab, 1), "{format}");
        assert_eq!(spec.hidden, [3, 3]);
        assert!(spec.conv.iter().all(|c| c.channels == 2));
    }
}

/// The names and values of a network's tensors.
fn values(network: &model::Network) -> Vec<(String, Vec<f32>)> {
    let pair = |(name, tensor): (&str, &Tensor)| {
        let flat = tensor.detach().flatten(0, -1);
        (name.to_owned(), Vec::try_from(flat).unwrap())
    };
    network.parameters().iter().map(pair).collect()
}

#[test]
fn the_trained_network_is_found_in_files_of_training_scripts() {
    let plain = torch_file::weights(FILES[0].1, &BTreeMap::new(), &Limits::default()).unwrap();
    assert!(!plain.metadata.contains_key(ENTRY_KEY));
    let files: [(&[u8], &str); 2] = [
        (
            include_bytes!("../reference/torch_latest.pt"),
            "q_network_state_dict",
        ),
        (
            include_bytes!("../reference/torch_wrapped.pt"),
            "state_dict",
        ),
    ];
    for (bytes, entry) in files {
        let read = torch_file::weights(bytes, &BTreeMap::new(), &Limits::default()).unwrap();
        assert_eq!(read.metadata[ENTRY_KEY], entry);
        assert_eq!(values(&read.network), values(&plain.network), "{entry}");
    }
}

#[test]
fn half_precision_safetensors_of_wrapped_networks_are_read() {
    let plain = torch_file::weights(FILES[0].1, &BTreeMap::new(), &Limits::default()).unwrap();
    let bytes = include_bytes!("../reference/torch_half.safetensors");
    let halves = weights::from_bytes(bytes).unwrap().network;
    for ((name, exact), (_, half)) in values(&plain.network).iter().zip(values(&halves)) {
        for (a, b) in exact.iter().zip(half) {
            // Eleven significant bits.
            assert!((a - b).abs() <= a.abs() / 2048.0, "{name}: {a} {b}");
        }
    }
}

#[test]
fn files_without_a_state_dict_are_refused_with_what_they_hold() {
    let files: [(&[u8], &str); 2] = [
        (
            include_bytes!("../reference/torch_module.pt"),
            "a whole object of class __main__.Network3D: save model.state_dict()",
        ),
        (
            include_bytes!("../reference/torch_script.pt"),
            "a TorchScript program",
        ),
    ];
    for (bytes, words) in files {
        let error = torch_file::read(bytes, &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words} is not in: {error}");
    }
}
