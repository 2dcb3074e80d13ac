//! Fixtures that several tests share.

use std::collections::BTreeMap;

use model::files::weights;
use model::{Network, NetworkSpec};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::process::{Bench, json};

/// The phantoms of the test split.
pub const TEST_SCANS: &str =
    "--images data/test/images.txt --landmarks-files data/test/landmarks.txt";

/// A folder with phantoms and small random weights.
pub fn with_weights() -> Bench {
    let bench = Bench::new();
    bench.phantoms();
    random_weights(&bench, &rules(12));
    bench
}

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

/// Evaluates the first test phantom into `eval` and checks the files and the summary.
pub fn check_evaluation(bench: &Bench, line: &str) -> Value {
    let summary = bench.json(&format!(
        "{line} {TEST_SCANS} --device cpu --out eval --json"
    ));
    assert_eq!(summary, json(&bench.path("eval/summary.json")));
    for key in ["mean_error_mm", "baseline_error_mm"] {
        assert!(summary[key].as_f64() > Some(0.0), "{summary}");
    }
    assert_eq!(summary["landmarks"][1]["name"], "base_ball");
    let notice = summary["notice"].as_str().unwrap();
    assert!(notice.contains("not a medical device"));
    let csv = bench.text("eval/predictions.csv");
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let picture = std::fs::read(bench.path("eval/pictures/phantom_0001.png")).unwrap();
    assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
    summary
}

/// Finds the landmarks of the first test phantom and checks the files in `found`.
pub fn check_play(bench: &Bench, weights: &str) {
    let scan = "data/test/images/phantom_0001.nii.gz -o found --starts 2 --json --device cpu";
    let printed = bench.json(&format!("play --load {weights} {scan}"));
    assert_eq!(printed, json(&bench.path("found/predictions.json")));
    let first = &printed["predictions"][0];
    let (ras, lps) = (&first["predicted"]["ras_mm"], &first["predicted"]["lps_mm"]);
    assert_eq!(ras[0].as_f64().unwrap(), -lps[0].as_f64().unwrap());
    assert_eq!(first["truth"], Value::Null);
    assert!(bench.path("found/pictures/phantom_0001.png").is_file());
}
