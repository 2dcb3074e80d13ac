//! Tests of names and descriptions, by which landmarks are found.

use super::spellings::{JSON, NAMES, assert_positions, markups, read};
use super::*;

const AFIDS: &str = "# Markups fiducial file version = 4.6\n# CoordinateSystem = 0\n\
    # columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n\
    n_0,-3.5,7.8,12.75,0,0,0,1,1,1,0,1,A,\nn_1,9.5,0.6,2.25,0,0,0,1,1,1,0,2,B,\n\
    n_2,0.5,-12.6,17.25,0,0,0,1,1,1,0,3,C,\nn_3,5.5,-6.6,-3.75,0,0,0,1,1,1,0,4,D,\n";

#[test]
fn numbered_points_are_found_by_their_description_too() {
    let points = [
        r#""label": "1", "description": "A""#,
        r#""label": "2", "description": "B""#,
        r#""label": "3", "description": "C""#,
        r#""label": "4", "description": "D""#,
    ];
    let table = "label,x_ras_mm,y_ras_mm,z_ras_mm,description\n1,-3.5,7.8,12.75,A\n\
        2,9.5,0.6,2.25,B\n3,0.5,-12.6,17.25,C\n4,5.5,-6.6,-3.75,D\n";
    for (name, text) in [
        ("a.fcsv", AFIDS.to_owned()),
        ("a.json", markups("\"RAS\"", points, JSON)),
        ("a.csv", table.to_owned()),
    ] {
        let file = read(name, text);
        assert_positions(&file, NAMES, &[], name);
        assert_positions(&file, ["1", "2", "3", "4"], &[], name);
        assert_eq!(file.ids(), ["1", "2", "3", "4"], "{name}");
        let how = |id: &str| {
            let found = file.find(id).unwrap();
            (found.index, found.by, found.name())
        };
        assert_eq!(how("B"), (1, MatchedBy::Description, Some("B")));
        assert_eq!(how("2"), (1, MatchedBy::Name, Some("2")));
        assert_eq!(how("0"), (0, MatchedBy::Index, Some("1")));
        let text = file.find("E").unwrap_err().to_string();
        let expected = "which has numbers 0 to 3 and names 1, 2, 3, 4 and descriptions A, B, C, D";
        assert!(text.contains(expected), "{text}");
        let text = file.find("b").unwrap_err().to_string();
        assert!(!text.contains("did you mean 'A'"), "{text}");
    }
    // What several points have in common names none of them.
    let file = read(
        "a.fcsv",
        AFIDS.replace(",B,", ",skull,").replace(",C,", ",skull,"),
    );
    let text = file.find("skull").unwrap_err().to_string();
    assert!(
        text.contains("2 points have this description, so give a name"),
        "{text}"
    );
    // A number is a name or an index, never a description.
    let file = read("a.fcsv", AFIDS.replace(",4,D,", ",D,0,"));
    assert_eq!(file.find("0").unwrap().by, MatchedBy::Index);
}

#[test]
fn fcsv_files_survive_a_spreadsheet_program() {
    let padded = AFIDS
        .replace("= 4.6", "= 4.6,,,,")
        .replace("= 0", "= 0,,,,,");
    let padded = format!(
        "{}{}\n",
        padded.replace("NodeID", "NodeID,,"),
        ",".repeat(15)
    );
    let euro = AFIDS
        .replace(',', ";")
        .replace('.', ",")
        .replace("= 4,6", "= 4.6");
    for (name, text) in [
        ("delimiters at line ends", padded),
        ("semicolons and decimal commas", euro),
        (
            "columns of other names",
            AFIDS.replace("label,desc,associatedNodeID", "Name,Description"),
        ),
        ("old Mac's lines", AFIDS.replace('\n', "\r")),
    ] {
        let file = read("a.fcsv", text);
        assert_positions(&file, NAMES, &[], name);
        assert_eq!(file.points.len(), 4, "{name}");
    }
}

#[test]
fn names_that_look_the_same_are_the_same() {
    let header = "name,x_ras_mm,y_ras_mm,z_ras_mm\n";
    // 'ä' as a letter and an accent, as macOS writes it, and in one character.
    for name in [
        "Scha\u{308}del",
        "Sch\u{e4}del",
        " Sch\u{e4}del\u{a0}",
        "\u{feff}Sch\u{e4}del",
    ] {
        let file = read("t", format!("{header}{name},1,2,3\n"));
        assert_eq!(file.points[0].name.as_deref(), Some("Sch\u{e4}del"));
        for id in ["Scha\u{308}del", "Sch\u{e4}del", "Sch\u{e4}del "] {
            assert_eq!(
                file.find(id).unwrap().by,
                MatchedBy::Name,
                "{name:?} {id:?}"
            );
        }
        let text = file.find("SCH\u{c4}DEL").unwrap_err().to_string();
        assert!(text.ends_with("did you mean 'Sch\u{e4}del'?"), "{text}");
    }
    let twice = format!("{header}Scha\u{308}del,1,2,3\nSch\u{e4}del,4,5,6\n");
    let text = LandmarkFile::parse(twice.as_bytes(), Path::new("t"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("t:3: 'Sch\u{e4}del' was already given at line 2"),
        "{text}"
    );
}
