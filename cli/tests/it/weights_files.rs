//! Weights of other programs, and what weights files record of the training scans.

use common::config::Config;
use common::imaging::dataset::{Dataset, LoadOptions};
use common::imaging::manifest::TrainingManifest;
use learner::checkpoint::training_scans;

use crate::fixtures::{TEST_SCANS, random_weights, rules};
use crate::process::{Bench, assert_contains};

/// Files of PyTorch 2.11 (`model/tests/reference/make_torch_files.py`).
const LATEST: &[u8] = include_bytes!("../../../model/tests/reference/torch_latest.pt");
const WRAPPED: &[u8] = include_bytes!("../../../model/tests/reference/torch_wrapped.pt");
const HALF: &[u8] = include_bytes!("../../../model/tests/reference/torch_half.safetensors");
const MODULE: &[u8] = include_bytes!("../../../model/tests/reference/torch_module.pt");
const ZIP: &[u8] = include_bytes!("../../../model/tests/reference/torch_zip.pt");

#[test]
fn networks_in_files_of_training_scripts_are_imported() {
    let bench = Bench::new();
    bench.write("plain.pt", ZIP);
    bench.write("latest_checkpoint.pt", LATEST);
    bench.write("wrapped.pt", WRAPPED);
    bench.write("half.safetensors", HALF);
    bench.succeed("import plain.pt");
    let tensors = |file: &str| {
        let bytes = std::fs::read(bench.path(file)).unwrap();
        model::files::tensor_file::read(&bytes).unwrap().0
    };
    for (file, entry) in [
        ("latest_checkpoint", "q_network_state_dict"),
        ("wrapped", "state_dict"),
    ] {
        let imported = bench.json(&format!("import {file}.pt --json"));
        assert_eq!(imported["entry"], entry);
        assert_eq!(imported["agents"], 1);
        let (plain, ours) = (tensors("plain.safetensors"), format!("{file}.safetensors"));
        assert_eq!(tensors(&ours), plain, "{file}");
    }
    let imported = bench.json("import half.safetensors -o full.safetensors --json");
    assert_eq!(imported["kind"], "collab");
    let kinds = tensors("full.safetensors")
        .into_iter()
        .map(|(_, t)| t.kind());
    assert!(kinds.into_iter().all(|kind| kind == tch::Kind::Float));
}

#[test]
fn an_import_replaces_no_file_without_force() {
    let bench = Bench::new();
    bench.write("a.pt", ZIP);
    bench.write("a.safetensors", "precious");
    bench.write("b.safetensors", HALF);
    bench.write("module.pt", MODULE);
    bench.failures(
        "1 import a.pt => a.safetensors exists already | --force
         1 import a.pt -o b.safetensors => b.safetensors exists already | --force
         1 import b.safetensors --force => b.safetensors is the file to import | --out
         4 import module.pt => holds no state dict | class __main__.Network3D
         4 import gone.pt => cannot import gone.pt | No such file",
    );
    assert_eq!(bench.text("a.safetensors"), "precious");
    assert!(!bench.path("module.safetensors").exists());
    bench.succeed("import a.pt --force");
    assert_ne!(
        std::fs::read(bench.path("a.safetensors")).unwrap(),
        b"precious"
    );
}

#[test]
fn weights_with_a_changed_bit_are_refused_by_every_command_that_reads_them() {
    let bench = Bench::new();
    bench.phantoms();
    let good = random_weights(&bench, &rules(12));
    let mut bytes = good.clone();
    let place = bytes.len() - 100;
    bytes[place] ^= 1;
    bench.write("hurt.safetensors", &bytes);
    bench.write("plain.safetensors", HALF);
    let words = "hurt.safetensors | damaged: its SHA-256 is";
    let scan = "data/test/images/phantom_0001.nii.gz";
    bench.failures(&format!(
        "4 play {scan} --load hurt.safetensors --device cpu -o found => {words}
         4 eval {TEST_SCANS} --load hurt.safetensors --device cpu --out eval => {words}
         4 checkpoint export hurt.safetensors --out agents => {words}
         4 import hurt.safetensors -o copy.safetensors => {words}"
    ));
    let verified = bench.run("checkpoint verify hurt.safetensors");
    assert_eq!(verified.code, Some(4), "{}", verified.err);
    assert_contains(&verified.out, "damaged: its SHA-256 is");
    let states = bench.json("checkpoint verify weights.safetensors plain.safetensors --json");
    // Files of other programs have no digest.
    let checked = [0, 1].map(|i| states[i]["checked"].as_bool());
    assert_eq!(checked, [Some(true), Some(false)], "{states}");
    bench.succeed("import plain.safetensors -o imported.safetensors");
    let imported = bench.json("checkpoint verify imported.safetensors --json");
    assert_eq!(imported[0]["checked"], true, "{imported}");
}

/// Weights that record one training scan, the first test phantom, and its spacing times
/// `scale`, which is returned for one axis.
fn weights_of_test_scan(bench: &Bench, file: &str, scale: f64) -> f64 {
    let config = Config::defaults().unwrap();
    let options = LoadOptions {
        cache_dir: Some(bench.path("cache/landmarl")),
        ..LoadOptions::from_config(&config)
    };
    let scan = bench.path("data/test/images/phantom_0001.nii.gz");
    let dataset = Dataset::from_images(&[scan], &options).unwrap();
    let mut manifest: TrainingManifest = dataset.manifest(1);
    let spacing = manifest.entries[0].spacing_mm;
    manifest.entries[0].spacing_mm = spacing.map(|mm| mm * scale);
    let bytes = random_weights(bench, &rules(12));
    bench.write(file, training_scans::record(&bytes, &manifest).unwrap());
    // Scans store it as f32.
    (spacing[0] * scale * 1e4).round() / 1e4
}

#[test]
fn scans_unlike_the_training_scans_and_training_scans_are_warned_of() {
    let bench = Bench::new();
    bench.phantoms();
    weights_of_test_scan(&bench, "same.safetensors", 1.0);
    let mm = weights_of_test_scan(&bench, "other.safetensors", 1.5);
    let play = |more: &str| {
        let scan = "play data/test/images/phantom_0001.nii.gz --device cpu --no-pictures";
        bench
            .succeed(&format!("{scan} --starts 1 -o found --force {more}"))
            .err
    };
    let eval = |file: &str| {
        let line = "--device cpu --no-pictures --starts 1 --out eval --force";
        bench
            .succeed(&format!("eval {TEST_SCANS} {line} --load {file}"))
            .err
    };
    let plain = play("--load weights.safetensors");
    let same = play("--load same.safetensors");
    for text in [&plain, &same] {
        assert!(!text.contains("agents were trained on"), "{text}");
    }
    let warned = play("--load other.safetensors");
    let hint = format!("--set data.resample_mm={mm}");
    assert_contains(&warned, "warning: the agents were trained on voxels of");
    assert_contains(&warned, &format!("phantom_0001 has voxels of | {hint}"));
    let resampled = play(&format!("--load other.safetensors {hint}"));
    assert!(!resampled.contains("voxels of"), "{resampled}");

    let trained = "the agents were trained on 1 of these 1 scans (phantom_0001)";
    assert_contains(&eval("same.safetensors"), trained);
    bench.succeed("checkpoint export same.safetensors --out kept");
    assert_contains(&eval("kept/model.safetensors"), trained);
    assert_contains(&bench.text("kept/README.md"), "1 scans, whose hashes");
    bench.succeed("checkpoint export other.safetensors --out bare --no-scan-hashes");
    let text = eval("bare/model.safetensors");
    assert!(!text.contains("of these"), "{text}");
    assert_contains(&text, "trained on voxels of");
    let card = bench.text("bare/README.md");
    assert_contains(
        &card,
        &format!("scans with voxels of {mm} x {mm} x {mm} mm"),
    );
    assert!(!card.contains("hashes"), "{card}");
}
