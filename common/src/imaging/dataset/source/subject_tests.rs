//! Tests of `subject`: which scans are of the same subject.

use super::tests::Tree;
use super::*;

#[test]
fn the_subject_of_a_scan_is_what_its_names_share() {
    let groups: [&[&[&str]]; 14] = [
        &[
            &[
                "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
                "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
            ],
            &["sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"],
        ],
        &[
            &["sub-1_ses-1.nii", "sub-1_ses-2.nii", "sub-1_T2w.nii"],
            &["sub-2.nii"],
        ],
        &[
            &["p01_T1w.nii", "p01_ses2_T1w.nii", "p01-run-2.nii"],
            &["p02_T1w.nii"],
        ],
        &[
            &["a_baseline.nii", "a_followup.nii", "a_20240131.nii"],
            &["b_visit2.nii"],
        ],
        &[&["train/p1/T1.nii", "test/p1/T2.nii"], &["train/p2/T1.nii"]],
        &[&["patient7/x.nii", "patient7/y.nii"], &["patient_8/x.nii"]],
        // Nothing is known about these: each is one of its own.
        &[
            &["phantom_0001.nii"],
            &["phantom_0002.nii"],
            &["mouse_DBA_2J.nii"],
        ],
        &[&["T1_001.nii"], &["T1_002.nii"], &["brain_T1_003.nii"]],
        &[
            &["scans/scan1.nii"],
            &["scans/scan2.nii"],
            &["subset1/x.nii"],
            &["subset1/y.nii"],
        ],
        &[&["a/sub-01/x.nii"], &["b/sub-01/x.nii"]],
        &[&["case_0001.nii"], &["case_0002.nii"]],
        // A kind or a general word and a date name nobody; other eight digits are no date.
        &[&["CT_20240131.nii"], &["CT_20240205.nii"]],
        &[&["case_20001234.nii"], &["case_20005678.nii"]],
        &[
            &["brain_20240131.nii"],
            &["brain_T1_20240205.nii"],
            &["patient_20240131.nii"],
            &["patient_20240205.nii"],
        ],
    ];
    for groups in groups {
        for root in ["", "/data/sub-9/patient3/run1/"] {
            let files = groups.iter().enumerate();
            let files = files.flat_map(|(n, group)| group.iter().map(move |file| (n, file)));
            let files: Vec<(usize, PathBuf)> = files
                .map(|(n, file)| (n, format!("{root}{file}").into()))
                .collect();
            let paths: Vec<&Path> = files.iter().map(|(_, path)| path.as_path()).collect();
            let subjects = Subject::of_all(&paths);
            for (i, (group_a, a)) in files.iter().enumerate() {
                for (j, (group_b, b)) in files.iter().enumerate().skip(i + 1) {
                    let same = subjects[i].is_some() && subjects[i] == subjects[j];
                    assert_eq!(same, group_a == group_b, "{a:?} {b:?}");
                }
            }
        }
    }
}

#[test]
fn a_subject_in_two_splits_is_reported_once() {
    let tree = Tree::new(&[]);
    let shared = |rows: &str, fold: Option<u32>| {
        tree.file("m.csv", &format!("image,landmarks,split,fold\n{rows}"));
        let source = Source::read(&tree.at("m.csv"), None).unwrap();
        let shared = source.shared_subjects(fold).into_iter();
        let shared = shared.map(|s| format!("{} {} {}", s.subject, s.first.1, s.second.1));
        shared.collect::<Vec<_>>()
    };
    let rows = "sub-1_ses-1.nii,a,train,\nsub-1_ses-2.nii,a,test,\nsub-1_ses-3.nii,a,validation,\n\
                sub-2_ses-1.nii,a,train,\nsub-2_ses-2.nii,a,train,\n";
    assert_eq!(shared(rows, None), ["sub-1 split train split test"]);
    let rows = "sub-1_ses-1.nii,a,,0\nsub-1_ses-2.nii,a,,1\nsub-2_T1w.nii,a,,1\n";
    assert_eq!(shared(rows, None), ["sub-1 fold 0 fold 1"]);
    assert_eq!(
        shared(rows, Some(0)),
        ["sub-1 split validation split train"]
    );
    assert_eq!(
        shared("a_T1w.nii,a,train,\nb_T1w.nii,a,test,\n", None),
        [""; 0]
    );
}

#[test]
fn a_subject_of_two_sources_is_reported_where_their_folders_are_not_of_two_sites() {
    let tree = Tree::new(&[]);
    let shared = |training: &str, validation: &str| {
        let read = |name: &str, image: &str| {
            tree.file(name, &format!("image,landmarks\n{image},a\n"));
            Source::read(&tree.at(name), None).unwrap()
        };
        let (training, validation) = (read("t.csv", training), read("v.csv", validation));
        let shared = validation.subjects_shared_with(&training, None);
        let shared = shared.into_iter();
        shared
            .map(|s| format!("{} {} {}", s.subject, s.first.1, s.second.1))
            .collect::<Vec<_>>()
    };
    let both = ["sub-1 data.train_images data.validation_images"];
    assert_eq!(shared("sub-1_ses-1.nii", "sub-1_ses-2.nii"), both);
    assert_eq!(shared("train/sub-1/T1w.nii", "val/sub-1/T2w.nii"), both);
    assert_eq!(shared("rome/sub-1/T1w.nii", "oslo/sub-1/T1w.nii"), [""; 0]);
    assert_eq!(shared("sub-1_ses-1.nii", "sub-2_ses-1.nii"), [""; 0]);
    assert_eq!(shared("a.nii", "b.nii"), [""; 0]);
}
