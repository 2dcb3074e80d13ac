//! `landmarl checkpoint` on a finished run.

use tch::{CModule, Device, Kind, Tensor};

use crate::fixtures::TEST_SCANS;
use crate::process::{Bench, assert_contains, json};

/// `runs/one` is a finished run of two landmarks.
pub fn check_list_verify_export(bench: &Bench) {
    check_list(bench);
    let script = export(bench);
    // Windows of 12³, one frame, two agents; two scales.
    let windows = Tensor::rand([2, 1, 12, 12, 12], (Kind::Float, Device::Cpu));
    let scale = Tensor::from_slice(&[0_i64, 1]);
    let q = script.forward_ts(&[windows, scale]).unwrap();
    assert_eq!(q.size(), [2, 6]);
    assert_eq!(q.isfinite().all().int64_value(&[]), 1);
}

fn check_list(bench: &Bench) {
    let listed = bench.json("checkpoint list runs/one --json");
    let all = listed.as_array().unwrap();
    let kinds = |kind: &str| all.iter().filter(|f| f["kind"] == kind).count();
    let (checkpoints, weights) = (kinds("checkpoint"), kinds("weights"));
    assert!(checkpoints >= 2 && weights >= 1, "{all:#?}");
    assert!(all.iter().all(|f| f["damage"].is_null()), "{all:#?}");
    // The newest first.
    let updates: Vec<u64> = all.iter().filter_map(|f| f["updates"].as_u64()).collect();
    assert!(updates.is_sorted_by(|a, b| a >= b) && updates.len() == all.len());
    assert_eq!(bench.json("checkpoint verify runs/one --json"), listed);
    // By the run's name.
    assert_eq!(bench.json("checkpoint list one --json"), listed);
    assert_eq!(bench.json("checkpoint verify one --json"), listed);

    let newest = bench.path("runs/one/checkpoints/last.safetensors");
    let mut bytes = std::fs::read(newest).unwrap();
    let place = bytes.len() - 9;
    bytes[place] ^= 1;
    bench.write("hurt.safetensors", &bytes);
    let done = bench.run("checkpoint verify runs/one hurt.safetensors");
    assert_eq!(done.code, Some(4), "{}", done.err);
    let line = done.out.lines().find(|l| l.contains("hurt")).unwrap();
    assert!(line.contains("corrupt"), "{line}");
    // Checkpoints and weights files hold their digest.
    assert_eq!(done.out.matches("intact").count(), checkpoints + weights);
    assert!(!done.out.contains("no digest inside"), "{}", done.out);
    let words = ["no run nowhere in runs", "runs in runs: one, two"];
    bench.fail("checkpoint list nowhere", 1, &words);
}

fn export(bench: &Bench) -> CModule {
    // No evaluation used this checkpoint; the best weights were evaluated.
    bench.succeed("checkpoint export runs/one/checkpoints/last.safetensors --out last");
    let card = bench.text("last/README.md");
    assert_contains(&card, "no evaluation of these weights");
    let by = format!("{TEST_SCANS} --device cpu --no-pictures");
    bench.succeed(&format!("eval --load runs/one {by} --starts 1"));
    bench.succeed("checkpoint export one --out agents");
    let words = ["agents is not empty", "--out"];
    bench.fail("checkpoint export one --out agents", 1, &words);
    let card = bench.text("agents/README.md");
    let words = "bridge, base_ball | Not a medical device | float32 `[2, 1, 12, 12, 12]`";
    assert_contains(&card, words);
    assert_contains(&card, "+z, +y, +x, -x, -y, -z");
    assert!(card.contains("\n| 1 | "), "{card}");
    // The same agents follow the same trajectories.
    let eval = |load: &str, out: &str| {
        let line = format!("eval --load {load} {by} --starts 2 --out {out}");
        bench.succeed(&line);
        json(&bench.path(&format!("{out}/summary.json")))["mean_error_mm"].clone()
    };
    assert_eq!(
        eval("agents/model.safetensors", "eval-exported"),
        eval("one", "eval-original")
    );
    let origin = &json(&bench.path("eval-original/summary.json"))["weights"];
    assert_eq!(origin["run"], "one");
    assert_eq!(origin["file"], "runs/one/checkpoints/best.safetensors");
    // Phantoms all have the same spacing; those of the test split were not trained on.
    let training = "--images data/train/images.txt --landmarks-files data/train/landmarks.txt";
    let starts = "--device cpu --no-pictures --starts 1 --out eval-training";
    let warned = bench
        .succeed(&format!("eval --load runs/one {training} {starts}"))
        .err;
    assert_contains(&warned, "the agents were trained on 2 of these 2 scans");
    assert!(!warned.contains("voxels of"), "{warned}");
    CModule::load(bench.path("agents/model.ts")).unwrap()
}
