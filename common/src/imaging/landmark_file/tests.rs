//! Tests of `landmark_file`.

mod damage;
mod file_names;
mod formats;
mod names;
mod spellings;
mod writing;

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::imaging::geometry::{Affine, AxisMap, Geometry, Pitch};

fn parse(text: &str) -> Result<LandmarkFile, LandmarkError> {
    LandmarkFile::parse(text.as_bytes(), Path::new("a/b.csv"))
}

fn positions(text: &str) -> Vec<Option<[f64; 3]>> {
    let points = parse(text).unwrap().points.into_iter();
    points.map(|p| p.position).collect()
}

fn ids(list: &[&str]) -> Vec<String> {
    list.iter().map(|&id| id.to_owned()).collect()
}

#[test]
fn the_header_of_a_csv_names_its_space() {
    let file = parse("name,x_ras_mm,y_ras_mm,z_ras_mm\nAC,1,2.5,-3\nPC,,,\nX,nan,1,2\n").unwrap();
    let expected = [
        (Some("AC"), Some([1.0, 2.5, -3.0]), 2),
        (Some("PC"), None, 3),
        (Some("X"), None, 4),
    ];
    for (point, (name, position, line)) in file.points.iter().zip(expected) {
        assert_eq!((point.name.as_deref(), point.position), (name, position));
        let place = Place::Line(line);
        assert_eq!((point.place, point.space), (place, Space::RasMm));
    }
    assert_eq!(file.points.len(), 3);
    // In millimetres the origin is a place like any other.
    let text = "Z_LPS_MM, name ,x_lps_mm,note,Y_lps_mm\n0,AC,0,hello,0";
    let point = &parse(text).unwrap().points[0];
    let expected = (Some([0.0; 3]), Space::LpsMm);
    assert_eq!((point.position, point.space), expected);
    let point = &parse("x_voxel,y_voxel,z_voxel\n1,2,3").unwrap().points[0];
    assert_eq!((&point.name, point.space), (&None, Space::Voxel));
    // Our own tables carry several spaces.
    let both = "name,x_voxel,y_voxel,z_voxel,x_ras_mm,y_ras_mm,z_ras_mm\nA,1,2,3,4,5,6";
    assert_eq!(positions(both), [Some([4.0, 5.0, 6.0])]);
}

#[test]
fn text_is_one_voxel_per_line() {
    let expected = [Some([1.0, 2.0, 3.0]), None, Some([0.0, 0.5, 0.0]), None];
    assert_eq!(positions("1,2,3\n0,0,0\n0,0.5,0\nnan,nan,nan\n"), expected);
    assert_eq!(positions("1 2\t3\n0 0 0\n 0  .5 0 \nNaN NaN NaN"), expected);
    assert_eq!(parse("1,2,3").unwrap().points[0].space, Space::Voxel);
}

#[test]
fn line_ends_marks_and_blank_lines_do_not_matter() {
    let csv = "\u{feff}name,x_ras_mm,y_ras_mm,z_ras_mm\r\n\r\nAC,1,2,3\r\n# later\r\n\r\nPC,4,5,6\r\n\r\n";
    let file = parse(csv).unwrap();
    let places: Vec<Place> = file.points.iter().map(|p| p.place).collect();
    assert_eq!(places, [3, 6].map(Place::Line));
    assert_eq!(file.points[1].position, Some([4.0, 5.0, 6.0]));
    let text = "\u{feff}1,2,3\r\n\r\n4,5,6\r\n\n";
    let expected = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].map(Some);
    assert_eq!(positions(text), expected);
    assert_eq!(parse(text).unwrap().points[1].place, Place::Line(3));
}

#[test]
fn errors_name_file_and_line() {
    let header = "name,x_ras_mm,y_ras_mm,z_ras_mm\n";
    let cases = [
        (
            "name,x,y,z\nAC,1,2,3".to_owned(),
            "a/b.csv:1: the header 'name,x,y,z' does not name",
        ),
        (
            "name,x_ras_mm,y_lps_mm,z_ras_mm\nAC,1,2,3".to_owned(),
            "accepted are name,x_ras_mm",
        ),
        (
            format!("{header}AC,1,two,3"),
            "a/b.csv:2: 'two' is not a number",
        ),
        (
            format!("{header}\n\nAC,1,2"),
            "a/b.csv:4: expected 4 columns as in the header, found 3",
        ),
        (
            format!("{header}AC,1,2,inf"),
            "a/b.csv:2: a position cannot be infinite",
        ),
        (
            format!("{header}AC,1,2,3\nAC,1,2,3"),
            "a/b.csv:3: 'AC' was already given at line 2",
        ),
        (
            "1,2,3\n\n1,2\n".to_owned(),
            "a/b.csv:3: expected three numbers x,y,z, found 2",
        ),
        (
            "1 2 3\n1 b 3\n".to_owned(),
            "a/b.csv:2: 'b' is not a number",
        ),
        ("1,2,3\n1,,3\n".to_owned(), "a/b.csv:2: '' is not a number"),
        (String::new(), "'a/b.csv' is empty"),
        ("\n \n".to_owned(), "'a/b.csv' is empty"),
        (header.to_owned(), "is a file without a single point"),
        (
            format!("{header}AC,\"1,5\",2,3"),
            "'1,5' is not a number; write a decimal point",
        ),
        ("{}".to_owned(), "is JSON without a list of 'markups'"),
        ("[1]".to_owned(), "is a JSON list"),
        ("<html>".to_owned(), "is XML or HTML"),
    ];
    for (text, expected) in cases {
        let found = parse(&text).unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
    let binary = LandmarkFile::parse(&[0x1f, 0x8b, 8, 0], Path::new("b"));
    let binary = binary.unwrap_err().to_string();
    let expected = "landmark file 'b' is not text: is it a scan?";
    assert!(binary.contains(expected), "{binary}");
    let gone = LandmarkFile::read(Path::new("no/such.csv"));
    let gone = gone.unwrap_err().to_string();
    let expected = "landmark file 'no/such.csv' cannot be read: ";
    assert!(gone.contains(expected), "{gone}");
}

#[test]
fn ids_are_names_or_numbers_and_never_wrap() {
    let csv = "name,x_voxel,y_voxel,z_voxel\nLM1,1,1,1\nLM2,2,2,2\n7,3,3,3\n";
    let file = parse(csv).unwrap();
    let found = |list: &[&str]| -> Vec<usize> {
        let selected = file.select(&ids(list)).unwrap();
        selected.iter().map(|s| s.index).collect()
    };
    assert_eq!(found(&["LM2", "0", "7", "2"]), [1, 0, 2, 2]);
    assert_eq!(file.ids(), ["LM1", "LM2", "7"]);
    for (id, expected) in [
        (
            "3",
            "landmark '3' is not in 'a/b.csv', which has numbers 0 to 2 and names LM1, LM2, 7",
        ),
        ("lm2", "did you mean 'LM2'?"),
        ("LM3", "did you mean 'LM1'?"),
        ("-1", "landmark '-1' is not in"),
        ("spleen", "names LM1, LM2, 7; where a scan lacks a landmark"),
    ] {
        let text = file.select(&ids(&["LM1", id])).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let file = parse("1,2,3\n4,5,6").unwrap();
    let text = file.find("13").unwrap_err().to_string();
    assert!(text.ends_with("which has numbers 0 to 1"), "{text}");
    assert_eq!(parse("1,2,3").unwrap().ids(), ["0"]);
}

/// 10×20×30 of ours; the file's x runs the other way.
fn geometry() -> Geometry {
    Geometry {
        affine: Affine::diagonal([2.0, 1.0, 1.0], [-8.0, -5.0, 1.0]),
        axis_map: AxisMap {
            axes: [(0, true), (1, false), (2, false)],
            file_dims: [10, 20, 30],
            pitch: [Pitch::SAME; 3],
        },
        ..Geometry::straight([10, 20, 30], [2.0, 1.0, 1.0])
    }
}

#[test]
fn every_space_leads_to_the_same_voxel() {
    for header_and_row in [
        "x_ras_mm,y_ras_mm,z_ras_mm\n-2,-1,6",
        "x_lps_mm,y_lps_mm,z_lps_mm\n2,1,6",
        "x_voxel,y_voxel,z_voxel\n6,4,5",
        "6 4 5",
    ] {
        let file = parse(header_and_row).unwrap();
        let voxel = file.locate(&file.points[0], "0", "s", &geometry()).unwrap();
        assert_eq!(voxel, Some([3.0, 4.0, 5.0]), "{header_and_row}");
    }
    let file = parse("0 0 0").unwrap();
    let voxel = file.locate(&file.points[0], "0", "s", &geometry()).unwrap();
    assert_eq!(voxel, None);
}

#[test]
fn a_landmark_outside_names_scan_landmark_position_and_dims() {
    let file = parse("0,19.4,0\n0,19.6,0\n0,-0.6,0").unwrap();
    assert!(file.locate(&file.points[0], "0", "s", &geometry()).is_ok());
    assert!(file.locate(&file.points[2], "2", "s", &geometry()).is_err());
    let error = file.locate(&file.points[1], "AC", "head7", &geometry());
    let text = error.unwrap_err().to_string();
    for part in [
        "a/b.csv:2",
        "'AC'",
        "[0.0, 19.6, 0.0]",
        "voxel of the file",
        "'head7'",
        "[10, 20, 30]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = LandmarkFile::parse(&bytes, Path::new("x"));
    }

    #[test]
    fn random_text_never_panics(text in "[0-9a-z,.\"# \r\n\\-]{0,80}", header in any::<bool>()) {
        let text = if header { format!("name,x_voxel,y_voxel,z_voxel\n{text}") } else { text };
        if let Ok(file) = parse(&text) {
            for point in &file.points {
                prop_assert!(point.position.is_none_or(|p| p.iter().all(|v| v.is_finite())));
            }
        }
    }
}
