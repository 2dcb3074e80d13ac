//! Tests of `write`: golden files, and what is written is what is read.

use std::path::Path;

use proptest::prelude::*;

use super::write::{Mark, csv, fcsv, markups_json};
use super::*;

const CYAN: [f64; 3] = [0.0, 1.0, 1.0];

fn marks() -> [Mark<'static>; 3] {
    [
        Mark {
            name: "AC",
            ras_mm: [0.5, -4.25, 0.0],
            remark: "dispersion 0.25 mm",
        },
        Mark {
            name: "lost",
            ras_mm: [f64::NAN, 0.0, 0.0],
            remark: "",
        },
        Mark {
            name: "#2, \"left\"\nedge",
            ras_mm: [-0.0, 1e-7, 3.0],
            remark: "a,b\nc",
        },
    ]
}

const MARKUPS: &str = r##"{
  "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
  "markups": [
    {
      "type": "Fiducial",
      "name": "scan prediction",
      "coordinateSystem": "LPS",
      "coordinateUnits": "mm",
      "locked": false,
      "controlPoints": [
        {
          "id": "1",
          "label": "AC",
          "description": "dispersion 0.25 mm",
          "position": [
            -0.5,
            4.25,
            0.0
          ],
          "positionStatus": "defined"
        },
        {
          "id": "2",
          "label": "#2, \"left\"\nedge",
          "description": "a,b\nc",
          "position": [
            0.0,
            -1e-7,
            3.0
          ],
          "positionStatus": "defined"
        }
      ],
      "display": {
        "color": [
          0.0,
          1.0,
          1.0
        ],
        "selectedColor": [
          0.0,
          1.0,
          1.0
        ],
        "pointLabelsVisibility": true
      }
    }
  ]
}
"##;

const FCSV: &str = "\
# Markups fiducial file version = 4.11
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,-0.5,4.25,0,0,0,0,1,1,1,0,AC,dispersion 0.25 mm,
2,0,-0.0000001,3,0,0,0,1,1,1,0,\"#2, \"\"left\"\" edge\",\"a,b c\",
";

const CSV: &str = "\
name,x_ras_mm,y_ras_mm,z_ras_mm
AC,0.5,-4.25,0
\"#2, \"\"left\"\"
edge\",0,0.0000001,3
";

#[test]
fn written_files_are_these() {
    let marks = marks();
    let json = markups_json("scan prediction", CYAN, &marks).unwrap();
    assert_eq!(json, MARKUPS);
    assert_eq!(fcsv(&marks).unwrap(), FCSV);
    assert_eq!(csv(&marks).unwrap(), CSV);
}

#[test]
fn files_without_marks_are_whole_too() {
    assert_eq!(fcsv(&[]).unwrap().lines().count(), 3);
    assert_eq!(csv(&[]).unwrap().lines().count(), 1);
    let json: serde_json::Value =
        serde_json::from_str(&markups_json("n", CYAN, &[]).unwrap()).unwrap();
    assert_eq!(json["markups"][0]["controlPoints"], serde_json::json!([]));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::hash_set(
        "[a-zA-Z#\"',;|é{\\[][a-zA-Z0-9 #\"',;\t]{0,8}[a-z0-9\"#é]",
        1..8,
    )
    .prop_map(|set| set.into_iter().collect())
}

fn coordinate() -> impl Strategy<Value = f64> {
    prop_oneof![
        -300.0..300.0,
        Just(0.0),
        Just(-0.0),
        -1e-9..1e-9,
        -1e12..1e12
    ]
}

proptest! {
    #[test]
    fn written_files_read_back(
        names in names(),
        positions in prop::collection::vec(prop::array::uniform3(coordinate()), 8),
    ) {
        let marks: Vec<Mark<'_>> = names
            .iter()
            .zip(&positions)
            .map(|(name, &ras_mm)| Mark { name, ras_mm, remark: "r, \"s\"" })
            .collect();
        for (path, space, text) in [
            ("a.mrk.json", Space::LpsMm, markups_json("n", CYAN, &marks).unwrap()),
            ("a.fcsv", Space::LpsMm, fcsv(&marks).unwrap()),
            ("a.csv", Space::RasMm, csv(&marks).unwrap()),
        ] {
            let file = LandmarkFile::parse(text.as_bytes(), Path::new(path)).unwrap();
            prop_assert_eq!(file.points.len(), marks.len());
            for (point, mark) in file.points.iter().zip(&marks) {
                prop_assert_eq!(point.name.as_deref(), Some(mark.name));
                prop_assert_eq!(point.space, space);
                let [x, y, z] = mark.ras_mm;
                let expected = if space == Space::LpsMm { [-x, -y, z] } else { mark.ras_mm };
                prop_assert_eq!(point.position, Some(expected));
            }
        }
    }
}
