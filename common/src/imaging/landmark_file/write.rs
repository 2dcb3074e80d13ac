//! Writes landmarks in the formats of other programs.
//!
//! Positions are given in RAS mm and converted to each format's space: LPS mm for
//! 3D Slicer, RAS mm for tables. They keep every digit, so reading a file returns
//! the same positions. Positions that are not finite are omitted.

use serde::Serialize;

use super::fcsv;

/// Identifies the format; 3D Slicer requires exactly this text.
const SCHEMA: &str = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#";

/// A landmark to write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark<'a> {
    pub name: &'a str,
    /// Its position, RAS mm.
    pub ras_mm: [f64; 3],
    /// A comment; may be empty.
    pub remark: &'a str,
}

impl Mark<'_> {
    /// Converts to LPS mm without negative zeros.
    fn lps_mm(&self) -> [f64; 3] {
        let [x, y, z] = self.ras_mm;
        [0.0 - x, 0.0 - y, z + 0.0]
    }

    fn is_finite(&self) -> bool {
        self.ras_mm.iter().all(|v| v.is_finite())
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@schema")]
    schema: &'static str,
    markups: [Markup<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Markup<'a> {
    r#type: &'static str,
    name: &'a str,
    coordinate_system: &'static str,
    coordinate_units: &'static str,
    /// The schema's default locks points.
    locked: bool,
    control_points: Vec<ControlPoint<'a>>,
    display: Display,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ControlPoint<'a> {
    id: String,
    label: &'a str,
    description: &'a str,
    position: [f64; 3],
    /// Some versions of 3D Slicer hide points without this field.
    position_status: &'static str,
}

/// Points are selected when a file is opened, so both colours are the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Display {
    color: [f64; 3],
    selected_color: [f64; 3],
    point_labels_visibility: bool,
}

/// A `.mrk.json` of one markups node (schema 1.0.3, LPS mm), for 3D Slicer.
///
/// `name` is the node's, `color` its red, green and blue from 0 to 1. One node
/// per file: 3D Slicer reads several but saves only one of them back.
pub fn markups_json(
    name: &str,
    color: [f64; 3],
    marks: &[Mark<'_>],
) -> Result<String, serde_json::Error> {
    let points = marks.iter().filter(|mark| mark.is_finite()).zip(1..);
    let control_points = points.map(|(mark, number): (_, usize)| ControlPoint {
        id: number.to_string(),
        label: mark.name,
        description: mark.remark,
        position: mark.lps_mm(),
        position_status: "defined",
    });
    let markup = Markup {
        r#type: "Fiducial",
        name,
        coordinate_system: "LPS",
        coordinate_units: "mm",
        locked: false,
        control_points: control_points.collect(),
        display: Display {
            color,
            selected_color: color,
            point_labels_visibility: true,
        },
    };
    let document = Document {
        schema: SCHEMA,
        markups: [markup],
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// An `.fcsv` (LPS mm), 3D Slicer's older format, which other tools read too.
///
/// Line breaks in names and comments become spaces: the format cannot
/// represent them.
pub fn fcsv(marks: &[Mark<'_>]) -> Result<String, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_writer(Vec::new());
    let line = |text: &str| text.replace(['\r', '\n'], " ");
    let points = marks.iter().filter(|mark| mark.is_finite()).zip(1..);
    for (mark, number) in points {
        let number: usize = number;
        let [x, y, z] = mark.lps_mm().map(|v| v.to_string());
        let (name, remark) = (line(mark.name), line(mark.remark));
        let (id, zero, one) = (number.to_string(), "0", "1");
        // After the position: no rotation; visible, selected, not locked.
        writer.write_record([
            &id, &x, &y, &z, zero, zero, zero, one, one, one, zero, &name, &remark, "",
        ])?;
    }
    let rows = text(writer)?;
    Ok(format!(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n# columns = {}\n{rows}",
        fcsv::COLUMNS
    ))
}

/// A table `name,x_ras_mm,y_ras_mm,z_ras_mm`.
pub fn csv(marks: &[Mark<'_>]) -> Result<String, csv::Error> {
    // A name that begins like a comment must be quoted.
    let mut writer = csv::WriterBuilder::new()
        .comment(Some(b'#'))
        .from_writer(Vec::new());
    writer.write_record(["name", "x_ras_mm", "y_ras_mm", "z_ras_mm"])?;
    for mark in marks.iter().filter(|mark| mark.is_finite()) {
        let [x, y, z] = mark.ras_mm.map(|v| (v + 0.0).to_string());
        writer.write_record([mark.name, &x, &y, &z])?;
    }
    text(writer)
}

fn text(writer: csv::Writer<Vec<u8>>) -> Result<String, csv::Error> {
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    // The writer received only UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
