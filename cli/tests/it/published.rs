//! Published agents act here as they do in the code that they come from.
//!
//! The weights, scans and trajectories are beside the clone; the trajectories were made
//! with rl-medical's PyTorch code, which is not ours and not included here.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Bench, json, json_lines};

/// Relative tolerance for Q values, of the largest in a step.
const SAME_Q: f64 = 1e-3;
/// If the two best are closer than this fraction, either may be taken.
const TIE: f64 = 1e-5;

/// The folders beside the clone; `None`, with a line on standard output, without them.
#[expect(
    clippy::print_stdout,
    reason = "cargo xtask test looks for skipped tests there"
)]
fn shared(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let found = folder
        .canonicalize()
        .ok()
        .filter(|f| f.join("reference").is_dir() && f.join("data/brain").is_dir());
    if found.is_none() {
        println!("skipped: {test}: ../shared is absent");
    }
    found
}

fn list(value: &Value) -> &Vec<Value> {
    let list = value.as_array();
    list.unwrap_or_else(|| panic!("no list: {value}"))
}

fn number(value: &Value) -> f64 {
    let number = value.as_f64();
    number.unwrap_or_else(|| panic!("no number: {value}"))
}

/// Q values of one agent, and whether a different action is excused.
fn same_q(found: &Value, expected: &Value, actions: (&Value, &Value), place: &str) -> bool {
    let sizes = list(expected).iter().map(|q| number(q).abs());
    let largest = sizes.fold(0.0, f64::max);
    for (a, b) in list(found).iter().zip(list(expected)) {
        let apart = (number(a) - number(b)).abs();
        let same = apart <= SAME_Q * largest;
        assert!(same, "{place}: Q {found} is not {expected}");
    }
    if actions.0 == actions.1 {
        return true;
    }
    let mut best: Vec<f64> = list(expected).iter().map(number).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let tie = (best[0] - best[1]).abs() <= TIE * largest;
    let (a, b) = actions;
    assert!(tie, "{place}: action {a} instead of {b}");
    false
}

/// Compares one trajectory; false if it diverges at a tie.
fn same_trajectory(found: &Value, expected: &Value) -> bool {
    let place = format!("{} from {}", expected["scan"], expected["spawn"]);
    let alone = expected.get("final").is_some();
    let (at, act, gain) = if alone {
        ("loc", "action", "reward")
    } else {
        ("locations", "actions", "rewards")
    };
    assert_eq!(found["start"], expected["start"], "{place}");
    let steps = list(&found["trajectory"])
        .iter()
        .zip(list(&expected["trajectory"]));
    for (step, (a, b)) in steps.enumerate() {
        let place = format!("{place}, step {step}");
        assert_eq!((&a[at], &a["scale"]), (&b[at], &b["scale"]), "{place}");
        let each = |v: &Value| match alone {
            true => vec![v.clone()],
            false => list(v).clone(),
        };
        let (qs, wanted) = (each(&a["q"]), each(&b["q"]));
        let (acts, wanted_acts) = (each(&a[act]), each(&b[act]));
        for i in 0..wanted.len() {
            if !same_q(&qs[i], &wanted[i], (&acts[i], &wanted_acts[i]), &place) {
                return false;
            }
        }
        for (a, b) in each(&a[gain]).iter().zip(each(&b[gain])) {
            let apart = (number(a) - number(&b)).abs();
            assert!(apart < 1e-4, "{place}: reward {a} is not {b}");
        }
    }
    for key in ["steps", "terminated", "final", "finals"] {
        assert_eq!(found.get(key), expected.get(key), "{place}: {key}");
    }
    let errors = |v: &Value| -> Vec<f64> {
        match alone {
            true => vec![number(&v["error_mm"])],
            false => list(&v["errors_mm"]).iter().map(number).collect(),
        }
    };
    for (a, b) in errors(found).into_iter().zip(errors(expected)) {
        assert!((a - b).abs() < 1e-6, "{place}: {a} mm is not {b} mm");
    }
    true
}

/// Starts at the starts of the published trajectories and compares all of them; returns
/// their number and how many of them diverge at a tie.
fn compare(
    shared: &Path,
    weights: &str,
    trajectories: &str,
    only: Option<&str>,
    landmarks: &str,
) -> (usize, usize) {
    let all = json(&shared.join("reference").join(trajectories));
    let all = list(&all).iter();
    let all: Vec<&Value> = all
        .filter(|t| only.is_none_or(|o| t["weights"] == o))
        .collect();
    let mut spawns: Vec<String> = Vec::new();
    for trajectory in &all {
        let spawn = list(&trajectory["spawn"]).iter().map(ToString::to_string);
        let option = format!("--start {}", spawn.collect::<Vec<_>>().join(","));
        if !spawns.contains(&option) {
            spawns.push(option);
        }
    }
    let bench = Bench::new();
    let brain = shared.join("data/brain").display().to_string();
    bench.succeed(&format!(
        "eval --load {} --images {brain}/images.txt --landmarks-files {brain}/landmarks.txt {landmarks} \
         --rules reference {} --max-steps 200 --trajectories out.jsonl --out eval --no-pictures \
         --device cpu --set data.allow_mixed_spacing=true",
        shared.join("reference").join(weights).display(),
        spawns.join(" ")
    ));
    let found = json_lines(&bench.path("out.jsonl"));
    assert_eq!(found.len(), all.len());
    let mut parted = 0;
    for expected in &all {
        let same = |f: &&Value| f["scan"] == expected["scan"] && f["spawn"] == expected["spawn"];
        let found = found.iter().find(same).unwrap();
        parted += usize::from(!same_trajectory(found, expected));
    }
    (all.len(), parted)
}

#[test]
fn the_published_single_agent_follows_the_published_trajectories() {
    let test = "the_published_single_agent_follows_the_published_trajectories";
    let Some(shared) = shared(test) else { return };
    let trajectories = "rl-medical-single-agent-ac-trajectories.json";
    let weights = "rl-medical-single-agent-ac.safetensors";
    assert_eq!(
        compare(&shared, weights, trajectories, None, "--landmarks 13"),
        (9, 0)
    );
}

#[test]
fn three_agents_follow_the_trajectories_of_the_published_code() {
    let test = "three_agents_follow_the_trajectories_of_the_published_code";
    let Some(shared) = shared(test) else { return };
    let trajectories = "rl-medical-three-agents-trajectories.json";
    for kind in ["collab3", "commnet3"] {
        let weights = format!("rl-medical-{kind}-made.safetensors");
        // Without --landmarks: rl-medical's usual order.
        assert_eq!(
            compare(&shared, &weights, trajectories, Some(kind), ""),
            (6, 0),
            "{kind}"
        );
    }
}

#[test]
fn the_published_file_is_imported_without_python() {
    let test = "the_published_file_is_imported_without_python";
    let Some(shared) = shared(test) else { return };
    let bench = Bench::new();
    let file = shared.join("reference/rl-medical-single-agent-ac.pt");
    let file = file.display();
    let import = format!("import {file} -o ac.safetensors --landmarks 13 --json");
    let imported = bench.json(&import);
    assert_eq!(imported["agents"], 1);
    assert_eq!(imported["parameters"], 550_860);
    let read = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        model::files::tensor_file::read(&bytes).unwrap().0
    };
    let ours = read(&bench.path("ac.safetensors"));
    let theirs = read(&shared.join("reference/rl-medical-single-agent-ac.safetensors"));
    assert_eq!(ours.len(), theirs.len());
    for ((a, x), (b, y)) in ours.iter().zip(&theirs) {
        assert!(a == b && x == y, "{a} {b}");
    }
}
