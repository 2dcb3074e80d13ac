//! The integer hash of `tests/reference/make_numbers.py`, bit for bit.

use std::collections::BTreeMap;

use model::files::tensor_file;
use model::files::weights::{NETWORK_KEY, from_bytes};
use model::network::layout::Layout;
use model::{Network, NetworkSpec};
use tch::Tensor;

/// Uniform in [-1, 1), from the name and the index.
pub fn noise(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(2_166_136_261_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(16_777_619)
    });
    (0..count as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
            x ^= x >> 15;
            x = x.wrapping_mul(2_246_822_519);
            x ^= x >> 13;
            f64::from(x) / 2_147_483_648.0 - 1.0
        })
        .collect()
}

pub fn floats(values: &[f64], shape: &[usize]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn parameter(name: &str, shape: &[usize]) -> Tensor {
    let scale = if name.contains("prelu") {
        0.5
    } else if name.contains("comm_att") {
        1.0
    } else if name.ends_with("weight") {
        (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt()
    } else {
        0.1
    };
    let values = noise(name, shape.iter().product());
    let values: Vec<f64> = values.iter().map(|v| v * scale).collect();
    floats(&values, shape)
}

/// The tensors of a weights file of a network, filled by the formula.
pub fn file_tensors(spec: &NetworkSpec) -> Vec<(String, Tensor)> {
    let layout = Layout::new(spec).unwrap();
    let mut tensors = Vec::new();
    for slot in &layout.slots {
        for agent in 0..slot.file_parts() {
            let name = slot.file_name(agent);
            let tensor = parameter(&name, &slot.file_shape());
            tensors.push((name, tensor));
        }
    }
    tensors
}

/// The bytes of such a file, with the spec as metadata.
pub fn file(spec: &NetworkSpec) -> Vec<u8> {
    let metadata = BTreeMap::from([(NETWORK_KEY.to_owned(), serde_json::to_string(spec).unwrap())]);
    tensor_file::write(&file_tensors(spec), &metadata).unwrap()
}

/// The network read from these bytes.
pub fn network(spec: &NetworkSpec) -> Network {
    from_bytes(&file(spec)).unwrap().network
}

/// Windows in 0..1 as the script makes them: `[batch.., H, n, n, n]`.
pub fn windows(spec: &NetworkSpec, batch: &[usize]) -> Tensor {
    let mut shape = batch.to_vec();
    shape.extend([spec.history, spec.window, spec.window, spec.window]);
    let values = noise("windows", shape.iter().product());
    let values: Vec<f64> = values.iter().map(|v| (v + 1.0) / 2.0).collect();
    floats(&values, &shape)
}

/// Scale indices 0, 1, 2, 0, … as the script makes them.
pub fn scales(spec: &NetworkSpec, batch: &[usize]) -> Option<Tensor> {
    let scales = spec.scales? as i64;
    let shape: Vec<i64> = batch.iter().map(|&n| n as i64).collect();
    let count = shape.iter().product::<i64>();
    let index: Vec<i64> = (0..count).map(|i| i % scales).collect();
    Some(Tensor::from_slice(&index).reshape(shape))
}
