//! Resume is exact, corruption is detected, other runs are refused.

use std::fs;

use super::*;
use crate::checkpoint::folder::{CheckpointFolder, LAST, Resume, load_newest, write_final};
use crate::testing::{batch, config, trainer};
use common::config::NetworkKind;
use proptest::prelude::*;

fn around() -> Surroundings {
    Surroundings {
        run_id: "run-1".into(),
        weights_version: 4,
        manifest_json: "{}".into(),
        limiter: LimiterState::default(),
        episodes: 9,
        extra: [
            ("episode".to_owned(), vec![1, 2, 3]),
            ("none".to_owned(), vec![]),
        ]
        .into(),
    }
}

fn trained(steps: u32) -> Trainer {
    let config = config(NetworkKind::Collab, 2);
    let mut t = trainer(&config);
    for i in 0..steps {
        t.step(&batch(&config, i)).unwrap();
    }
    t
}

fn bytes_of(t: &Trainer) -> Vec<u8> {
    Checkpoint::new(t, around()).unwrap().to_bytes().unwrap()
}

#[test]
fn a_resumed_run_is_bit_equal_to_an_uninterrupted_one() {
    use rand::Rng as _;
    let mut whole = trained(7);
    let _ = whole.rng.next_u32();
    let saved = bytes_of(&whole);
    let mut resumed = trained(0);
    let read = Checkpoint::from_bytes(&saved, "x").unwrap();
    read.restore(&mut resumed, "{}").unwrap();
    assert_eq!((resumed.updates(), resumed.adam.steps()), (7, 7));
    assert_eq!(
        (read.record.run_id.as_str(), read.record.weights_version),
        ("run-1", 4)
    );
    assert_eq!(read.record.episodes, 9);
    assert_eq!(read.extra, [("episode".to_owned(), vec![1, 2, 3])].into());
    assert_eq!(bytes_of(&resumed), saved);
    for i in 7..13 {
        let batch = batch(&whole.config, i);
        assert_eq!(whole.step(&batch).unwrap(), resumed.step(&batch).unwrap());
    }
    assert_eq!(whole.rng.next_u32(), resumed.rng.next_u32());
    assert_eq!(bytes_of(&resumed), bytes_of(&whole));
}

#[test]
fn checkpoints_of_other_runs_are_refused_with_the_differences() {
    let read = Checkpoint::from_bytes(&bytes_of(&trained(1)), "x").unwrap();
    let refused = |change: fn(&mut common::config::Config), manifest: &str| {
        let mut c = (*config(NetworkKind::Collab, 2)).clone();
        change(&mut c);
        let mut other = trainer(&std::sync::Arc::new(c));
        let text = read.restore(&mut other, manifest).unwrap_err().to_string();
        assert_eq!(other.updates(), 0);
        text
    };
    let text = refused(|c| c.network.dueling = true, "{}");
    assert!(
        text.contains("another network") && text.contains("dueling is true here and false there"),
        "{text}"
    );
    assert!(
        refused(|c| c.data.landmarks[1] = "PC".into(), "{}")
            .contains("landmarks are [\"L0\",\"PC\"] in this run")
    );
    assert!(refused(|c| c.rules.max_steps = 7, "{}").contains("rules are"));
    let empty = r#"{"entries":[],"rules_version":1}"#;
    assert!(refused(|_| (), empty).contains("training manifest"));
}

#[test]
fn corruption_is_reported_with_its_reason() {
    let good = bytes_of(&trained(1));
    let reason = |bytes: &[u8]| {
        Checkpoint::from_bytes(bytes, "c.safetensors")
            .unwrap_err()
            .to_string()
    };
    assert!(
        reason(&good[..good.len() - 5])
            .starts_with("checkpoint c.safetensors is corrupt: not a complete safetensors file")
    );
    let mut flipped = good.clone();
    let end = flipped.len() - 100;
    flipped[end] ^= 4;
    assert!(
        reason(&flipped).contains("its SHA-256 is"),
        "{}",
        reason(&flipped)
    );
    // The hash covers the metadata as well.
    let text = String::from_utf8_lossy(&good[..4000]).into_owned();
    let at = text.find("run-1").unwrap();
    let mut renamed = good.clone();
    renamed[at] = b'R';
    assert!(reason(&renamed).contains("its SHA-256 is"));
    assert!(reason(&trained(1).weights_bytes(1).unwrap()).contains("landmarl.sha256 is missing"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn corrupted_bytes_are_an_error(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| bytes_of(&trained(0)));
        let mut bytes = good.clone();
        // Half of the corruptions hit the header, which is small.
        let place = if with % 2 == 0 { at.index(bytes.len()) } else { at.index(3000) };
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] = with.wrapping_add(u8::from(bytes[place] == with));
        }
        // A corruption that is still accepted (changed white space) must not change the contents.
        if let Ok(read) = Checkpoint::from_bytes(&bytes, "x") {
            prop_assert!(!cut);
            prop_assert!(&read.to_bytes().unwrap() == good);
        }
    }

    #[test]
    fn noise_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Checkpoint::from_bytes(&bytes, "x").is_err());
    }
}

#[test]
fn the_folder_keeps_the_newest_and_skips_corrupt_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = CheckpointFolder::new(dir.path(), 2);
    assert!(load_newest(dir.path()).unwrap().is_none());
    let config = config(NetworkKind::Collab, 2);
    let mut t = trainer(&config);
    for i in 0..4 {
        t.step(&batch(&config, i)).unwrap();
        assert!(
            folder
                .save(&Checkpoint::new(&t, around()).unwrap())
                .is_some()
        );
    }
    let names = || {
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let numbered = |n: u64| format!("update-{n:08}.safetensors");
    assert_eq!(names(), [LAST.to_owned(), numbered(3), numbered(4)]);
    // Saving the same state again changes nothing.
    assert!(
        folder
            .save(&Checkpoint::new(&t, around()).unwrap())
            .is_some()
    );
    assert_eq!(names().len(), 3);
    let bytes = fs::read(dir.path().join(numbered(4))).unwrap();
    assert_eq!(fs::read(dir.path().join(LAST)).unwrap(), bytes);
    // Truncates the newest (`last` is the same file): the one before is used.
    fs::write(dir.path().join(numbered(4)), &bytes[..bytes.len() / 2]).unwrap();
    let found = load_newest(dir.path()).unwrap().unwrap();
    assert_eq!(
        (found.checkpoint.record.updates, found.refused.len()),
        (3, 1)
    );
    // Resumed from 3: files with more updates do not count as the newest.
    let mut resumed = trainer(&config);
    found.checkpoint.restore(&mut resumed, "{}").unwrap();
    assert!(
        folder
            .save(&Checkpoint::new(&resumed, around()).unwrap())
            .is_some()
    );
    let aside = format!("{}.aside", numbered(4));
    assert_eq!(names(), [LAST.to_owned(), numbered(3), aside]);
    fs::write(dir.path().join(LAST), b"nothing").unwrap();
    fs::write(dir.path().join(numbered(3)), b"nothing").unwrap();
    let text = load_newest(dir.path()).unwrap_err().to_string();
    assert!(text.contains("none of the 2 checkpoints"), "{text}");
}

/// Sets a part of a tensor.
fn spoil(tensor: &Tensor, value: f64) {
    let _ = tensor.detach().narrow(0, 0, 1).fill_(value);
}

#[test]
fn the_state_of_a_training_that_diverged_is_neither_published_nor_saved() {
    type Part = fn(&Trainer) -> &Parameters;
    let parts: [(Part, bool, f64); 5] = [
        (|t| t.online().parameters(), false, 1e30),
        (|t| t.target.parameters(), false, 1e30),
        (|t| t.average(), true, 1e30),
        (|t| t.adam.moments().0, false, f64::INFINITY),
        (|t| t.adam.moments().1, false, f64::INFINITY),
    ];
    for (place, (part, published, absurd)) in parts.into_iter().enumerate() {
        for value in [f64::NAN, f64::NEG_INFINITY, absurd, -absurd] {
            let t = trained(0);
            spoil(part(&t).at(1), value);
            let what = format!("{} {value}", GROUPS[place]);
            let saved = Checkpoint::new(&t, around()).unwrap_err().to_string();
            assert!(saved.contains("update 0: the values of"), "{what}: {saved}");
            assert!(saved.contains("--resume"), "{what}: {saved}");
            assert_eq!(t.weights_bytes(1).is_err(), published, "{what}");
        }
        // As large as any sound weight.
        let t = trained(0);
        spoil(part(&t).at(1), 1e3);
        assert!(Checkpoint::new(&t, around()).is_ok());
    }
}

#[test]
fn checkpoints_of_a_training_that_diverged_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = CheckpointFolder::new(dir.path(), 9);
    // As an earlier version saved them.
    for (updates, value) in [(1, None), (2, Some(f64::NAN)), (3, Some(1e20))] {
        let checkpoint = Checkpoint::new(&trained(updates), around()).unwrap();
        if let Some(value) = value {
            spoil(checkpoint.groups[0].at(0), value);
        }
        assert!(folder.save(&checkpoint).is_some());
    }
    let found = load_newest(dir.path()).unwrap().unwrap();
    assert_eq!(found.checkpoint.record.updates, 1);
    assert_eq!(found.refused.len(), 2);
    let file = dir.path().join("update-00000002.safetensors");
    let bytes = fs::read(file).unwrap();
    let error = inference_weights(&bytes, "x", &Limits::default()).unwrap_err();
    assert!(matches!(error, CheckpointError::Diverged { .. }), "{error}");
}

#[test]
fn a_checkpoint_is_resumed_by_its_name_and_newer_ones_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = CheckpointFolder::new(dir.path(), 9);
    let resume = |name: &str| Resume::Named(name.to_owned()).find(dir.path());
    let text = resume("last").unwrap_err().to_string();
    assert!(text.ends_with("there are: none"), "{text}");
    for updates in [1, 2, 3] {
        let checkpoint = Checkpoint::new(&trained(updates), around()).unwrap();
        folder.save(&checkpoint).unwrap();
    }
    fs::write(dir.path().join("notes.txt"), "text").unwrap();
    for (name, updates) in [
        ("update-00000001", 1),
        ("update-00000002.safetensors", 2),
        ("last", 3),
    ] {
        let found = resume(name).unwrap().unwrap();
        assert_eq!(found.checkpoint.record.updates, updates, "{name}");
    }
    for name in ["update-00000004", "../x", "", "/etc/passwd"] {
        let text = resume(name).unwrap_err().to_string();
        let words = "update-00000003.safetensors, update-00000002.safetensors";
        assert!(
            text.contains("there is no checkpoint") && text.contains(words),
            "{text}"
        );
    }
    let text = resume("notes.txt").unwrap_err().to_string();
    assert!(text.contains("is corrupt"), "{text}");
    folder.go_on_from(1);
    let newest = load_newest(dir.path()).unwrap().unwrap();
    assert_eq!(newest.checkpoint.record.updates, 1);
    // Under its new name it can still be chosen.
    let aside = resume("update-00000003.safetensors.aside")
        .unwrap()
        .unwrap();
    assert_eq!(aside.checkpoint.record.updates, 3);
    assert!(Resume::No.find(dir.path()).unwrap().is_none());
}

#[test]
fn a_failed_write_is_counted_and_training_continues() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("checkpoints");
    fs::write(&taken, b"a file, where a folder should be").unwrap();
    let mut folder = CheckpointFolder::new(&taken, 2);
    let checkpoint = Checkpoint::new(&trained(0), around()).unwrap();
    for failures in 1..=4 {
        assert!(folder.save(&checkpoint).is_none());
        assert_eq!(folder.failures(), failures);
    }
    fs::remove_file(&taken).unwrap();
    assert!(folder.save(&checkpoint).is_some(), "the folder is made");
    assert_eq!(folder.failures(), 4);
}

#[test]
fn inference_reads_checkpoints_and_weights_files() {
    let dir = tempfile::tempdir().unwrap();
    let t = trained(2);
    let (a, b) = (
        dir.path().join("c.safetensors"),
        dir.path().join("w.safetensors"),
    );
    fs::write(&a, bytes_of(&t)).unwrap();
    fs::write(&b, t.weights_bytes(4).unwrap()).unwrap();
    for path in [&a, &b] {
        let read = inference_weights(&fs::read(path).unwrap(), "x", &Limits::default()).unwrap();
        let pairs = read.network.parameters().iter().zip(t.average().iter());
        assert!(pairs.into_iter().all(|((_, x), (_, y))| x.equal(y)));
        assert_eq!(read.metadata[crate::training::trainer::UPDATES_KEY], "2");
        assert!(read.metadata.contains_key(RULES_KEY));
    }
}

#[test]
fn readable_files_of_another_kind_are_not_called_corrupt() {
    let error =
        |bytes: &[u8]| inference_weights(bytes, "x.safetensors", &Limits::default()).unwrap_err();
    let other = [("a.bias".to_owned(), Tensor::from_slice(&[0.5_f32]))];
    let other = tensor_file::write(&other, &Metadata::new()).unwrap();
    for (bytes, words) in [
        (&b"a text of some length"[..], "it has another format"),
        (b"", "it is empty"),
        (
            &other,
            "there is no conv0.weight among its 1 tensors: a.bias",
        ),
        (b"PK\x03\x04 and no more", "not a PyTorch state dict"),
    ] {
        let text = error(bytes).to_string();
        assert!(text.contains(words) && !text.contains("corrupt"), "{text}");
    }
    // As a checkpoint, it is another kind of file too.
    let text = Checkpoint::from_bytes(&other, "x").unwrap_err().to_string();
    assert!(text.starts_with("x is no checkpoint"), "{text}");
    // A damaged checkpoint is corrupt.
    let mut damaged = bytes_of(&trained(0));
    let end = damaged.len() - 9;
    damaged[end] ^= 1;
    let text = error(&damaged).to_string();
    assert!(text.contains("is corrupt: its SHA-256 is"), "{text}");
}

#[test]
fn errors_of_the_disk_are_called_that() {
    let dir = tempfile::tempdir().unwrap();
    // A folder in place of a checkpoint, whose reading fails.
    fs::create_dir(dir.path().join("update-00000009.safetensors")).unwrap();
    let text = load_newest(dir.path()).unwrap_err().to_string();
    assert!(text.contains("cannot read checkpoint"), "{text}");
    assert!(!text.contains("corrupt"), "{text}");
    let manifest = TrainingManifest::new([], 1);
    let gone = dir.path().join("gone");
    let weights = trained(0).weights_bytes(1).unwrap();
    let text = write_final(&gone, &weights, &manifest).unwrap_err();
    let text = text.to_string();
    assert!(text.starts_with("cannot create '"), "{text}");
}

#[test]
fn weights_of_checkpoints_and_final_weights_record_the_training_scans() {
    let dir = tempfile::tempdir().unwrap();
    let scans = crate::testing::scans(3);
    let manifest = TrainingManifest::new(scans.iter().map(AsRef::as_ref), 1);
    let trainer = trained(1);
    let plain = trainer.weights_bytes(4).unwrap();
    let path = write_final(dir.path(), &plain, &manifest).unwrap();
    let surroundings = Surroundings {
        manifest_json: serde_json::to_string(&manifest).unwrap(),
        ..around()
    };
    let checkpoint = Checkpoint::new(&trainer, surroundings).unwrap();
    let expected = TrainingScans::of(&manifest).unwrap();
    for bytes in [fs::read(path).unwrap(), checkpoint.to_bytes().unwrap()] {
        let read = inference_weights(&bytes, "x", &Limits::default()).unwrap();
        let found = TrainingScans::read(&read.metadata).unwrap().unwrap();
        assert_eq!(found, expected);
        assert_eq!(found.spacing_mm, [scans[0].geometry.spacing_mm; 2]);
        assert!(scans.iter().all(|scan| found.contains(&scan.hash)));
        // The network is that of the broadcast weights, which record nothing.
        let sent = inference_weights(&plain, "x", &Limits::default()).unwrap();
        assert_eq!(TrainingScans::read(&sent.metadata).unwrap(), None);
        let pairs = read
            .network
            .parameters()
            .iter()
            .zip(sent.network.parameters().iter());
        assert!(pairs.into_iter().all(|((_, x), (_, y))| x.equal(y)));
    }
}
