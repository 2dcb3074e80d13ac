//! Tests of `dataset`.

use std::fs;

use super::*;
use crate::imaging::nifti_io::{Limits, Samples, read};
use crate::phantom::{LANDMARK_NAMES, Orientation};

const COUNTS: PhantomCounts = PhantomCounts {
    train: 2,
    validation: 1,
    test: 1,
};

fn small() -> PhantomSpec {
    let orientations = vec![Orientation::Ras, Orientation::Las];
    PhantomSpec {
        spacing_mm: 0.5,
        orientations,
        ..PhantomSpec::with_dims([48, 56, 48])
    }
}

fn write(
    dir: &Path,
    counts: PhantomCounts,
    spec: &PhantomSpec,
    seed: u64,
) -> Result<DatasetProgress, DatasetError> {
    write_dataset(dir, counts, spec, seed, |_| ())
}

#[test]
fn sets_never_share_a_phantom() {
    let seeds = |seed| {
        PhantomSet::ALL
            .into_iter()
            .flat_map(move |s| (1..=300).map(move |i| sub_seed(seed, s, i)))
    };
    let distinct: std::collections::HashSet<u64> = (0..4).flat_map(seeds).collect();
    assert_eq!(distinct.len(), 4 * 3 * 300);
    // As version 0.1.0 drew them, which called the set "selection".
    let former = [1, 2].map(|index| sub_seed(1, PhantomSet::Validation, index));
    let expected = [5_264_995_069_429_305_541, 17_044_727_484_791_773_288];
    assert_eq!(former, expected);
}

#[test]
fn a_dataset_of_version_0_1_0_is_completed_in_its_own_folder() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), COUNTS, &small(), 3).unwrap();
    let (former, present) = (dir.path().join("selection"), dir.path().join("validation"));
    fs::rename(&present, &former).unwrap();
    let description = dir.path().join("dataset.json");
    let text = fs::read_to_string(&description).unwrap();
    let former_text = text.replace("\"validation\"", "\"selection\"");
    fs::write(&description, former_text).unwrap();
    let again = write(dir.path(), COUNTS, &small(), 3).unwrap();
    assert_eq!(again.kept, again.total);
    assert!(!present.exists() && set_folder(dir.path(), PhantomSet::Validation) == former);
}

#[test]
fn files_load_back() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), COUNTS, &small(), 3).unwrap();
    let mut handedness = std::collections::HashSet::new();
    for set in PhantomSet::ALL {
        let folder = dir.path().join(set.folder());
        let list = |name: &str| -> Vec<String> {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            text.lines().map(String::from).collect()
        };
        let (images, tables) = (list("images.txt"), list("landmarks.txt"));
        assert_eq!([images.len(), tables.len()], [COUNTS.of(set); 2]);
        for (number, (image, table)) in images.iter().zip(&tables).enumerate() {
            let phantom = Phantom::generate(&small(), sub_seed(3, set, number + 1)).unwrap();
            let found = read(&folder.join(image), &Limits::default()).unwrap();
            assert_eq!(*found.affine(), phantom.affine);
            assert_eq!(found.dims(), [48, 56, 48]);
            handedness.insert(found.affine().determinant() < 0.0);
            assert_eq!(*found.samples(), Samples::U8(phantom.voxels));

            let mut reader = csv::Reader::from_path(folder.join(table)).unwrap();
            let header = vec!["name", "x_ras_mm", "y_ras_mm", "z_ras_mm"];
            assert_eq!(reader.headers().unwrap(), header);
            let rows: Vec<(String, f64, f64, f64)> =
                reader.deserialize().map(Result::unwrap).collect();
            assert_eq!(rows.len(), LANDMARK_NAMES.len());
            for ((name, x, y, z), expected) in rows.into_iter().zip(&phantom.landmarks) {
                assert_eq!(name, expected.name);
                for (found, truth) in [x, y, z].into_iter().zip(expected.ras_mm) {
                    assert!((found - truth).abs() < 1e-6);
                }
            }
        }
    }
    assert_eq!(handedness.len(), 2, "both orientations were drawn");
}

#[test]
fn a_second_run_keeps_complete_files_and_rewrites_damaged_ones() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(dir.path(), COUNTS, &small(), 3).unwrap();
    assert_eq!((first.done, first.kept, first.total), (4, 0, 4));
    let image = dir.path().join("train/images/phantom_0002.nii.gz");
    let whole = fs::read(&image).unwrap();
    assert_eq!(write(dir.path(), COUNTS, &small(), 3).unwrap().kept, 4);

    let mut spoilt = whole.clone();
    spoilt[whole.len() / 2] ^= 0x10;
    for broken in [&whole[..whole.len() - 100], &spoilt[..], &[]] {
        fs::write(&image, broken).unwrap();
        assert_eq!(write(dir.path(), COUNTS, &small(), 3).unwrap().kept, 3);
        assert_eq!(fs::read(&image).unwrap(), whole);
    }
    fs::remove_file(dir.path().join("test/landmarks/phantom_0001.csv")).unwrap();
    assert_eq!(write(dir.path(), COUNTS, &small(), 3).unwrap().kept, 3);

    let larger = PhantomCounts {
        validation: 2,
        ..COUNTS
    };
    let grown = write(dir.path(), larger, &small(), 3).unwrap();
    assert_eq!((grown.done, grown.kept, grown.total), (5, 4, 5));
    assert_eq!(fs::read(&image).unwrap(), whole);
    let names = names_below(dir.path());
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
}

fn names_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        names.push(entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            names.extend(names_below(&entry.path()));
        }
    }
    names
}

const NONE: PhantomCounts = PhantomCounts {
    train: 0,
    validation: 0,
    test: 0,
};

#[test]
fn lists_and_scans_of_others_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("train/images.txt");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, "precious.nii.gz\n").unwrap();
    let error = write(dir.path(), COUNTS, &small(), 3).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("train' has files that are no phantoms"),
        "{error}"
    );
    assert_eq!(fs::read(&list).unwrap(), b"precious.nii.gz\n");
    assert_eq!(names_below(dir.path()), ["train", "images.txt"]);
}

#[test]
fn another_dataset_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let none = NONE;
    write(dir.path(), none, &small(), 3).unwrap();
    let quiet = PhantomSpec {
        noise: 0.0,
        ..small()
    };
    for (spec, seed, word) in [(small(), 4, "seed"), (quiet, 3, "specification")] {
        let error = write(dir.path(), none, &spec, seed).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("dataset.json"), "{error}");
        assert!(error.contains(word), "{error}");
    }
    fs::write(dir.path().join("dataset.json"), "notes").unwrap();
    let error = write(dir.path(), none, &small(), 3).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("its format differs"), "{error}");
}

#[test]
fn errors_name_the_path() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: refused for every user, root included.
    let blocked = dir.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    let folder = blocked.join("phantoms");
    let error = write(&folder, COUNTS, &small(), 3).unwrap_err().to_string();
    assert!(error.contains(&folder.display().to_string()), "{error}");

    let open = dir.path().join("open");
    write(&open, NONE, &small(), 3).unwrap();
    fs::create_dir_all(open.join("train/images/phantom_0001.nii.gz")).unwrap();
    let error = write(&open, COUNTS, &small(), 3).unwrap_err().to_string();
    assert!(error.starts_with("cannot write "), "{error}");
    assert!(
        error.contains("train/images/phantom_0001.nii.gz"),
        "{error}"
    );
}

#[test]
fn progress_counts_up_to_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    write_dataset(dir.path(), COUNTS, &small(), 3, |p| {
        seen.lock().unwrap().push(p);
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|p| p.total == 4 && p.kept == 0) && seen.iter().any(|p| p.done == 4));
}
