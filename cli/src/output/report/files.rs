//! predictions.csv, predictions.json, summary.json.

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::summary::ScanAnswer;
use common::imaging::scan::Scan;
use common::run::durable::write_atomic;
use serde::Serialize;

use super::NOTICE;

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
        let ras_mm = scan.geometry.affine.to_world(voxel);
        Self {
            file_voxel: scan.geometry.axis_map.to_file(voxel),
            ras_mm,
            lps_mm: [-ras_mm[0], -ras_mm[1], ras_mm[2]],
        }
    }
}

/// One landmark in one scan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    pub scan: String,
    pub landmark: String,
    pub predicted: Place,
    /// Mean distance (mm) between the consensus and the endpoints at each scale.
    pub spread_mm: f64,
    pub walks: usize,
    pub inliers: usize,
    pub truth: Option<Place>,
    pub error_mm: Option<f64>,
    pub error_voxels: Option<f64>,
    pub constant_guess_error_mm: Option<f64>,
}

/// The predictions in all coordinate systems.
pub fn predictions(
    answers: &[ScanAnswer],
    scans: &[Arc<Scan>],
    names: &[String],
) -> Vec<Prediction> {
    let prediction = |a: &ScanAnswer| {
        let scan = &scans[a.scan];
        let agent = usize::from(a.agent);
        let truth = scan.landmarks.get(agent).copied().flatten();
        Prediction {
            scan: scan.name.clone(),
            landmark: names
                .get(agent)
                .cloned()
                .unwrap_or_else(|| agent.to_string()),
            predicted: Place::new(scan, a.position),
            spread_mm: a.spread_mm,
            walks: a.walks,
            inliers: a.inliers,
            truth: truth.map(|t| Place::new(scan, t)),
            error_mm: a.error_mm,
            error_voxels: a.error_voxels,
            constant_guess_error_mm: a.guess_error_mm,
        }
    };
    answers.iter().map(prediction).collect()
}

/// Writes `predictions.csv` and `predictions.json`.
pub fn write_predictions(folder: &Path, all: &[Prediction]) -> anyhow::Result<()> {
    write_atomic(&folder.join("predictions.csv"), csv_text(all)?.as_bytes())?;
    let json = serde_json::json!({"notice": NOTICE, "predictions": all});
    let json = serde_json::to_string_pretty(&json)? + "\n";
    write_atomic(&folder.join("predictions.json"), json.as_bytes())?;
    Ok(())
}

/// Writes `summary.json`.
pub fn write_summary(folder: &Path, summary: &super::Summary) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(summary)? + "\n";
    write_atomic(&folder.join("summary.json"), json.as_bytes())?;
    Ok(())
}

fn csv_text(all: &[Prediction]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["scan".to_owned(), "landmark".to_owned()];
    header.extend(place_columns("predicted"));
    header.extend(["spread_mm", "walks", "inliers"].map(str::to_owned));
    header.extend(place_columns("truth"));
    header.extend(
        [
            "error_mm",
            "error_voxels",
            "constant_guess_error_mm",
            "notice",
        ]
        .map(str::to_owned),
    );
    writer.write_record(&header)?;
    for p in all {
        let mut row = vec![p.scan.clone(), p.landmark.clone()];
        row.extend(place_cells(Some(&p.predicted)));
        row.extend([
            format!("{:.4}", p.spread_mm),
            p.walks.to_string(),
            p.inliers.to_string(),
        ]);
        row.extend(place_cells(p.truth.as_ref()));
        row.extend([p.error_mm, p.error_voxels, p.constant_guess_error_mm].map(cell));
        row.push(NOTICE.to_owned());
        writer.write_record(&row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn place_columns(what: &str) -> Vec<String> {
    let names = ["file_voxel_i", "file_voxel_j", "file_voxel_k"].into_iter();
    let names = names.chain([
        "ras_x_mm", "ras_y_mm", "ras_z_mm", "lps_x_mm", "lps_y_mm", "lps_z_mm",
    ]);
    names.map(|n| format!("{what}_{n}")).collect()
}

fn place_cells(place: Option<&Place>) -> Vec<String> {
    let Some(p) = place else {
        return vec![String::new(); 9];
    };
    let numbers = [p.file_voxel, p.ras_mm, p.lps_mm];
    numbers
        .as_flattened()
        .iter()
        .map(|v| cell(Some(*v)))
        .collect()
}

fn cell(value: Option<f64>) -> String {
    value.map(|v| format!("{v:.4}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use common::imaging::geometry::{Affine, AxisMap, Geometry};
    use common::imaging::volume::Volume;

    use super::*;

    #[test]
    fn a_prediction_stands_in_file_voxels_ras_and_lps() {
        // The file's x axis points left: our x counts from the opposite end.
        let mut axis_map = AxisMap::identity([10, 10, 10]);
        axis_map.axes[0].1 = true;
        let affine = Affine {
            rows: [
                [2.0, 0.0, 0.0, -9.0],
                [0.0, 2.0, 0.0, 1.0],
                [0.0, 0.0, 2.0, 0.0],
            ],
        };
        let scan = Arc::new(Scan {
            name: "a, b".into(),
            volume: Volume::from_u8([10; 3], vec![0; 1000]).unwrap(),
            geometry: Geometry {
                dims: [10; 3],
                spacing_mm: [2.0; 3],
                affine,
                axis_map,
            },
            landmarks: vec![None],
            hash: [0; 32],
        });
        let answer = ScanAnswer {
            scan: 0,
            scan_name: "a, b".into(),
            agent: 0,
            position: [1.5, 2.0, 3.0],
            spread_mm: 0.25,
            inliers: 2,
            walks: 3,
            error_mm: None,
            error_voxels: None,
            guess: None,
            guess_error_mm: None,
            guess_error_voxels: None,
        };
        let all = predictions(&[answer], &[scan], &["AC".into()]);
        let place = all[0].predicted;
        assert_eq!(place.file_voxel, [7.5, 2.0, 3.0]);
        assert_eq!(place.ras_mm, [-6.0, 5.0, 6.0]);
        assert_eq!(place.lps_mm, [6.0, -5.0, 6.0]);
        let text = csv_text(&all).unwrap();
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        assert!(
            header.starts_with("scan,landmark,predicted_file_voxel_i,"),
            "{header}"
        );
        let row = lines.next().unwrap();
        assert!(row.starts_with("\"a, b\",AC,7.5000,2.0000,3.0000,-6.0000,5.0000,6.0000,6.0000,-5.0000,6.0000,0.2500,3,2,,"), "{row}");
        assert!(row.ends_with(NOTICE));
    }
}
