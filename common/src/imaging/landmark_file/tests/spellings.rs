//! Tests of files as other programs, systems and people spell them.
//!
//! The positions of `A` to `D` are those of the file that each spelling was made from,
//! in RAS mm and as voxels.

use std::path::Path;

use super::*;

const RAS: [[f64; 3]; 4] = [
    [-3.5, 7.8, 12.75],
    [9.5, 0.6, 2.25],
    [0.5, -12.6, 17.25],
    [5.5, -6.6, -3.75],
];

const VOXELS: [[f64; 3]; 4] = [
    [25.5, 31.5, 20.5],
    [12.5, 25.5, 13.5],
    [21.5, 14.5, 23.5],
    [16.5, 19.5, 9.5],
];

pub(super) fn read(name: &str, bytes: impl AsRef<[u8]>) -> LandmarkFile {
    LandmarkFile::parse(bytes.as_ref(), Path::new(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// The positions of four landmarks in RAS mm, or as voxels.
#[track_caller]
pub(super) fn assert_positions(
    file: &LandmarkFile,
    ids: [&str; 4],
    missing: &[usize],
    context: &str,
) {
    for (number, id) in ids.iter().enumerate() {
        let point = file
            .find(id)
            .unwrap_or_else(|e| panic!("{context}: {e}"))
            .point;
        let expected = match point.space {
            Space::Voxel => VOXELS[number],
            Space::RasMm => RAS[number],
            Space::LpsMm => {
                let [x, y, z] = RAS[number];
                [-x, -y, z]
            }
        };
        match point.position {
            None => assert!(missing.contains(&number), "{context}: {id} is missing"),
            Some(found) => {
                let near = (0..3).all(|i| (found[i] - expected[i]).abs() < 1e-9);
                assert!(
                    near && !missing.contains(&number),
                    "{context}: {id} at {found:?}"
                );
            }
        }
    }
}

pub(super) const NAMES: [&str; 4] = ["A", "B", "C", "D"];
const NUMBERS: [&str; 4] = ["0", "1", "2", "3"];

/// A markups file of four points, of which each has this inside besides its position.
pub(super) fn markups(space: &str, points: [&str; 4], positions: [&str; 4]) -> String {
    let points: Vec<String> = points
        .iter()
        .zip(positions)
        .map(|(point, position)| format!("{{{point}, \"position\": {position}}}"))
        .collect();
    format!(
        "{{\"markups\": [{{\"coordinateSystem\": {space}, \"controlPoints\": [{}]}}]}}",
        points.join(",")
    )
}

pub(super) const JSON: [&str; 4] = [
    "[-3.5, 7.8, 12.75]",
    "[9.5, 0.6, 2.25]",
    "[0.5, -12.6, 17.25]",
    "[5.5, -6.6, -3.75]",
];
const LABELS: [&str; 4] = [
    "\"label\": \"A\"",
    "\"label\": \"B\"",
    "\"label\": \"C\"",
    "\"label\": \"D\"",
];

const TABLE: &str = "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,-3.5,7.8,12.75\nB,9.5,0.6,2.25\n\
    C,0.5,-12.6,17.25\nD,5.5,-6.6,-3.75\n";

#[test]
fn tables_are_read_as_spreadsheet_programs_write_them() {
    let euro = TABLE.replace(',', ";").replace('.', ",");
    let missing = |word: &str| TABLE.replace("B,9.5,0.6,2.25", &format!("B,{word},{word},{word}"));
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let cases: [(&str, Vec<u8>, &[usize]); 19] = [
        ("; and decimal commas", euro.clone().into(), &[]),
        (
            "tabs and decimal commas",
            euro.replace(';', "\t").into(),
            &[],
        ),
        (
            "sep=;",
            format!("sep=;\n{}", TABLE.replace(',', ";")).into(),
            &[],
        ),
        (
            "sep=; and decimal commas",
            format!("sep=;\r\n{}", euro.replace('\n', "\r\n")).into(),
            &[],
        ),
        ("sep=,", format!("SEP=,\n{TABLE}").into(), &[]),
        ("n/a", missing("n/a").into(), &[1]),
        ("NA", missing("NA").into(), &[1]),
        ("empty cells", missing("").into(), &[1]),
        ("NaN", missing("NaN").into(), &[1]),
        ("#N/A", missing("#N/A").into(), &[1]),
        ("spaces", TABLE.replace(',', "  ").into(), &[]),
        ("spaces round cells", TABLE.replace(',', " , ").into(), &[]),
        (
            "delimiters at the end of rows",
            TABLE.replace('\n', ",,\n").replace("mm,,", "mm").into(),
            &[],
        ),
        (
            "delimiters at every end",
            TABLE.replace('\n', ",\n").into(),
            &[],
        ),
        ("old Mac's lines", TABLE.replace('\n', "\r").into(), &[]),
        (
            "quoted numbers",
            TABLE.replace("-3.5", "\"-3.5\"").into(),
            &[],
        ),
        (
            "other case",
            TABLE
                .replace("x_ras_mm", "X_RAS_mm ")
                .replace("name", "Name")
                .into(),
            &[],
        ),
        ("UTF-16", utf16(&format!("\u{feff}{TABLE}")), &[]),
        (
            "UTF-16 with tabs and no mark",
            utf16(&TABLE.replace(',', "\t")),
            &[],
        ),
    ];
    for (name, bytes, missing) in cases {
        let file = read("t", bytes);
        assert_positions(&file, NAMES, missing, name);
        assert_eq!((file.points.len(), file.warnings.len()), (4, 0), "{name}");
    }
}

#[test]
fn numbers_that_could_be_misread_are_refused_with_the_cause() {
    let header = "name;x_ras_mm;y_ras_mm;z_ras_mm\n";
    for (row, expected) in [
        (
            "A;1,5;2.5;3\n",
            "t:2: '2.5' has a decimal point, but numbers before have a decimal comma",
        ),
        (
            "A;1.5;2;3\nB;1,5;2;3\n",
            "t:3: '1,5' has a decimal comma, but numbers before have a",
        ),
        (
            "A;1.234,5;2;3\n",
            "'1.234,5' is not a number; write it without separators of thousands",
        ),
        (
            "A;1,234.5;2;3\n",
            "'1,234.5' is not a number; write it without separators of thousands",
        ),
        ("A;1'234.5;2;3\n", "without separators of thousands"),
        ("A;1 234.5;2;3\n", "without separators of thousands"),
        (
            "A;1\u{a0}234;2;3\n",
            "'\u{a0}' (U+00A0) is none of the plain digits",
        ),
        (
            "A;\u{2212}3.5;2;3\n",
            "'\u{2212}' (U+2212) is none of the plain digits, signs",
        ),
        ("A;\u{ff11}\u{ff12};2;3\n", "(U+FF11)"),
        (
            "A;12.5 mm;2;3\n",
            "'12.5 mm' is not a number; write it without a unit",
        ),
        (
            "A;-;2;3\n",
            "'-' is not a number; where a landmark is missing, leave its cells empty",
        ),
        ("A;lost;2;3\n", "or write n/a"),
        (
            "A;1;2;3;4\n",
            "expected 4 columns as in the header, found 5",
        ),
    ] {
        let text = format!("{header}{row}");
        let found = LandmarkFile::parse(text.as_bytes(), Path::new("t"));
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
    for (row, expected) in [
        (
            "A,\"1,234\",2,3",
            "'1,234' is not a number; write a decimal point",
        ),
        (
            "A,1,5,2,5,3,5",
            "found 7; if a comma is the decimal sign, separate the columns by ';'",
        ),
    ] {
        let text = format!("name,x_ras_mm,y_ras_mm,z_ras_mm\n{row}\n");
        let found = LandmarkFile::parse(text.as_bytes(), Path::new("t"));
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
}

#[test]
fn text_without_names_is_read_with_any_delimiter() {
    let brain = "25.5,31.5,20.5\n12.5,25.5,13.5\n21.5,14.5,23.5\n16.5,19.5,9.5\n";
    let spaced = brain.replace(',', " ");
    let lps = "3.5 -7.8 12.75\n-9.5 -0.6 2.25\n-0.5 12.6 17.25\n-5.5 6.6 -3.75\n";
    let cases: [(&str, String); 13] = [
        ("commas at line ends", brain.replace('\n', ",\n")),
        ("commas and spaces", brain.replace(',', ", ")),
        ("semicolons", brain.replace(',', ";")),
        (
            "semicolons and decimal commas",
            brain.replace(',', ";").replace('.', ","),
        ),
        ("spaces and decimal commas", spaced.replace('.', ",")),
        ("old Mac's lines", brain.replace('\n', "\r")),
        ("missing", spaced.replace("12.5 25.5 13.5", "n/a n/a n/a")),
        ("elastix's index", format!("index\n4\n{spaced}")),
        ("elastix's point", format!("point\n4\n{lps}")),
        (
            "in other case",
            format!("Point\r\n4\r\n{}", lps.replace('\n', "\r\n")),
        ),
        ("elastix's index without the word", format!("4\n{spaced}")),
        (
            "elastix's point in UTF-8 with a mark",
            format!("\u{feff}point\n4\n{lps}"),
        ),
        ("a mark inside", format!("{brain}\u{feff}")),
    ];
    for (name, text) in cases {
        let file = read("t.txt", &text);
        let missing: &[usize] = if name == "missing" { &[1] } else { &[] };
        assert_positions(&file, NUMBERS, missing, name);
        assert_eq!(file.points.len(), 4, "{name}");
        let space = if text.contains("oint") {
            Space::LpsMm
        } else {
            Space::Voxel
        };
        assert!(file.points.iter().all(|p| p.space == space), "{name}");
    }
    // elastix knows no missing points.
    let corner = read("t", "index\n1\n0 0 0\n");
    assert_eq!(corner.points[0].position, Some([0.0; 3]));
}

#[test]
fn text_without_names_that_cannot_be_read_names_the_cause() {
    for (text, expected) in [
        (
            "25,5,31,5,20,5\n",
            "t.txt:1: expected three numbers x,y,z, found 6; if a comma is the",
        ),
        (
            "\u{2212}3.5 7 8\n",
            "t.txt:1: '\u{2212}3.5' is not a number: '\u{2212}' (U+2212)",
        ),
        (
            "index\n4\n1 2 3\n",
            "t.txt:3: the file declares 4 points, but has 1",
        ),
        (
            "point\nA\n1 2 3\n",
            "t.txt:2: expected the number of points, found 'A'",
        ),
        (
            "point\n1\n1 2\n",
            "t.txt:3: expected three numbers x,y,z, found 2",
        ),
        ("25,5 31.5 20\n", "use one of the two"),
        (
            "Point\t0\t; InputIndex = [ 1 2 3 ]\t; OutputPoint = [ 1.5 2 3 ]\n",
            "'t.txt' is transformix's list of points before and after: write the three",
        ),
    ] {
        let found = LandmarkFile::parse(text.as_bytes(), Path::new("t.txt"));
        let found = found.unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
}

#[test]
fn markups_are_read_as_other_programs_write_them() {
    let lps = [
        "[3.5, -7.8, 12.75]",
        "[-9.5, -0.6, 2.25]",
        "[-0.5, 12.6, 17.25]",
        "[-5.5, 6.6, -3.75]",
    ];
    let second = |position| [JSON[0], position, JSON[2], JSON[3]];
    let words = ["[\"-3.5\", \"7.8\", 12.75]", JSON[1], JSON[2], JSON[3]];
    let cases: [(&str, String, &[usize]); 11] = [
        ("system as text 0", markups("\"0\"", LABELS, JSON), &[]),
        ("system as number 0", markups("0", LABELS, JSON), &[]),
        ("system as number 1", markups("1", LABELS, lps), &[]),
        (
            "system in lower case",
            markups("\"ras\"", LABELS, JSON),
            &[],
        ),
        ("no system", markups("null", LABELS, lps), &[]),
        (
            "NaN",
            markups("\"RAS\"", LABELS, second("[NaN, NaN,NaN]")),
            &[1],
        ),
        (
            "null",
            markups("\"RAS\"", LABELS, second("[null, null, null]")),
            &[1],
        ),
        (
            "NaN as text",
            markups("\"RAS\"", LABELS, second("[\"nan\", \"\", \"n/a\"]")),
            &[1],
        ),
        ("numbers as text", markups("\"RAS\"", LABELS, words), &[]),
        (
            "byte order mark",
            format!("\u{feff}{}", markups("\"RAS\"", LABELS, JSON)),
            &[],
        ),
        (
            "old Mac's lines",
            markups("\"RAS\"", LABELS, JSON).replace(',', ",\r"),
            &[],
        ),
    ];
    for (name, text, missing) in cases {
        let file = read("m.mrk.json", &text);
        assert_positions(&file, NAMES, missing, name);
        assert_eq!(file.warnings, [""; 0], "{name}");
    }
    let labels = [
        "\"label\": 1",
        "\"label\": 2",
        "\"label\": 3",
        "\"label\": 4",
    ];
    let file = read("m", markups("\"RAS\"", labels, JSON));
    assert_positions(&file, ["1", "2", "3", "4"], &[], "labels as numbers");
    assert_eq!(file.ids(), ["1", "2", "3", "4"]);
    // Words in texts stay what they are.
    let labels = [
        r#""label": "NaN \" Infinity""#,
        LABELS[1],
        LABELS[2],
        LABELS[3],
    ];
    let file = read("m", markups("\"RAS\"", labels, second("[NaN, NaN, NaN]")));
    assert_eq!(file.points[0].name.as_deref(), Some("NaN \" Infinity"));
}

#[test]
fn control_points_with_a_position_do_not_vanish() {
    let status = |words: [&str; 4]| -> [String; 4] {
        [0, 1, 2, 3].map(|i| format!("{}, \"positionStatus\": \"{}\"", LABELS[i], words[i]))
    };
    let read_with = |words, positions| {
        let points = status(words);
        let points = [0, 1, 2, 3].map(|i| points[i].as_str());
        read("m", markups("\"RAS\"", points, positions))
    };
    // As programs that find landmarks write them.
    let file = read_with(["preview"; 4], JSON);
    assert_positions(&file, NAMES, &[], "preview");
    assert_eq!(
        file.warnings,
        [
            "the status of 'A', 'B', 'C', 'D' is 'preview', but there is a position, which is used; \
          set the status to 'defined' where it is right, or to 'undefined'"
        ]
    );
    // As 3D Slicer writes points that are not placed.
    let blank = [JSON[0], "\"\"", "\"\"", "\"\""];
    let file = read_with(["defined", "undefined", "missing", "preview"], blank);
    assert_positions(&file, NAMES, &[1, 2, 3], "without positions");
    assert_eq!(file.warnings, [""; 0]);
    let file = read_with(["preview", "undefined", "missing", "defined"], JSON);
    assert_positions(&file, NAMES, &[1, 2], "with positions");
    assert_eq!(file.warnings.len(), 2, "{:?}", file.warnings);
    assert!(
        file.warnings[1].starts_with("the status of 'B', 'C' is 'undefined' or 'missing', but"),
        "{:?}",
        file.warnings
    );
    let zeros = ["[0, 0, 0]", JSON[1], JSON[2], JSON[3]];
    let file = read_with(["preview", "defined", "defined", "defined"], zeros);
    assert_positions(&file, NAMES, &[0], "never placed");
    assert!(file.warnings[0].starts_with("the status of 'A' is 'preview' at 0 0 0, as of"));
}

#[test]
fn a_position_of_which_a_part_is_missing_is_noted() {
    let file = read("t", TABLE.replace("B,9.5", "B,").replace("D,5.5", "D,n/a"));
    assert_positions(&file, NAMES, &[1, 3], "parts");
    let expected = "some coordinates of 'B', 'D' are missing: counted as missing";
    assert_eq!(file.warnings, [expected]);
}

#[test]
fn files_in_other_encodings_name_byte_and_place() {
    let bytes = b"name,x_ras_mm,y_ras_mm,z_ras_mm\nSch\xe4del,1,2,3\n";
    let text = LandmarkFile::parse(bytes, Path::new("t.csv"))
        .unwrap_err()
        .to_string();
    let expected = "landmark file 't.csv' is not text in UTF-8 or UTF-16: line 2 has the byte 0xE4 \
                    at column 4 ('ä' in Windows-1252 and Latin-1); save the file as UTF-8";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn errors_show_no_control_characters() {
    let text = "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,\u{1b}[31m1,2,3\n";
    let error = LandmarkFile::parse(text.as_bytes(), Path::new("t"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("'\\u{1b}[31m1' is not a number"), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}
