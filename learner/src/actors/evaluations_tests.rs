//! Tests of which evaluations are saved, and of what the end of a run waits for.

use super::*;
use crate::testing::{config, trainer};
use bytes::Bytes;
use common::config::NetworkKind;
use common::environment::rules::RULES_VERSION;
use common::transition::row::RowShape;
use model::{Network, NetworkSpec};
use proto::messages::hello::Hello;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

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

/// Weights of that version, as the learner publishes them.
fn weights(version: u64) -> Vec<u8> {
    let spec = NetworkSpec::small(2, 1, None);
    let mut rng = ChaCha8Rng::seed_from_u64(version);
    let network = Network::new(&spec, &mut rng, tch::Device::Cpu).unwrap();
    let updates = (UPDATES_KEY.to_owned(), (version * 20).to_string());
    model::files::weights::to_bytes(&network, &[updates].into()).unwrap()
}

/// The version in the file of the best weights.
fn kept_version(run_dir: &Path) -> u64 {
    updates_of(&run_dir.join("checkpoints").join(BEST)).unwrap() / 20
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
    let other = e.keep_best(3, &weights(3));
    assert!(matches!(other, Err(KeepError::NotWanted(3))));
    e.keep_best(1, &weights(1)).unwrap();
    assert!(!found_at(&mut e, 3, found(2, 9.0), false));
    assert!(found_at(&mut e, 4, found(3, 2.0), true));
    // A learner that ended now would never receive them.
    let last = Published::new(3, 60, Vec::new());
    assert!(e.awaited(S(4), &last));
    e.keep_best(3, &weights(3)).unwrap();
    assert!(!e.awaited(S(4), &last));
    assert_eq!(kept_version(dir.path()), 3);
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
    e.keep_best(1, &weights(1)).unwrap();
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
    e.keep_best(3, &weights(3)).unwrap();
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
        let kept = e.keep(found, line(found).as_bytes(), &weights(version));
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
fn weights_that_cannot_be_kept_never_block_later_ones() {
    let unsound = |value: f64| {
        let spec = NetworkSpec::small(2, 1, None);
        let network = Network::new(&spec, &mut ChaCha8Rng::seed_from_u64(1), tch::Device::Cpu);
        let network = network.unwrap();
        let _ = network.parameters().at(0).detach().fill_(value);
        model::files::weights::to_bytes(&network, &Default::default()).unwrap()
    };
    let mut damaged = weights(3);
    *damaged.last_mut().unwrap() ^= 1;
    let cases = [
        ("text", b"weights 3".to_vec()),
        ("nothing", Vec::new()),
        ("not a number", unsound(f64::NAN)),
        ("absurd", unsound(1e30)),
        ("damaged", damaged),
        ("of another version", weights(2)),
        ("not published", weights(7)),
    ];
    for (what, bytes) in cases {
        let dir = tempfile::tempdir().unwrap();
        let published = Arc::new(Digests::default());
        let publish = |version: u64, bytes: &[u8]| {
            published.add(&Published::new(version, version * 20, bytes.to_vec()));
        };
        // The learner itself published what cannot be used, or others did not.
        let foreign = what == "not published" || what == "of another version";
        let own = if foreign { weights(3) } else { bytes.clone() };
        publish(3, &own);
        publish(4, &weights(4));
        let mut e = evaluations(dir.path()).of_published(Arc::clone(&published));
        assert!(found_at(&mut e, 0, found(3, 2.0), false), "{what}");
        let error = e.keep_best(3, &bytes).unwrap_err();
        match error {
            KeepError::Unpublished(3) => assert!(foreign, "{what}"),
            KeepError::Weights(_) => assert!(!foreign, "{what}: {error}"),
            other => panic!("{what}: {other}"),
        }
        let again = e.keep_best(3, &bytes);
        assert!(matches!(again, Err(KeepError::NotWanted(3))), "{what}");
        assert_eq!(e.best(), None, "{what}");
        // A worse one becomes the best, in this process and after a restart.
        let mut restarted = evaluations(dir.path()).of_published(published);
        for e in [&mut e, &mut restarted] {
            assert!(found_at(e, 1, found(4, 9.0), false), "{what}");
            e.keep_best(4, &weights(4)).unwrap();
            assert_eq!(kept_version(dir.path()), 4, "{what}");
        }
    }
}

#[test]
fn weights_that_never_arrive_never_block_those_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    let report = |e: &mut Evaluations, host: &str, second, found| {
        e.beat(S(second), &beat(host, Some(found)), false).unwrap()
    };
    assert!(report(&mut e, "a", 0, found(1, 2.0)));
    // Neither of the same evaluator nor of another.
    assert!(report(&mut e, "b", 1, found(2, 5.0)));
    e.keep_best(2, &weights(2)).unwrap();
    assert_eq!(e.best().unwrap().weights_version, 2);
    assert!(report(&mut e, "b", 2, found(3, 4.0)));
    // Late, but better.
    assert!(report(&mut e, "a", 3, found(1, 2.0)), "asked again");
    e.keep_best(1, &weights(1)).unwrap();
    let late = e.keep_best(3, &weights(3));
    assert!(matches!(late, Err(KeepError::NotWanted(3))));
    assert_eq!(kept_version(dir.path()), 1);
    assert!(report(&mut e, "a", 4, found(5, 1.0)));
    assert!(report(&mut e, "a", 5, found(6, 1.5)));
    let gone = e.keep_best(5, &weights(5));
    assert!(matches!(gone, Err(KeepError::NotWanted(5))));
    e.keep_best(6, &weights(6)).unwrap();
    // The end of the run does not wait for an evaluator that is gone.
    assert!(report(&mut e, "a", 6, found(7, 0.5)));
    let last = Published::new(7, 140, Vec::new());
    assert!(e.awaited(S(7), &last) && !e.awaited(S(17), &last));
}

#[test]
fn a_file_that_is_not_of_an_evaluated_version_is_not_the_best() {
    for (what, file) in [
        ("text", Some(b"any text".to_vec())),
        ("of other updates", Some(weights(9))),
        ("missing", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let lines = line(found(1, 0.5)) + "\n";
        fs::write(dir.path().join("validation.jsonl"), lines).unwrap();
        let folder = dir.path().join("checkpoints");
        fs::create_dir(&folder).unwrap();
        if let Some(bytes) = file {
            fs::write(folder.join(BEST), bytes).unwrap();
        }
        let mut e = evaluations(dir.path());
        assert_eq!(e.best(), None, "{what}");
        assert!(found_at(&mut e, 0, found(2, 8.0), false), "{what}");
        e.keep_best(2, &weights(2)).unwrap();
        assert_eq!(kept_version(dir.path()), 2, "{what}");
    }
}

#[test]
fn curves_begin_with_the_first_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = evaluations(dir.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let first = found(1, 8.0);
    e.keep(first, line(first).as_bytes(), &weights(1)).unwrap();
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
