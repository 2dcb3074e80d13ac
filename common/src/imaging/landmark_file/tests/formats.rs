//! Tests of each format: positions worked out by hand.

use std::path::Path;

use super::*;

fn read(name: &str, text: &str) -> Result<LandmarkFile, LandmarkError> {
    LandmarkFile::parse(text.as_bytes(), Path::new(name))
}

type Row<'a> = (Option<&'a str>, Option<[f64; 3]>);

fn rows(file: &LandmarkFile) -> Vec<Row<'_>> {
    let points = file.points.iter();
    points.map(|p| (p.name.as_deref(), p.position)).collect()
}

fn errors(name: &str, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let found = read(name, text).unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
}

/// As rl-medical's cardiac files, but with its six points on odd lines.
const VTK: &str = "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\n\
    POINTS 6 float\n-1.5 2 3 4 5 6 7 8 9\n10 11\n12 13 14 15\n\n16 17 1.8e1\n\
    VERTICES 1 7\n6 0 1 2 3 4 5\n";

#[test]
fn vtk_points_may_stand_on_any_line_in_any_number() {
    let file = read("a.vtk", VTK).unwrap();
    let expected = [
        [-1.5, 2.0, 3.0],
        [4.0, 5.0, 6.0],
        [7.0, 8.0, 9.0],
        [10.0, 11.0, 12.0],
        [13.0, 14.0, 15.0],
        [16.0, 17.0, 18.0],
    ];
    assert_eq!(rows(&file), expected.map(|p| (None, Some(p))));
    assert!(file.points.iter().all(|p| p.space == Space::RasMm));
    let places: Vec<Place> = file.points.iter().map(|p| p.place).collect();
    assert_eq!(places, [6, 6, 6, 8, 8, 10].map(Place::Line));
    // As 3D Slicer declares it.
    for (tag, space) in [("LPS", Space::LpsMm), ("RAS", Space::RasMm)] {
        let title = format!("3D Slicer output. SPACE={tag}");
        let file = read("s.vtk", &VTK.replace("vtk output", &title)).unwrap();
        assert!(file.points.iter().all(|p| p.space == space), "{tag}");
    }
    // A title in another encoding, attributes before the points, NaN.
    let bytes = b"# vtk DataFile Version 5.1\nC\xe9lia ASCII\nascii\n\nDataset PolyData\n\
        FIELD FieldData 1\nkey 1 1 int\n4\nPOINTS 2 double\n0 0 0\nnan nan nan\nMETADATA\n";
    let file = LandmarkFile::parse(bytes, Path::new("b")).unwrap();
    // In millimetres the origin is a place like any other.
    assert_eq!(rows(&file), [(None, Some([0.0; 3])), (None, None)]);
    let text = file.find("2").unwrap_err().to_string();
    assert!(
        text.contains("'2' is not in 'b', which has numbers 0 to 1"),
        "{text}"
    );
}

#[test]
fn vtk_errors_name_problem_and_place() {
    let head = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\n";
    let with = |tail: &str| format!("{head}{tail}");
    let grid = head.replace("POLYDATA", "STRUCTURED_POINTS");
    let binary = head.replace("ASCII", "BINARY");
    errors(
        "c.vtk",
        &[
            (&binary, "'c.vtk' is a binary VTK file (save it as ASCII"),
            (&grid, "a VTK file, but not of PolyData"),
            ("# vtk DataFile Version 3.0\n", "without ASCII in line 3"),
            (&with("LINES 0 0\n"), "a VTK file without POINTS"),
            (
                &with("POINTS six float\n"),
                "c.vtk:5: expected POINTS, a count and a type",
            ),
            (&with("POINTS -1 float\n"), "found 'POINTS -1 float'"),
            (&with("POINTS 2\n1 2 3\n"), "found 'POINTS 2 1'"),
            (
                &with("POINTS 2 float\n1 2 3\n4 5"),
                "POINTS declares 2, but the file ends after 1",
            ),
            (
                &with("POINTS 2 float\n1 2 3\n4 x 5"),
                "c.vtk:7: 'x' is not a number (point 1 of 2)",
            ),
            (
                &with("POINTS 1 float\n1 inf 3\n"),
                "c.vtk:6: a position cannot be infinite",
            ),
            (
                &with("POINTS 18446744073709551615 float\n1 2 3"),
                "the file ends after 1",
            ),
            (&with("POINTS 0 float\n"), "without a single point"),
        ],
    );
    let many = format!("{head}POINTS 10001 float\n{}", "1 2 3 ".repeat(10_001));
    errors(
        "m.vtk",
        &[(&many, "a surface or a table of more than 10,000 points")],
    );
}

#[test]
fn fetal_text_marks_missing_landmarks_by_zeros() {
    let file = read(
        "f_ps.txt",
        "55.5 60 41.25\n0 0 0\n0.0\t0.0 0.0\n 1e1 2 3 \n",
    )
    .unwrap();
    let expected = [
        Some([55.5, 60.0, 41.25]),
        None,
        None,
        Some([10.0, 2.0, 3.0]),
    ];
    assert_eq!(rows(&file), expected.map(|p| (None, p)));
    assert!(file.points.iter().all(|p| p.space == Space::Voxel));
}

#[test]
fn tables_are_separated_by_commas_tabs_or_semicolons() {
    for (text, space, expected) in [
        (
            "name\tx_ras_mm\ty_ras_mm\tz_ras_mm\nAC, left\t1\t2\t3\nPC\t\t\t\n",
            Space::RasMm,
            [
                (Some("AC, left"), Some([1.0, 2.0, 3.0])),
                (Some("PC"), None),
            ],
        ),
        (
            "x_lps_mm;y_lps_mm;z_lps_mm;name\n1;2;3;\"a;b\"\nnan;1;1;c\n",
            Space::LpsMm,
            [(Some("a;b"), Some([1.0, 2.0, 3.0])), (Some("c"), None)],
        ),
        // 3D Slicer's tables of control points.
        (
            "label,r,a,s,defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,\nF-2,0,0,0,0,1,1,0,\n",
            Space::RasMm,
            [(Some("F-1"), Some([1.0, 2.0, 3.0])), (Some("F-2"), None)],
        ),
        (
            "label,l,p,s\nF-1,1,2,3\nF-2,,,\n",
            Space::LpsMm,
            [(Some("F-1"), Some([1.0, 2.0, 3.0])), (Some("F-2"), None)],
        ),
    ] {
        let file = read("t", text).unwrap();
        assert_eq!(rows(&file), expected, "{text}");
        assert!(file.points.iter().all(|p| p.space == space), "{text}");
    }
    errors(
        "t.csv",
        &[
            (
                "name;x;y;z\nA;1;2;3\n",
                "the header 'name,x,y,z' does not name",
            ),
            (
                "AC,1,2,3\n",
                "t.csv:1: the first line 'AC,1,2,3' is no header; one has to name the space",
            ),
        ],
    );
}

#[test]
fn fcsv_names_its_space_by_word_or_number() {
    let text = |system: &str| {
        format!(
            "# Markups fiducial file version = 4.6\n# CoordinateSystem = {system}\n\
             # columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n\
             vtkMRMLMarkupsFiducialNode_1,0.5,4,-5.75,0,0,0,1,1,1,0,AC,anterior,vtkMRMLScalarVolumeNode1\n\
             \n2,1,2,3,0,0,0,1,1,1,0,\"PC, left\",,\n"
        )
    };
    let expected = [
        (Some("AC"), Some([0.5, 4.0, -5.75])),
        (Some("PC, left"), Some([1.0, 2.0, 3.0])),
    ];
    for (system, space) in [
        ("0", Space::RasMm),
        ("RAS", Space::RasMm),
        ("1", Space::LpsMm),
        ("LPS", Space::LpsMm),
    ] {
        let file = read("a.fcsv", &text(system)).unwrap();
        assert_eq!(rows(&file), expected);
        assert!(file.points.iter().all(|p| p.space == space), "{system}");
        assert_eq!(file.points[1].place, Place::Line(6));
    }
    errors(
        "a.fcsv",
        &[
            (
                &text("2"),
                "a.fcsv:2: coordinate system '2' is neither LPS (or 1) nor RAS",
            ),
            (&text("IJK"), "coordinate system 'IJK'"),
        ],
    );
}

#[test]
fn fcsv_columns_may_be_others_and_points_undefined() {
    // Without 3D Slicer's first line, by its name; columns in another order.
    let text = "# CoordinateSystem = lps\n# columns = label,x,y,z\nA,1,2,3\nB,4,5,6\n";
    let expected = [
        (Some("A"), Some([1.0, 2.0, 3.0])),
        (Some("B"), Some([4.0, 5.0, 6.0])),
    ];
    assert_eq!(rows(&read("x.FCSV", text).unwrap()), expected);
    // Newer versions add the position's status and a flag.
    let text = "# Markups fiducial file version = 4.13\n# CoordinateSystem = LPS\n\
        # columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n\
        1,1,2,3,0,0,0,1,1,1,0,A,,,2,0\n2,0,0,0,0,0,0,1,1,1,0,B,,,0,0\n\
        3,7,8,9,0,0,0,1,1,1,0,C,,,1,0\n4,7,8,9,0,0,0,1,1,1,0,D,,,3,0\n\
        5,4,5,6,0,0,0,1,1,1,0,E,,,,\n";
    let expected = [
        (Some("A"), Some([1.0, 2.0, 3.0])),
        (Some("B"), None),
        (Some("C"), Some([7.0, 8.0, 9.0])),
        (Some("D"), None),
        (Some("E"), Some([4.0, 5.0, 6.0])),
    ];
    let file = read("x", text).unwrap();
    assert_eq!(rows(&file), expected);
    let [warning] = file.warnings.as_slice() else {
        panic!("{:?}", file.warnings);
    };
    assert!(
        warning.starts_with("the status of 'C' is 'preview', but there is a position"),
        "{warning}"
    );
    let head = "# Markups fiducial file version = 4.6\n";
    let ras = format!("{head}# CoordinateSystem = RAS\n");
    let with = |tail: &str| format!("{ras}{tail}");
    errors(
        "e.fcsv",
        &[
            (
                &format!("{head}1,1,2,3\n"),
                "e.fcsv:2: no line '# CoordinateSystem = LPS' (or RAS)",
            ),
            (
                &with("# columns = id,x,y,label\n"),
                "e.fcsv:3: the columns 'id,x,y,label' lack x, y or z",
            ),
            (&with("1,1,2\n"), "e.fcsv:3: expected column 4, found 3"),
            (&with("1,1,2,c\n"), "e.fcsv:3: 'c' is not a number"),
            (
                &with("1,1,2,3,0,0,0,1,1,1,0,A,,,7,0\n"),
                "e.fcsv:3: the status '7' is none of 0 (undefined), 1 (preview)",
            ),
            (&with(""), "without a single point"),
            (
                &with("1,1,2,3,0,0,0,1,1,1,0,A,,\n2,1,2,3,0,0,0,1,1,1,0,A,,\n"),
                "e.fcsv:4: 'A' was already given at line 3",
            ),
        ],
    );
}

#[test]
fn markups_take_all_control_points_of_all_markups() {
    let text = r#"{"@schema": "s", "markups": [
        {"type": "Fiducial", "coordinateUnits": ["mm", "UCUM", "millimeter"], "controlPoints": [
            {"id": "1", "label": "AC", "position": [1, -2.5, 3e0], "positionStatus": "defined"},
            {"id": "2", "label": "PC", "position": "", "positionStatus": "undefined"},
            {"label": "", "position": [0.0, 0.0, 0.0]}]},
        {"type": "Line", "coordinateSystem": "RAS", "coordinateUnits": "mm", "locked": true,
         "controlPoints": [{"label": "RE", "position": [7, 8, 9]},
            {"label": "LE", "position": [7, 8, 9], "positionStatus": "preview"},
            {"label": "N", "position": ["a", null], "positionStatus": "undefined"},
            {"label": "O", "positionStatus": "undefined"},
            {"label": "M", "position": [1, 2, 3], "positionStatus": "missing"}]},
        {"type": "Fiducial"}]}"#;
    let file = read("a.mrk.json", text).unwrap();
    let expected = [
        (Some("AC"), Some([1.0, -2.5, 3.0])),
        (Some("PC"), None),
        (None, Some([0.0; 3])),
        (Some("RE"), Some([7.0, 8.0, 9.0])),
        (Some("LE"), Some([7.0, 8.0, 9.0])),
        (Some("N"), None),
        (Some("O"), None),
        (Some("M"), None),
    ];
    assert_eq!(rows(&file), expected);
    let spaces: Vec<Space> = file.points.iter().map(|p| p.space).collect();
    assert_eq!(spaces[..3], [Space::LpsMm; 3]);
    assert_eq!(spaces[3..], [Space::RasMm; 5]);
    assert_eq!(file.points[4].place, Place::ControlPoint(2, 2));
    assert_eq!(file.ids(), ["AC", "PC", "2", "RE", "LE", "N", "O", "M"]);
}

#[test]
fn markups_errors_name_problem_and_place() {
    let one = |inside: &str| format!(r#"{{"markups": [{{"type": "Fiducial", {inside}}}]}}"#);
    let point = |inside: &str| one(&format!(r#""controlPoints": [{{"label": "A", {inside}}}]"#));
    let good = r#"{"label": "A", "position": [1, 2, 3]}"#;
    let twice = one(&format!(r#""controlPoints": [{good}, {good}]"#));
    let many = ["{}"; 10_001].join(",");
    let many = one(&format!(r#""controlPoints": [{many}]"#));
    let maps = "{\"\": 0},".repeat(1_000);
    let maps = point(&format!(r#""position": [{maps}0]"#));
    for inside in [
        r#""position": [1, 2, 3, 4]"#,
        r#""position": {"x": 1}"#,
        r#""position": [1, 2, 1e999]"#,
        r#""description": "x""#,
    ] {
        let expected = "needs a position of three numbers";
        errors("e.mrk.json", &[(&point(inside), expected)]);
    }
    errors(
        "e.mrk.json",
        &[
            (
                "{\n\n\"markups\": [",
                "e.mrk.json:3: not a markups file: EOF",
            ),
            ("{\"notice\": 1}", "JSON without a list of 'markups'"),
            (
                "{\"markups\": 3}",
                "e.mrk.json:1: not a markups file: invalid type",
            ),
            ("{\"markups\": []}", "without a single point"),
            (
                &one(r#""coordinateSystem": "HFS""#),
                "e.mrk.json: markup 1, control point 1: coordinate system 'HFS' is neither LPS (or 1) nor RAS",
            ),
            (
                &one(r#""coordinateUnits": "um""#),
                "positions are in 'um'; save them in mm",
            ),
            (
                &point(r#""position": [1, 2]"#),
                "control point 1: a defined point needs a position of three numbers",
            ),
            (
                &point(r#""position": [1, 2, "3,5"]"#),
                "control point 1: '3,5' is not a number; write a decimal point",
            ),
            (
                &point(r#""position": [1, 2, Infinity]"#),
                "a position cannot be infinite",
            ),
            (
                &one(r#""controlPoints": [{"label": ["A"]}]"#),
                "expected text or a number",
            ),
            (
                &point(r#""positionStatus": "lost""#),
                "unknown variant `lost`",
            ),
            (
                &twice,
                "control point 2: 'A' was already given by markup 1, control point 1; rename one",
            ),
            (&many, "a list of more than 10000"),
            (
                &point(&format!("\"position\": {}", "[".repeat(5_000))),
                "expected value",
            ),
            (&maps, "a defined point needs a position of three numbers"),
        ],
    );
}

#[test]
fn a_markup_and_its_table_lead_to_the_same_voxel() {
    use crate::imaging::geometry::Affine;
    // 1 mm, voxel = RAS + (10, 20, 30).
    let geometry = Geometry {
        affine: Affine::diagonal([1.0; 3], [-10.0, -20.0, -30.0]),
        ..Geometry::straight([40; 3], [1.0; 3])
    };
    let vtk = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 1 float\n2 3 4\n";
    for (name, text) in [
        ("a", "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,2,3,4\n"),
        ("b", "label;l;p;s\nA;-2;-3;4\n"),
        ("c", "12 23 34\n"),
        ("d", vtk),
        (
            "e",
            r#"{"markups": [{"controlPoints": [{"position": [-2, -3, 4]}]}]}"#,
        ),
        (
            "f",
            r#"{"markups": [{"coordinateSystem": "RAS", "controlPoints": [{"position": [2, 3, 4]}]}]}"#,
        ),
        ("g.fcsv", "# CoordinateSystem = 1\n1,-2,-3,4\n"),
        ("h.fcsv", "# CoordinateSystem = 0\n1,2,3,4\n"),
    ] {
        let file = read(name, text).unwrap();
        let voxel = file.locate(&file.points[0], "A", "s", &geometry).unwrap();
        assert_eq!(voxel, Some([12.0, 23.0, 34.0]), "{name}");
    }
}

#[test]
fn the_published_fcsv_of_a_brain_equals_its_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/brain/landmarks");
    if !folder.exists() {
        println!("skipped: the_published_fcsv_of_a_brain: ../shared/data is absent");
        return;
    }
    let [fcsv, csv] = ["fcsv", "csv"]
        .map(|ending| LandmarkFile::read(&folder.join(format!("MNIColin27.{ending}"))).unwrap());
    assert_eq!((fcsv.points.len(), csv.points.len()), (32, 32));
    for (a, b) in fcsv.points.iter().zip(&csv.points) {
        assert_eq!((a.space, b.space), (Space::RasMm, Space::RasMm));
        let (a, b) = (a.position.unwrap(), b.position.unwrap());
        // The table is rounded to 0.0001 mm.
        assert!((0..3).all(|i| (a[i] - b[i]).abs() < 1e-4), "{a:?} {b:?}");
    }
}
