//! Tests of `merge`.

use std::path::Path;

use super::*;

fn one(path: &str, label: &str, x: u32) -> LandmarkFile {
    let text = format!(
        r#"{{"markups": [{{"controlPoints": [{{"label": "{label}", "position": [{x}, 2, 3]}}]}}]}}"#
    );
    LandmarkFile::parse(text.as_bytes(), Path::new(path)).unwrap()
}

fn merged(scan: &str, files: Vec<LandmarkFile>) -> Result<LandmarkFile, LandmarkError> {
    LandmarkFile::merge(Path::new("d"), scan, files)
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
        let file = merged(scan, vec![one(path, label, 1)]).unwrap();
        assert_eq!(file.ids(), [expected], "{path} {label}");
        assert_eq!(file.points[0].file.as_deref(), Some(Path::new(path)));
    }
}

#[test]
fn files_of_one_scan_make_one_and_errors_name_the_file() {
    let text = "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,1,,3\nB,4,5,6\n";
    let table = LandmarkFile::parse(text.as_bytes(), Path::new("d/t.csv")).unwrap();
    let all = vec![
        one("d/AC.mrk.json", "F-1", 7),
        one("d/PC.mrk.json", "F-1", 8),
        table.clone(),
    ];
    let file = merged("s", all).unwrap();
    assert_eq!(file.ids(), ["AC", "PC", "A", "B"]);
    assert_eq!(
        file.find("PC").unwrap().point.position,
        Some([8.0, 2.0, 3.0])
    );
    let expected = "t.csv: some coordinates of 'A' are missing: counted as missing";
    assert_eq!(
        (file.path.as_path(), &file.warnings[..]),
        (Path::new("d"), &[expected.to_owned()][..])
    );
    let geometry = crate::imaging::geometry::Geometry::straight([4; 3], [1.0; 3]);
    let error = file
        .locate(&file.points[1], "PC", "s", &geometry)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("d/PC.mrk.json: markup 1, control point 1: landmark 'PC'"),
        "{error}"
    );
    let twice = vec![table, one("d/A.mrk.json", "F-1", 1)];
    let error = merged("s", twice).unwrap_err().to_string();
    let expected = "d/A.mrk.json: markup 1, control point 1: 'A' was already given by 'd/t.csv'";
    assert_eq!(error, expected);
    let numbers = LandmarkFile::parse(b"1 2 3\n4 5 6\n", Path::new("d/n.txt")).unwrap();
    let error = merged("s", vec![numbers]).unwrap_err().to_string();
    assert!(
        error.starts_with("d/n.txt:1: a point without a name, in one of several"),
        "{error}"
    );
}
