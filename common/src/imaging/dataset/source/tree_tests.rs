//! Tests of `tree` and `subject`: which files of a folder belong together, and what is
//! said about the others.

use super::tests::Tree;
use super::*;

const POINTS: &str = "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,1,2,3\nB,1,2,4\n";

/// A tree with these files, of which tables hold two landmarks.
fn tree(files: &[&str]) -> Tree {
    let tree = Tree::new(files);
    for file in files.iter().filter(|file| file.ends_with(".csv")) {
        tree.file(file, POINTS);
    }
    tree
}

/// One control point, as in a file of 3D Slicer with one landmark.
fn one_point(name: &str) -> String {
    format!(
        r#"{{"markups": [{{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints":
        [{{"label": "{name}", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"}}]}}]}}"#
    )
}

/// `path: reason` of each unused file; `!` before those that are mistakes.
fn unused(tree: &Tree, path: &str) -> Vec<String> {
    let source = Source::read(&tree.at(path), None).unwrap();
    let shown = source.unused.iter().map(|unused| {
        let mark = if unused.mistake { "!" } else { "" };
        let reason = unused
            .reason
            .replace(&format!("{}/", tree.at("").display()), "");
        let reason = reason.replace(&format!("{}", tree.at("").display()), "");
        format!("{mark}{}: {reason}", tree.short(&unused.path))
    });
    shown.collect()
}

fn contain(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, parts) in found.iter().zip(expected) {
        for part in parts.split(" | ") {
            assert!(found.contains(part), "{part} in {found}");
        }
    }
}

#[test]
fn folders_name_the_split_at_any_depth() {
    for layout in [
        "images/train/a.nii landmarks/train/a.csv images/val/b.nii landmarks/val/b.csv \
         images/test/c.nii landmarks/test/c.csv",
        "Images/Training/a.nii Landmarks/Training/a.csv Images/VALID/b.nii Landmarks/VALID/b.csv \
         Images/Holdout/c.nii Landmarks/Holdout/c.csv",
        "imagesTr/a_0000.nii.gz landmarksTr/a.csv imagesVal/b_0000.nii.gz landmarksVal/b.csv \
         imagesTs/c_0000.nii.gz landmarksTs/c.csv",
        "train_images/a.nii train_landmarks/a.csv dev-images/b.nii dev-landmarks/b.csv \
         testing_images/c.nii testing_landmarks/c.csv",
        "train/images/a.nii train/landmarks/a.csv validation/images/b.nii \
         validation/landmarks/b.csv test/images/c.nii test/landmarks/c.csv",
        "images/train/a.nii landmarks/a.csv images/val/b.nii landmarks/b.csv images/test/c.nii \
         landmarks/c.csv",
        "heads/train/a.nii heads/train/a.csv heads/val/b.nii heads/val/b.csv heads/test/c.nii \
         heads/test/c.csv",
        "train_set/a.nii train_set/a.csv 02_val/b.nii 02_val/b.csv TestSet/c.nii TestSet/c.csv",
        "scans/train/p/a.nii points/train/p/a.csv scans/val/p/a.nii points/val/p/a.csv \
         scans/test/p/a.nii points/test/p/a.csv",
    ] {
        let files: Vec<String> = layout.split(' ').map(|file| format!("d/{file}")).collect();
        let tree = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
        for (split, pair) in Split::ALL.into_iter().zip(files.chunks(2)) {
            assert_eq!(
                tree.pairs("d", split, None).unwrap(),
                [pair.join(" ")],
                "{split}"
            );
        }
        let source = Source::read(&tree.at("d"), None).unwrap();
        let (all, problems) = source.survey(None, None);
        let counts = (all.len(), problems.len(), source.unused.len());
        assert_eq!(counts, (3, 0, 0), "{layout}");
    }
}

#[test]
fn folders_that_only_resemble_splits_name_none() {
    for folder in [
        "train_test",
        "testing_site_2",
        "test_1",
        "ts",
        "imagesX",
        "data",
        "latest",
    ] {
        let tree = tree(&[&format!("d/{folder}/a.nii"), &format!("d/{folder}/a.csv")]);
        let source = Source::read(&tree.at("d"), None).unwrap();
        assert!(
            !Split::ALL.into_iter().any(|split| source.has(split, None)),
            "{folder}"
        );
    }
}

#[test]
fn splits_that_contradict_are_reported() {
    let two = tree(&[
        "d/train/val/a.nii",
        "d/train/val/a.csv",
        "d/train/b.nii",
        "d/train/b.csv",
    ]);
    two.problems(
        "d",
        Split::Train,
        None,
        &["a.nii' lies in folders of two splits, train and val"],
    );
    let outside = tree(&["d/train/a.nii", "d/train/a.csv", "d/b.nii", "d/b.csv"]);
    contain(
        &unused(&outside, "d"),
        &["!d/b.nii: lies in no folder of a split"],
    );
    let repeated = tree(&["d/train/x.nii", "d/test/x.nii", "d/landmarks/x.csv"]);
    let text = ["x.csv' may belong to '"];
    repeated.problems("d", Split::Train, None, &text);
}

#[test]
fn every_file_that_is_not_used_has_a_reason() {
    let tree = tree(&[
        "d/s0.csv",
        "d/s0.nii.gz",
        "d/s1.nii.gz",
        "d/s1_lm.csv",
        "d/s2.nii.gz",
        "d/orphan.fcsv",
        "d/s3.mha",
        "d/s3.csv",
        "d/README.txt",
        "d/notes.md",
        "d/participants.tsv",
        "d/s4.img",
    ]);
    assert_eq!(
        tree.pairs("d", Split::Train, None).unwrap(),
        ["d/s0.nii.gz d/s0.csv"]
    );
    for slice in 0..9 {
        tree.file(&format!("d/dicom/{slice}.dcm"), "");
    }
    contain(
        &unused(&tree, "d"),
        &[
            "d/dicom: holds 9 files such as '0.dcm', which is not used: only NIfTI is read | dcm2niix",
            "!d/orphan.fcsv: belongs to no scan: none has its name",
            "!d/s1.nii.gz: has no landmark file; | s1_lm.csv' has nearly the same name",
            "!d/s1_lm.csv: belongs to no scan: none has its name; | s1.nii.gz' has nearly",
            "d/s2.nii.gz: has no landmark file",
            "!d/s3.csv: belongs to no scan: none has its name; | s3.mha' has it, but only NIfTI",
            "d/s3.mha: is not used: only NIfTI is read",
            "!d/s4.img: is not used: there is no header (.hdr) of its name",
        ],
    );
    // Where nothing is left, the error says what is there.
    let none = super::tests::Tree::new(&["d/a.nii", "d/b.nii"]);
    let text = ["not used: '"];
    none.problems("d", Split::Train, None, &text);
}

#[test]
fn names_that_nearly_agree_are_suggested() {
    for (scan, landmarks, is_near) in [
        ("Case_01", "case_01", true),
        ("case_1", "case_001", true),
        ("s1", "s1_lm", true),
        ("patient-7", "patient7", true),
        ("heart_12", "haert_12", true),
        ("s1", "s2", false),
        ("case_12", "case_13", false),
        ("case_1", "case_10", false),
        ("scan", "orphan", false),
    ] {
        let tree = Tree::new(&["d/ok.nii", &format!("d/{scan}.nii")]);
        tree.file("d/ok.csv", POINTS)
            .file(&format!("d/{landmarks}.csv"), POINTS);
        let said = unused(&tree, "d").join("\n");
        assert_eq!(
            said.contains("nearly the same name"),
            is_near,
            "{scan} {landmarks}: {said}"
        );
        assert!(
            said.contains(&format!("{landmarks}.csv: belongs to no scan")),
            "{said}"
        );
    }
}

#[test]
fn four_digits_are_a_channel_only_where_the_landmarks_say_so() {
    let numbered = tree(&[
        "d/imagesTr/case_0001.nii.gz",
        "d/imagesTr/case_0002.nii.gz",
        "d/landmarksTr/case_0001.csv",
        "d/landmarksTr/case_0002.csv",
    ]);
    assert_eq!(
        numbered.pairs("d", Split::Train, None).unwrap(),
        [
            "d/imagesTr/case_0001.nii.gz d/landmarksTr/case_0001.csv",
            "d/imagesTr/case_0002.nii.gz d/landmarksTr/case_0002.csv",
        ]
    );
    assert!(unused(&numbered, "d").is_empty());
    // From 0: the first case is none of the channels.
    let from_0 = tree(&[
        "d/imagesTr/case_0000.nii.gz",
        "d/imagesTr/case_0001.nii.gz",
        "d/landmarksTr/case_0000.csv",
    ]);
    from_0.problems(
        "d",
        Split::Train,
        None,
        &["case_0001.nii.gz' has no landmark file; expected"],
    );
    let channels = tree(&[
        "d/imagesTr/case_0000.nii.gz",
        "d/imagesTr/case_0001.nii.gz",
        "d/landmarksTr/case.csv",
    ]);
    let pair = ["d/imagesTr/case_0000.nii.gz d/landmarksTr/case.csv"];
    assert_eq!(channels.pairs("d", Split::Train, None).unwrap(), pair);
    let said = ["d/imagesTr/case_0001.nii.gz: is channel 0001 of case 'case', of which only the"];
    contain(&unused(&channels, "d"), &said);
}

#[test]
fn bids_names_of_one_scan_belong_together() {
    let scan = "d/sub-01/anat/sub-01_T1w.nii.gz";
    for landmarks in [
        "d/sub-01/anat/sub-01_desc-groundtruth_afids.csv",
        "d/sub-01/anat/sub-01_afids.fcsv",
        "d/sub-01/anat/sub-01.mrk.json",
        "d/derivatives/landmarks/sub-01/anat/sub-01_T1w.csv",
        "d/derivatives/afids/sub-01/anat/sub-01_desc-groundtruth_afids.csv",
        "d/derivatives/afids/sub-01/sub-01_afids.csv",
        "d/landmarks/sub-01_T1w.csv",
    ] {
        let tree = tree(&[
            scan,
            landmarks,
            "d/dataset_description.json",
            "d/participants.tsv",
        ]);
        let pairs = tree.pairs("d", Split::Train, None).unwrap();
        assert_eq!(pairs, [format!("{scan} {landmarks}")]);
        assert!(unused(&tree, "d").is_empty());
    }
    // Other scans of the subject do not confuse, where names say which it is.
    let several = tree(&[
        scan,
        "d/sub-01/anat/sub-01_T1w.csv",
        "d/sub-01/anat/sub-01_T2w.nii.gz",
        "d/sub-01/anat/sub-01_T1w.json",
        "d/sub-01/anat/sub-01_dseg.nii.gz",
        "d/derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "d/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "d/sub-02/ses-1/anat/sub-02_ses-1_afids.csv",
        "d/sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
        "d/sub-02/ses-2/anat/sub-02_ses-2_afids.csv",
    ]);
    assert_eq!(
        several.pairs("d", Split::Train, None).unwrap(),
        [
            format!("{scan} d/sub-01/anat/sub-01_T1w.csv"),
            "d/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz d/sub-02/ses-1/anat/sub-02_ses-1_afids.csv"
                .to_owned(),
            "d/sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz d/sub-02/ses-2/anat/sub-02_ses-2_afids.csv"
                .to_owned(),
        ]
    );
    // Where they do not, nothing is guessed.
    let unclear = tree(&[
        scan,
        "d/sub-01/anat/sub-01_T2w.nii.gz",
        "d/sub-01/anat/sub-01_afids.csv",
        "d/sub-02/anat/sub-02_T1w.nii.gz",
        "d/sub-02/anat/sub-02_T1w.csv",
    ]);
    let said = unused(&unclear, "d").join("\n");
    assert!(said.contains("sub-01_T1w.nii.gz' or '"), "{said}");
    assert!(said.contains("name its scan in a manifest"), "{said}");
    // The subjects of two studies have the same numbers.
    let studies = tree(&[
        "d/a/sub-01/sub-01_T1w.nii",
        "d/a/sub-01/sub-01_afids.csv",
        "d/b/sub-01/sub-01_T1w.nii",
        "d/b/sub-01/sub-01_afids.csv",
    ]);
    assert_eq!(
        studies.pairs("d", Split::Train, None).unwrap(),
        [
            "d/a/sub-01/sub-01_T1w.nii d/a/sub-01/sub-01_afids.csv",
            "d/b/sub-01/sub-01_T1w.nii d/b/sub-01/sub-01_afids.csv",
        ]
    );
}

#[test]
fn several_raters_are_not_merged() {
    let tree = tree(&[
        "d/sub-01_T1w.nii",
        "d/sub-01_desc-a_afids.csv",
        "d/sub-01_desc-b_afids.csv",
    ]);
    tree.problems(
        "d",
        Split::Train,
        None,
        &["sub-01_T1w.nii' has several landmark files: "],
    );
}

#[test]
fn landmark_files_of_other_patients_are_never_taken() {
    let tree = tree(&[
        "d/p1/scan.nii",
        "d/p2/scan.csv",
        "d/p3/scan.nii",
        "d/p3/scan.csv",
    ]);
    let pairs = tree.pairs("d", Split::Train, None).unwrap();
    assert_eq!(pairs, ["d/p3/scan.nii d/p3/scan.csv"]);
    let said = [
        "d/p1/scan.nii: has no landmark file",
        "!d/p2/scan.csv: belongs to no scan",
    ];
    contain(&unused(&tree, "d"), &said);
}

#[test]
fn files_with_one_landmark_each_complete_each_other() {
    for (scan, ac, pc) in [
        ("d/a.nii", "d/a_AC.mrk.json", "d/a_PC.mrk.json"),
        ("d/a/scan.nii", "d/a/AC.mrk.json", "d/a/PC.mrk.json"),
        (
            "d/images/a.nii",
            "d/landmarks/a/AC.mrk.json",
            "d/landmarks/a/PC.mrk.json",
        ),
        (
            "d/sub-01_T1w.nii",
            "d/sub-01_AC.mrk.json",
            "d/sub-01_PC.mrk.json",
        ),
    ] {
        let tree = Tree::new(&[scan]);
        tree.file(ac, &one_point("AC")).file(pc, &one_point("PC"));
        let pairs = tree.pairs("d", Split::Train, None).unwrap();
        assert_eq!(pairs, [format!("{scan} {ac} + {pc}")]);
    }
    // Several landmarks in each: whose they are is not clear.
    let tables = tree(&["d/a.nii", "d/a_x.csv", "d/a_y.csv", "d/b.nii", "d/b.csv"]);
    let pairs = tables.pairs("d", Split::Train, None).unwrap();
    assert_eq!(pairs, ["d/b.nii d/b.csv"]);
    assert_eq!(unused(&tables, "d").len(), 3);
}

#[test]
fn names_in_two_unicode_forms_are_equal() {
    // "é" as one character, and as "e" with an accent, as macOS stores it.
    let tree = tree(&["d/images/caf\u{e9}.nii", "d/landmarks/cafe\u{301}.csv"]);
    let pairs = tree.pairs("d", Split::Train, None).unwrap();
    assert_eq!(
        pairs,
        ["d/images/caf\u{e9}.nii d/landmarks/cafe\u{301}.csv"]
    );
}
