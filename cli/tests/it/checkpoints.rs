//! `landmarl checkpoint` on a finished run.

use serde_json::Value;
use tch::{CModule, Device, Kind, Tensor};

use crate::process::{Bench, json};

/// `runs/one` is a finished run of two landmarks.
pub fn listed_verified_exported(bench: &Bench) {
    listed(bench);
    let script = exported(bench);
    // Windows of 12³, one frame, two agents; two scales.
    let windows = Tensor::rand([2, 1, 12, 12, 12], (Kind::Float, Device::Cpu));
    let scale = Tensor::from_slice(&[0_i64, 1]);
    let q = script.forward_ts(&[windows, scale]).unwrap();
    assert_eq!(q.size(), [2, 6]);
    assert_eq!(q.isfinite().all().int64_value(&[]), 1);
}

fn listed(bench: &Bench) {
    let list =
        |line: &str| -> Vec<Value> { serde_json::from_str(&bench.succeed(line).out).unwrap() };
    let all = list("checkpoint list runs/one --json");
    let kinds = |kind: &str| all.iter().filter(|f| f["kind"] == kind).count();
    assert!(
        kinds("checkpoint") >= 2 && kinds("weights") >= 1,
        "{all:#?}"
    );
    assert!(all.iter().all(|f| f["damage"].is_null()), "{all:#?}");
    // The newest first.
    let updates: Vec<u64> = all.iter().filter_map(|f| f["updates"].as_u64()).collect();
    assert!(updates.is_sorted_by(|a, b| a >= b) && updates.len() == all.len());
    assert_eq!(list("checkpoint verify runs/one --json"), all);

    let newest = bench.path("runs/one/checkpoints/last.safetensors");
    let mut bytes = std::fs::read(newest).unwrap();
    let place = bytes.len() - 9;
    bytes[place] ^= 1;
    bench.write("hurt.safetensors", &bytes);
    let done = bench.run("checkpoint verify runs/one hurt.safetensors");
    assert_eq!(done.code, Some(4), "{}", done.err);
    let line = done.out.lines().find(|l| l.contains("hurt")).unwrap();
    assert!(line.contains("corrupt"), "{line}");
    assert_eq!(done.out.matches("whole").count(), kinds("checkpoint"));
    assert_eq!(
        done.out.matches("no digest inside").count(),
        kinds("weights")
    );
    bench.fail(
        "checkpoint list nowhere",
        1,
        &["nowhere", "landmarl runs list"],
    );
}

fn exported(bench: &Bench) -> CModule {
    // No evaluation used this checkpoint; the best weights were evaluated.
    bench.succeed("checkpoint export runs/one/checkpoints/last.safetensors --out last");
    let card = std::fs::read_to_string(bench.path("last/README.md")).unwrap();
    assert!(card.contains("no evaluation of these weights"), "{card}");
    bench.succeed(
        "eval --load runs/one --images data/test/images.txt --landmarks-files data/test/landmarks.txt \
         --starts 1 --device cpu --no-pictures",
    );
    bench.succeed("checkpoint export runs/one --out agents");
    bench.fail(
        "checkpoint export runs/one --out agents",
        1,
        &["agents is not empty", "--out"],
    );
    let card = std::fs::read_to_string(bench.path("agents/README.md")).unwrap();
    for words in [
        "bridge, base_ball",
        "Not a medical device",
        "float32 `[2, 1, 12, 12, 12]`",
        "\n| 1 | ",
        "+z, +y, +x, -x, -y, -z",
    ] {
        assert!(card.contains(words), "{words} is not in\n{card}");
    }
    // The same agents follow the same trajectories.
    let eval = |load: &str, out: &str| {
        bench.succeed(&format!(
            "eval --load {load} --images data/test/images.txt --landmarks-files data/test/landmarks.txt \
             --starts 2 --device cpu --no-pictures --out {out}"
        ));
        json(&bench.path(&format!("{out}/summary.json")))["mean_error_mm"].clone()
    };
    assert_eq!(
        eval("agents/model.safetensors", "eval-exported"),
        eval("runs/one", "eval-original")
    );
    CModule::load(bench.path("agents/model.ts")).unwrap()
}
