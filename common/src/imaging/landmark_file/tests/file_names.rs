//! Tests of `file_name`.

use std::path::Path;

use super::*;

fn one(path: &str, label: &str) -> LandmarkFile {
    let text = format!(
        r#"{{"markups": [{{"controlPoints": [{{"label": "{label}", "position": [1, 2, 3]}}]}}]}}"#
    );
    LandmarkFile::parse(text.as_bytes(), Path::new(path)).unwrap()
}

#[test]
fn a_single_point_without_a_name_of_its_own_has_its_files() {
    for (scan, path, label, expected) in [
        // 3D Slicer's labels of lists that were called 'AC', or nothing.
        ("s1", "d/AC.mrk.json", "AC-1", "AC"),
        ("s1", "d/AC.mrk.json", "F-1", "AC"),
        ("s1", "d/AC.mrk.json", "PointList-3", "AC"),
        ("s1", "d/AC.mrk.json", "1", "AC"),
        ("s1", "d/AC.mrk.json", "", "AC"),
        ("s1", "d/s1_AC.mrk.json", "F-1", "AC"),
        ("s1", "d/s1/AC.json", "F-1", "AC"),
        ("sub-01_T1w", "d/sub-01_AC.mrk.json", "F_1", "AC"),
        (
            "sub-01_T1w",
            "d/sub-01_T1w_left-eye.mrk.json",
            "F-1",
            "left-eye",
        ),
        ("AX", "d/AC.MRK.JSON", "F-1", "AC"),
        ("s1", "d/s10_AC.fcsv", "F-1", "s10_AC"),
        ("s1", "d/Scha\u{308}del.mrk.json", "F-1", "Sch\u{e4}del"),
        // Names that a person gave stay.
        (
            "s1",
            "d/AC.mrk.json",
            "anterior commissure",
            "anterior commissure",
        ),
        ("s1", "d/x.mrk.json", "L5-1", "L5-1"),
        ("s1", "d/s1.mrk.json", "F-1", "s1"),
    ] {
        let file = one(path, label).named_by_file(scan);
        assert_eq!(file.ids(), [expected], "{path} {label}");
    }
    let two = LandmarkFile::parse(b"1 2 3\n4 5 6\n", Path::new("d/AC.txt")).unwrap();
    assert_eq!(two.named_by_file("s1").ids(), ["0", "1"]);
}
