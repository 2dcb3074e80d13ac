//! Tests of which evaluations are saved, and of what the end of a run waits for.

use super::*;
use crate::testing::{config, trainer};
use bytes::Bytes;
use common::config::NetworkKind;
use common::environment::rules::RULES_VERSION;
use common::transition::row::RowShape;
use proto::messages::hello::Hello;

const S: fn(u64) -> Duration = Duration::from_secs;

fn found(version: u64, mm: f64) -> Evaluation {
    Evaluation {
        updates: version * 20,
        weights_version: version,
        mean_error_mm: mm,
        mean_error_voxels: mm * 5.0,
        median_error_mm: mm,
        baseline_error_mm: Some(9.0),
        seconds: 1.0,
        best: false,
    }
}

fn evaluations(run_dir: &Path) -> Evaluations {
    Evaluations::new(run_dir, TrainingManifest::new([], RULES_VERSION))
}

fn line(e: Evaluation) -> String {
    serde_json::json!({
        "updates": e.updates, "weights_version": e.weights_version, "mean_error_mm": e.mean_error_mm,
        "mean_error_voxels": e.mean_error_voxels, "median_error_mm": e.median_error_mm,
        "baseline_error_mm": e.baseline_error_mm, "seconds": e.seconds, "best": false, "landmarks": [],
    })
    .to_string()
}

fn beat(host: &str, evaluation: Option<Evaluation>) -> EvaluatorBeat {
    let line = evaluation.map(|e| Bytes::from(line(e)));
    EvaluatorBeat {
        hello: Hello {
            run_id: String::new(),
            manifest: [0; 32],
            config_digest: [0; 32],
            shape: RowShape {
                agents: 1,
                history: 1,
            },
        },
        host: host.into(),
        evaluating: None,
        evaluation,
        line_json: line.unwrap_or_default(),
        config_json: Bytes::new(),
        manifest_json: Bytes::new(),
    }
}

/// Reports an evaluation at that second; whether its weights are wanted.
fn found_at(e: &mut Evaluations, second: u64, found: Evaluation, stop: bool) -> bool {
    e.beat(S(second), &beat("a", Some(found)), stop).unwrap()
}

#[test]
fn lines_of_version_0_1_0_are_restored() {
    let dir = tempfile::tempdir().unwrap();
    let former = line(found(1, 8.0)).replace("baseline_error_mm", "constant_guess_mm");
    std::fs::write(dir.path().join("validation.jsonl"), former).unwrap();
    assert_eq!(evaluations(dir.path()).last(), Some(found(1, 8.0)));
}

#[test]
fn hosts_that_name_themselves_anew_are_few() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    for n in 0..3 * EVALUATORS_MAX {
        e.beat(S(1), &beat(&format!("host {n}"), None), false)
            .unwrap();
    }
    assert_eq!(e.evaluators(S(1)).len(), EVALUATORS_MAX);
}

#[test]
fn the_best_weights_are_requested_once_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    assert!(!e.beat(S(0), &beat("a", None), false).unwrap());
    assert!(found_at(&mut e, 1, found(1, 8.0), false));
    // The reply was lost: reported again, recorded once.
    assert!(found_at(&mut e, 2, found(1, 8.0), false));
    assert_eq!(e.best(), None, "its weights are not here yet");
    let other = e.keep_best(3, b"other");
    assert!(matches!(other, Err(KeepError::NotWanted(3))));
    e.keep_best(1, b"weights 1").unwrap();
    assert!(!found_at(&mut e, 3, found(2, 9.0), false));
    assert!(found_at(&mut e, 4, found(3, 2.0), true));
    // A learner that ended now would never receive them.
    let last = Published::new(3, 60, Vec::new());
    assert!(e.awaited(S(4), &last));
    e.keep_best(3, b"weights 3").unwrap();
    assert!(!e.awaited(S(4), &last));
    let best = dir.path().join("checkpoints").join(BEST);
    assert_eq!(fs::read(best).unwrap(), b"weights 3");
    let text = fs::read_to_string(dir.path().join("validation.jsonl")).unwrap();
    let flags = text.lines().map(|l| {
        let line: Value = serde_json::from_str(l).unwrap();
        (line["updates"].as_u64(), line["best"].as_bool())
    });
    let expected = [(20, true), (40, false), (60, true)];
    let expected = expected.map(|(u, b)| (Some(u), Some(b)));
    assert!(flags.eq(expected), "{text}");

    let again = evaluations(dir.path());
    let versions = (again.last().unwrap().updates, again.best().unwrap().updates);
    assert_eq!(versions, (60, 60));
}

#[test]
fn the_best_weights_record_the_training_scans() {
    let dir = tempfile::tempdir().unwrap();
    let scans = crate::testing::scans(2);
    let manifest = TrainingManifest::new(scans.iter().map(AsRef::as_ref), RULES_VERSION);
    let mut e = Evaluations::new(dir.path(), manifest);
    found_at(&mut e, 0, found(1, 8.0), false);
    let junk = e.keep_best(1, b"weights 1");
    assert!(matches!(junk, Err(KeepError::Weights(_))));
    let trainer = trainer(&config(NetworkKind::Collab, 2));
    e.keep_best(1, &trainer.weights_bytes(1).unwrap()).unwrap();
    let best = fs::read(dir.path().join("checkpoints").join(BEST)).unwrap();
    let (_, metadata) = model::files::weights::inspect(&best).unwrap();
    let recorded = training_scans::TrainingScans::read(&metadata);
    let recorded = recorded.unwrap().unwrap();
    assert!(scans.iter().all(|scan| recorded.contains(&scan.hash)));
}

#[test]
fn weights_that_never_arrived_are_not_the_best_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    let untrained = Evaluation {
        updates: 0,
        ..found(1, 8.0)
    };
    found_at(&mut e, 0, untrained, false);
    let trainer = trainer(&config(NetworkKind::Collab, 2));
    e.keep_best(1, &trainer.weights_bytes(1).unwrap()).unwrap();
    assert!(found_at(&mut e, 1, found(3, 2.0), false));
    let mut again = evaluations(dir.path());
    let known = (again.best().unwrap(), again.last().unwrap());
    assert_eq!((known.0.updates, known.1.updates), (0, 60));
    assert!(found_at(&mut again, 2, found(4, 5.0), false));
}

#[test]
fn a_learner_that_ends_waits_for_evaluators_that_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    found_at(&mut e, 0, found(1, 8.0), false);
    e.keep_best(1, b"weights 1").unwrap();
    // The version number differs from the updates and does not matter here.
    let after = |updates| Published::new(2, updates, Vec::new());
    // Without a reply that carries stop, it would wait for ever.
    assert!(e.awaited(S(1), &after(40)) && e.awaited(S(1), &after(20)));
    assert!(!e.beat(S(1), &beat("a", None), true).unwrap());
    assert!(e.awaited(S(1), &after(40)) && !e.awaited(S(1), &after(20)));
    assert_eq!(e.evaluators(S(10)).len(), 1);
    assert!(e.evaluators(S(11)).is_empty() && !e.awaited(S(11), &after(40)));
    let mut broken = beat("b", Some(found(3, 1.0)));
    broken.line_json = Bytes::from_static(b"[1]");
    let refused = e.beat(S(12), &broken, false);
    assert!(matches!(refused, Err(KeepError::Line(_))));
    assert_eq!(e.last().unwrap().updates, 20, "reported again later");
}

#[test]
fn an_error_carries_no_stop_and_older_weights_are_evaluated_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    found_at(&mut e, 0, found(3, 8.0), false);
    e.keep_best(3, b"weights 3").unwrap();
    // Resumed from a checkpoint before the evaluation, and ended before it again.
    let behind = Published::new(9, 50, Vec::new());
    assert!(!e.beat(S(1), &beat("a", None), true).unwrap());
    assert!(e.awaited(S(1), &behind));
    let mut broken = beat("a", Some(found(4, 9.0)));
    broken.line_json = Bytes::from_static(b"[1]");
    let mut fresh = evaluations(dir.path());
    assert!(fresh.beat(S(2), &broken, true).is_err());
    let evaluated = Published::new(3, 60, Vec::new());
    assert!(fresh.awaited(S(2), &evaluated), "its reply carried no stop");
    assert!(!fresh.beat(S(3), &beat("a", None), true).unwrap());
    assert!(!fresh.awaited(S(3), &evaluated));
}

#[test]
fn weights_that_cannot_be_saved_are_not_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let [checkpoints, lines] = ["checkpoints", "validation.jsonl"].map(|n| dir.path().join(n));
    // A file in place of a folder, and the reverse.
    fs::write(&checkpoints, b"").unwrap();
    fs::create_dir(&lines).unwrap();
    let mut e = evaluations(dir.path());
    let mut keep = |version, mm| {
        let found = found(version, mm);
        let kept = e.keep(found, line(found).as_bytes(), b"weights");
        let updates = |e: Option<Evaluation>| e.map(|e| e.updates);
        (kept.is_ok(), updates(e.last()), updates(e.best()))
    };
    assert_eq!(keep(1, 5.0), (false, None, None));
    fs::remove_dir(&lines).unwrap();
    assert_eq!(keep(2, 6.0), (false, Some(40), None));
    fs::remove_file(&checkpoints).unwrap();
    // Later weights need not beat those that were lost.
    assert_eq!(keep(3, 7.0), (true, Some(60), Some(60)));
    assert_eq!(keep(4, 8.0), (true, Some(80), Some(60)));
}

#[test]
fn curves_begin_with_the_first_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    e.keep(found(1, 8.0), line(found(1, 8.0)).as_bytes(), b"weights")
        .unwrap();
    let files = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path());
    let curves: Vec<_> = files
        .filter(|f| f.extension().is_some_and(|e| e == "validation"))
        .collect();
    let bytes = fs::read(&curves[0]).unwrap();
    for tag in ["mean_error_mm", "baseline_error_mm"] {
        let tag = format!("validation/{tag}");
        let mut windows = bytes.windows(tag.len());
        assert!(windows.any(|w| w == tag.as_bytes()), "{tag}");
    }
}
