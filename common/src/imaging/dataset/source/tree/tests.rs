//! Tests of `tree`: files of other people and of other kinds never become a scan's
//! landmarks, and each file of a kind that may be meant has a reason.

use super::super::tests::{Tree, joined};
use super::super::*;

const POINTS: &str = "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,1,2,3\nB,1,2,4\n";
const CLINICAL: &str = "age,sex,score\n71,f,3\n64,m,5\n";

/// One control point, as in a file of 3D Slicer with one landmark.
const ONE: &str = r#"{"markups": [{"coordinateSystem": "LPS", "controlPoints": [
    {"label": "F-1", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"}]}]}"#;

/// A tree of files by their endings: `.csv` holds two landmarks, `.mrk.json` one, and
/// `=` gives another text.
fn tree(files: &[&str]) -> Tree {
    let tree = Tree::new(&[]);
    for file in files {
        let (name, text) = match file.split_once('=') {
            Some(both) => both,
            None if file.ends_with(".csv") => (*file, POINTS),
            None if file.ends_with(".mrk.json") => (*file, ONE),
            None if file.ends_with(".fcsv") => (*file, POINTS),
            None => (*file, ""),
        };
        tree.file(&format!("d/{name}"), text);
    }
    tree
}

/// `scan file + file` of each pair, below `d`, and `path: reason` of the unused.
fn read(files: &[&str]) -> Result<(Vec<String>, Vec<String>), String> {
    let tree = tree(files);
    let pairs = tree.pairs("d", Split::Train, None)?;
    let source = Source::read(&tree.at("d"), None).map_err(|e| joined(&e))?;
    let unused = source.unused.iter().map(|unused| {
        let mark = if unused.mistake { "!" } else { "" };
        let root = format!("{}/", tree.at("d").display());
        let reason = unused.reason.replace(&root, "");
        let path = tree.short(&unused.path);
        format!("{mark}{}: {reason}", path.trim_start_matches("d/"))
    });
    let pairs = pairs.iter().map(|pair| pair.replace("d/", ""));
    Ok((pairs.collect(), unused.collect()))
}

/// A pair that is always there.
const OK: [&str; 2] = ["ok/x.nii", "ok/x.csv"];

/// The pairs of some files apart from [`OK`], and the unused ones.
fn beside_ok(files: &[&str]) -> (Vec<String>, Vec<String>) {
    let files: Vec<&str> = OK.iter().chain(files).copied().collect();
    let (mut pairs, unused) = read(&files).unwrap_or_else(|error| panic!("{files:?}: {error}"));
    pairs.retain(|pair| *pair != OK.join(" "));
    (pairs, unused)
}

#[test]
fn files_of_other_people_are_never_taken() {
    let rows: [&[&str]; 18] = [
        // BIDS subjects of two studies, and of another session.
        &["a/sub-01/sub-01_T1w.nii", "b/sub-01/sub-01_afids.csv"],
        &[
            "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii",
            "sub-02/ses-2/anat/sub-02_afids.csv",
        ],
        &[
            "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii",
            "derivatives/l/sub-02/ses-2/sub-02_afids.csv",
        ],
        &["sub-02/sub-02_T1w.nii", "sub-03/sub-02_afids.csv"],
        // Predictions that were exported.
        &[
            "sub-02_T1w.nii",
            "out/sub-02_T1w.mrk.json",
            "out/sub-02_T1w.fcsv",
            "out/sub-02_T1w.csv",
        ],
        &["sub-02/anat/sub-02_T1w.nii", "sub-02/out/sub-02_T1w.csv"],
        // In the space of the raw scan, which is not there.
        &[
            "derivatives/p/sub-01/anat/sub-01_desc-preproc_T1w.nii",
            "sub-01/anat/sub-01_afids.csv",
        ],
        &[
            "derivatives/p/sub-01/anat/sub-01_T1w.nii",
            "sub-01/anat/sub-01_T1w.csv",
        ],
        // One landmark per file.
        &["s1.nii", "s2_AC.mrk.json", "s2_PC.mrk.json"],
        &[
            "heads/s1.nii",
            "heads/s2_AC.mrk.json",
            "heads/s2_PC.mrk.json",
        ],
        &["heads/s1.nii", "heads/s2.mrk.json", "heads/s3.mrk.json"],
        &[
            "heads/CT.nii",
            "heads/s2_AC.mrk.json",
            "heads/s3_AC.mrk.json",
        ],
        &[
            "images/s1.nii",
            "landmarks/s2_AC.mrk.json",
            "landmarks/s2_PC.mrk.json",
        ],
        &["s1.nii", "s1_2_AC.mrk.json", "s1_2_PC.mrk.json"],
        &["s1_T1.nii", "s1_T2_AC.mrk.json", "s1_T2_PC.mrk.json"],
        &["sub-01_T1w.nii", "sub-01_ses-2_AC.mrk.json"],
        &["p1/scan.nii", "p1/Markups.mrk.json"],
        &["p1/scan.nii", "p1/s2_AC.mrk.json", "p1/s2_PC.mrk.json"],
    ];
    for files in rows {
        let (pairs, unused) = beside_ok(files);
        assert!(pairs.is_empty(), "{files:?}: {pairs:?}");
        for file in files {
            let named = unused.iter().any(|line| line.contains(file));
            assert!(named, "{file} in {unused:#?}");
        }
    }
}

#[test]
fn files_of_one_landmark_are_merged_beside_files_of_other_kinds() {
    let rows: [(&[&str], &[&str]); 7] = [
        (
            &[
                "a/scan.nii",
                "a/AC.mrk.json",
                "a/PC.mrk.json",
                "a/protocol.txt=TE 3 ms",
            ],
            &["a/scan.nii a/AC.mrk.json + a/PC.mrk.json"],
        ),
        (
            &[
                "a.nii",
                "a_AC.mrk.json",
                "a_PC.mrk.json",
                "a_info.json={\"TE\": 3}",
            ],
            &["a.nii a_AC.mrk.json + a_PC.mrk.json"],
        ),
        (
            &[
                "a_T1w.nii",
                "a_AC.mrk.json",
                "a_PC.mrk.json",
                "a.csv=age,sex\n3,f\n",
            ],
            &["a_T1w.nii a_AC.mrk.json + a_PC.mrk.json"],
        ),
        // A data set with one landmark.
        (
            &["a.nii", "b.nii", "a_AC.mrk.json", "b_AC.mrk.json"],
            &["a.nii a_AC.mrk.json", "b.nii b_AC.mrk.json"],
        ),
        (
            &[
                "images/a.nii",
                "landmarks/a_AC.mrk.json",
                "landmarks/a_PC.mrk.json",
            ],
            &["images/a.nii landmarks/a_AC.mrk.json + landmarks/a_PC.mrk.json"],
        ),
        (
            &["p7/T1.nii", "p7/p7_AC.mrk.json", "p7/p7_PC.mrk.json"],
            &["p7/T1.nii p7/p7_AC.mrk.json + p7/p7_PC.mrk.json"],
        ),
        // Reading the broken one says what is wrong with it.
        (
            &["a.nii", "a_AC.mrk.json", "a_PC.mrk.json={\"markups\": 3}"],
            &["a.nii a_AC.mrk.json + a_PC.mrk.json"],
        ),
    ];
    for (files, expected) in rows {
        assert_eq!(beside_ok(files).0, expected);
    }
}

#[test]
fn tables_of_other_kinds_do_not_stop_a_data_set() {
    let clinical = |name: &str| format!("{name}={CLINICAL}");
    let pair: [&str; 2] = ["images/a.nii", "images/a.csv"];
    for file in [
        "labels/labels.csv=label,name\n0,AC\n1,PC\n",
        "labels/classes.txt=skull\nbrain\n",
        "annotations/descriptions.tsv=id\ttext\n1\tclear\n",
        "points/participants.tsv=participant_id\tage\ns1\t3\n",
        "x/landmarks/deep/participants.tsv=id\tage\ns1\t3\n",
        &clinical("derivatives/qc/a.csv"),
        &clinical("derivatives/qc/images/a.tsv"),
    ] {
        let (pairs, unused) = beside_ok(&[pair[0], pair[1], "images/bare.nii", file]);
        assert_eq!(pairs, [pair.join(" ")], "{file}");
        assert_eq!(unused, ["images/bare.nii: has no landmark file"], "{file}");
    }
    // Where the folder's other files are landmarks, too.
    let used = [
        "images/a.nii",
        "landmarks/a.csv",
        "images/b.nii",
        "landmarks/b.csv",
    ];
    for note in [
        "landmarks/participants.tsv=id\tage\ns1\t3\n",
        "landmarks/names.csv=n\nAC\n",
    ] {
        let files: Vec<&str> = used.iter().copied().chain([note]).collect();
        let (pairs, unused) = beside_ok(&files);
        assert_eq!((pairs.len(), unused.len()), (2, 0), "{unused:?}");
    }
}

#[test]
fn tables_that_are_no_landmarks_neither_displace_nor_stop() {
    let clinical = |name: &str| format!("{name}={CLINICAL}");
    let qc = clinical("derivatives/qc/sub-01/anat/sub-01_T1w.csv");
    let bids = "sub-01/anat/sub-01_T1w.nii";
    let afids = "sub-01/anat/sub-01_afids.csv";
    let rows: [(&[&str], &[&str]); 5] = [
        (&[bids, &qc], &[]),
        (
            &[bids, afids, &qc],
            &["sub-01/anat/sub-01_T1w.nii sub-01/anat/sub-01_afids.csv"],
        ),
        (
            &["p2_T1w.nii", "p2_T1w_fids.mrk.json", &clinical("p2.csv")],
            &["p2_T1w.nii p2_T1w_fids.mrk.json"],
        ),
        (
            &["p2.nii", "p2.mrk.json", &clinical("p2.csv")],
            &["p2.nii p2.mrk.json"],
        ),
        // No other file: reading it says what is wrong.
        (&["p2.nii", &clinical("p2.csv")], &["p2.nii p2.csv"]),
    ];
    for (files, expected) in rows {
        assert_eq!(beside_ok(files).0, expected, "{files:?}");
    }
    let (_, unused) = beside_ok(&["p2_T1w.nii", &clinical("p2.csv")]);
    assert!(
        unused[0].starts_with("!p2.csv: is not used, and cannot be read"),
        "{unused:?}"
    );
}

#[test]
fn json_with_markups_is_kept_so_that_its_error_is_shown() {
    let broken = r#"a.json={"markups": [{"coordinateSystem": "XYZ", "controlPoints": []}]}"#;
    assert_eq!(beside_ok(&["a.nii", broken]).0, ["a.nii a.json"]);
    let sidecar = r#"a.json={"EchoTime": 0.003}"#;
    let (pairs, unused) = beside_ok(&["a.nii", sidecar]);
    assert!(pairs.is_empty());
    assert_eq!(unused, ["a.nii: has no landmark file"]);
    let large = format!(
        r#"a.json={{"markups": [{{"controlPoints": [{}]}}]}}"#,
        vec![r#"{"label": "A", "position": [1, 2, 3]}"#; 2000].join(",")
    );
    assert_eq!(beside_ok(&["a.nii", &large]).0, ["a.nii a.json"]);
}

#[test]
fn of_two_scans_with_one_name_the_first_is_used() {
    let rows: [(&[&str], &str, &str); 2] = [
        (
            &["a.nii", "a.nii.gz", "a.csv"],
            "a.nii a.csv",
            "!a.nii.gz: ",
        ),
        (
            &["a.hdr", "a.img", "a.nii", "a.csv"],
            "a.hdr a.csv",
            "!a.nii: ",
        ),
    ];
    for (files, pair, unused) in rows {
        let (pairs, said) = beside_ok(files);
        assert_eq!(pairs, [pair]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(unused), "{said:?}");
        assert!(said[0].contains("has the same name as 'a."), "{said:?}");
    }
}

#[test]
fn many_files_with_one_reason_are_one_line_with_their_count() {
    let files: Vec<String> = (1..=5).map(|n| format!("s/{n}/x{n}.nii")).collect();
    let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
    files.extend(["s/a.mha", "s/b.mha"]);
    let (_, unused) = beside_ok(&files);
    assert_eq!(unused.len(), 3, "{unused:#?}");
    let line = "s: holds 5 files such as '1/x1.nii', which has no landmark file";
    assert_eq!(unused[0], line);
    let tree = tree(&[&files[..], &OK].concat());
    let source = Source::read(&tree.at("d"), None).unwrap();
    let counts = source.unused.iter().map(|unused| unused.count);
    assert_eq!(counts.sum::<usize>(), 7);
}

#[test]
fn a_plain_split_folder_says_more_than_one_with_another_word() {
    for (folder, split) in [
        ("test_data/train", Split::Train),
        ("test_data/images/val", Split::Validation),
        ("train_set/x/test", Split::Test),
        ("test_data", Split::Test),
    ] {
        let (scan, table) = (format!("{folder}/a.nii"), format!("{folder}/a.csv"));
        let tree = tree(&[&scan, &table]);
        let pairs = tree.pairs("d", split, None);
        assert_eq!(pairs, Ok(vec![format!("d/{scan} d/{table}")]));
    }
}

#[test]
fn only_the_beginning_of_a_file_says_what_it_is() {
    use super::content::Content;
    let tree = Tree::new(&[]);
    let rows = "A,1,2,3\n".repeat(9000);
    let many = rows.lines().zip(0..);
    let many: String = many.map(|(row, n)| format!("{n}{row}\n")).collect();
    let header = "name,x_ras_mm,y_ras_mm,z_ras_mm\n";
    let binary = "\0\u{1}".repeat(50);
    for (text, is_landmarks) in [
        (format!("{header}{many}"), true),
        (format!("{header}{many}{binary}"), true),
        (format!("age,sex\n{many}"), false),
        (binary, false),
        (String::new(), false),
    ] {
        tree.file("t.csv", &text);
        let content = Content::of(&tree.at("t.csv"));
        assert_eq!(content.is_landmarks(), is_landmarks, "{}", content.problem);
        assert!(content.points.is_none_or(|count| count < 9000));
    }
    assert!(!Content::of(&tree.at("gone")).is_landmarks());
    assert!(!Content::of(&tree.at("")).is_landmarks());
}
