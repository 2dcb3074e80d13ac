//! predictions.csv, predictions.json, summary.json.

use std::path::Path;

use actor::evaluation::summary::ScanPrediction;
use common::imaging::scan::Scan;
use common::report::text::{decimal, unsigned_zeros};
use common::run::durable::write_atomic;
use serde::Serialize;

use super::{AGREEMENT, NOTICE, Results, landmark, name};
use crate::input::weights::Origin;

/// The tables of predictions.
pub const PREDICTIONS: [&str; 2] = ["predictions.csv", "predictions.json"];

/// One point in every coordinate system.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    /// Voxel indices along the file's own axes, from 0.
    pub file_voxel: [f64; 3],
    pub ras_mm: [f64; 3],
    pub lps_mm: [f64; 3],
}

impl Place {
    fn new(scan: &Scan, voxel: [f64; 3]) -> Self {
        let ras_mm = unsigned_zeros(scan.geometry.affine.to_world(voxel));
        Self {
            file_voxel: unsigned_zeros(scan.geometry.axis_map.to_file(voxel)),
            ras_mm,
            lps_mm: unsigned_zeros([-ras_mm[0], -ras_mm[1], ras_mm[2]]),
        }
    }
}

/// One landmark in one scan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    pub scan: String,
    pub landmark: String,
    /// The name of the scan's files in `exports/` and `pictures/`, without ending.
    pub exports: String,
    pub predicted: Place,
    /// Mean distance (mm) between the consensus and the endpoints at each scale.
    pub dispersion_mm: f64,
    pub trajectories: usize,
    /// Trajectories that the position is the mean of.
    pub inliers: usize,
    pub truth: Option<Place>,
    pub error_mm: Option<f64>,
    pub error_voxels: Option<f64>,
    pub baseline_error_mm: Option<f64>,
}

impl Prediction {
    pub fn new(p: &ScanPrediction, all: &Results<'_>) -> Self {
        Self::of(
            p,
            &all.scans[p.scan],
            &all.loaded.landmarks,
            all.files.stem(p.scan),
        )
    }

    fn of(p: &ScanPrediction, scan: &Scan, names: &[String], exports: &str) -> Self {
        Self {
            scan: scan.name.clone(),
            landmark: name(names, p.agent),
            exports: exports.to_owned(),
            predicted: Place::new(scan, p.position),
            dispersion_mm: p.dispersion_mm,
            trajectories: p.trajectories,
            inliers: p.inliers,
            truth: landmark(scan, p.agent).map(|t| Place::new(scan, t)),
            error_mm: p.error_mm,
            error_voxels: p.error_voxels,
            baseline_error_mm: p.baseline_error_mm,
        }
    }
}

/// Writes `predictions.csv` and `predictions.json`.
pub fn write_predictions(
    folder: &Path,
    all: &[Prediction],
    weights: &Origin,
) -> anyhow::Result<()> {
    let [table, json] = PREDICTIONS.map(|name| folder.join(name));
    write_atomic(&table, csv_text(all)?.as_bytes())?;
    write_json(&json, &predictions_json(all, weights))
}

/// The content of `predictions.json`.
pub fn predictions_json(all: &[Prediction], weights: &Origin) -> serde_json::Value {
    serde_json::json!({
        "notice": NOTICE,
        "agreement": AGREEMENT,
        "weights": weights,
        "predictions": all,
    })
}

/// Writes a value as indented JSON.
pub fn write_json(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value)? + "\n";
    Ok(write_atomic(file, json.as_bytes())?)
}

fn csv_text(all: &[Prediction]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let (predicted, truth) = (place_columns("predicted"), place_columns("truth"));
    let header = format!(
        "scan,landmark,{predicted},dispersion_mm,trajectories,inliers,{truth},\
         error_mm,error_voxels,baseline_error_mm,exports,notice"
    );
    writer.write_record(header.split(','))?;
    for p in all {
        let mut row = vec![p.scan.clone(), p.landmark.clone()];
        row.extend(place_cells(Some(&p.predicted)));
        row.extend([
            decimal(p.dispersion_mm, 4),
            p.trajectories.to_string(),
            p.inliers.to_string(),
        ]);
        row.extend(place_cells(p.truth.as_ref()));
        row.extend([p.error_mm, p.error_voxels, p.baseline_error_mm].map(cell));
        row.extend([p.exports.clone(), NOTICE.to_owned()]);
        writer.write_record(&row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn place_columns(what: &str) -> String {
    let voxel = ["i", "j", "k"].map(|axis| format!("{what}_file_voxel_{axis}"));
    let mm = |space: &str| ["x", "y", "z"].map(|axis| format!("{what}_{space}_{axis}_mm"));
    [voxel, mm("ras"), mm("lps")].concat().join(",")
}

fn place_cells(place: Option<&Place>) -> Vec<String> {
    let numbers = place.map(|p| [p.file_voxel, p.ras_mm, p.lps_mm]);
    (0..9)
        .map(|i| cell(numbers.map(|n| n[i / 3][i % 3])))
        .collect()
}

fn cell(value: Option<f64>) -> String {
    value.map(|v| decimal(v, 4)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use common::imaging::geometry::{Affine, Geometry};
    use common::imaging::volume::Volume;

    use super::*;

    #[test]
    fn a_prediction_has_file_voxel_ras_and_lps_coordinates() {
        // The file's x axis points left: our x counts from the opposite end.
        let mut geometry = Geometry::straight([10; 3], [2.0; 3]);
        geometry.axis_map.axes[0].1 = true;
        geometry.affine = Affine::diagonal([2.0; 3], [-9.0, 1.0, 0.0]);
        let scan = Scan {
            name: "a, b".into(),
            volume: Volume::from_u8([10; 3], vec![0; 1000]).unwrap(),
            geometry,
            landmarks: vec![None],
            hash: [0; 32],
        };
        let prediction = ScanPrediction {
            scan: 0,
            scan_name: "a, b".into(),
            agent: 0,
            position: [1.5, 2.0, 3.0],
            dispersion_mm: 0.25,
            inliers: 2,
            trajectories: 3,
            error_mm: None,
            error_voxels: None,
            baseline: None,
            baseline_error_mm: None,
            baseline_error_voxels: None,
        };
        let prediction = Prediction::of(&prediction, &scan, &["AC".into()], "a, b-2");
        let place = prediction.predicted;
        assert_eq!(place.file_voxel, [7.5, 2.0, 3.0]);
        assert_eq!(place.ras_mm, [-6.0, 5.0, 6.0]);
        assert_eq!(place.lps_mm, [6.0, -5.0, 6.0]);
        let text = csv_text(&[prediction]).unwrap();
        let mut lines = text.lines();
        let columns = "scan,landmark,predicted_file_voxel_i,predicted_file_voxel_j,predicted_file_voxel_k,\
            predicted_ras_x_mm,predicted_ras_y_mm,predicted_ras_z_mm,predicted_lps_x_mm,predicted_lps_y_mm,\
            predicted_lps_z_mm,dispersion_mm,trajectories,inliers,truth_file_voxel_i,";
        let header = lines.next().unwrap();
        assert!(header.starts_with(columns), "{header}");
        let row = lines.next().unwrap();
        assert!(row.starts_with("\"a, b\",AC,7.5000,2.0000,3.0000,-6.0000,5.0000,6.0000,6.0000,-5.0000,6.0000,0.2500,3,2,,"), "{row}");
        assert!(row.ends_with(&format!(",\"a, b-2\",{NOTICE}")), "{row}");
    }

    #[test]
    fn zeros_in_tables_and_json_have_no_sign() {
        let mut geometry = Geometry::straight([10; 3], [2.0; 3]);
        geometry.affine = Affine::diagonal([2.0; 3], [-2.0, -4.0, 0.0]);
        let scan = Scan {
            name: "a".into(),
            volume: Volume::from_u8([10; 3], vec![0; 1000]).unwrap(),
            geometry,
            landmarks: Vec::new(),
            hash: [0; 32],
        };
        // RAS (0, 0, 0): the signs of LPS are turned.
        let place = Place::new(&scan, [1.0, 2.0, -0.0]);
        let json = serde_json::to_string(&place).unwrap();
        assert!(!json.contains("-0"), "{json}");
        assert_eq!(place_cells(Some(&place))[3..], ["0.0000"; 6]);
        // Rounded to zero.
        let near = Place::new(&scan, [1.000_001, 1.999_999, -0.000_001]);
        assert_eq!(place_cells(Some(&near))[2..], ["0.0000"; 7]);
    }
}
