//! Fixtures that several tests share.

use std::collections::BTreeMap;

use model::files::weights;
use model::{Network, NetworkSpec};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::process::Bench;

/// Small random weights for two landmarks of the phantoms.
pub fn random_weights(bench: &Bench, rules: &str) -> Vec<u8> {
    let mut spec = NetworkSpec::small(2, 1, Some(2));
    spec.window = 12;
    let network = Network::new(&spec, &mut ChaCha8Rng::seed_from_u64(1), tch::Device::Cpu).unwrap();
    let metadata = BTreeMap::from([
        ("landmarl.rules".to_owned(), rules.to_owned()),
        (
            "landmarl.landmarks".to_owned(),
            r#"["bridge","base_ball"]"#.to_owned(),
        ),
        ("landmarl.weights_version".to_owned(), "4".to_owned()),
        ("landmarl.updates".to_owned(), "80".to_owned()),
    ]);
    let bytes = weights::to_bytes(&network, &metadata.into_iter().collect()).unwrap();
    bench.write("weights.safetensors", &bytes);
    bytes
}

/// The rules of those weights, with the given window.
pub fn rules(window: usize) -> String {
    let mut rules = serde_json::to_value(common::environment::rules::Rules::standard()).unwrap();
    rules["window_size"] = window.into();
    rules["scales"] = serde_json::json!([[2, 3], [1, 1]]);
    rules["max_steps"] = 25.into();
    rules.to_string()
}
