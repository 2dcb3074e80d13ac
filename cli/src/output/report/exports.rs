//! Landmarks for other programs, in each scan's world coordinates: 3D Slicer's
//! `.mrk.json` and `.fcsv`, a table, and a label map.

use std::path::Path;

use actor::evaluation::summary::ScanPrediction;
use anyhow::Context as _;
use common::imaging::label_map::{LabelMap, MAX_LABELS};
use common::imaging::landmark_file::write::{Mark, csv, fcsv, markups_json};
use common::imaging::scan::Scan;
use common::run::durable::write_atomic;

use super::{NOTICE, Results};
use crate::output::console;
use crate::output::table::decimal;

/// As in the pictures: predictions are cyan, ground truth is red.
const PREDICTION: [f64; 3] = [0.0, 1.0, 1.0];
const TRUTH: [f64; 3] = [1.0, 0.0, 0.0];

/// Default radius of a landmark's sphere, in finest voxels.
const RADIUS_VOXELS: f64 = 3.0;

/// How landmarks are exported.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Sphere radius in the label maps [default: 3 voxels]
    #[arg(long, value_name = "MM", value_parser = radius)]
    label_radius_mm: Option<f64>,
}

fn radius(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok();
    let value = value.filter(|r| (0.0..=f64::MAX).contains(r));
    value.ok_or_else(|| "give a number of millimetres, 0 or more".to_owned())
}

/// Names the labels.
pub const LEGEND: &str = "labels.csv";

const MARKUPS: &str = ".mrk.json";
const FIDUCIALS: &str = ".fcsv";
const TABLE: &str = ".csv";
const LABEL_MAP: &str = "_label.nii.gz";
/// Of the known landmarks.
const KNOWN: &str = "_truth.mrk.json";

/// The endings of a scan's exports.
pub fn export_endings(labelled: bool) -> &'static [&'static str] {
    const ALL: [&str; 5] = [MARKUPS, FIDUCIALS, TABLE, LABEL_MAP, KNOWN];
    if labelled { &ALL } else { &ALL[..4] }
}

/// Writes, for each scan with predictions, `<scan>.mrk.json`, `.fcsv`, `.csv` and
/// `_label.nii.gz`, `<scan>_truth.mrk.json` if landmarks are known, and
/// `labels.csv`, which names the labels. Scans whose files would have the name of another
/// file are numbered ([`crate::output::outputs::FilePlan`]).
pub fn write_exports(folder: &Path, all: &Results<'_>, args: &ExportArgs) -> anyhow::Result<()> {
    let (scans, names) = (all.scans, &all.loaded.landmarks);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    if names.len() > MAX_LABELS {
        console::note(&format!(
            "warning: label maps hold at most {MAX_LABELS} landmarks; {} are left out of them",
            names.len() - MAX_LABELS
        ));
    }
    for (index, scan) in scans.iter().enumerate() {
        let of_scan = all.predictions.iter().filter(|p| p.scan == index);
        let of_scan: Vec<&ScanPrediction> = of_scan.collect();
        if of_scan.is_empty() {
            continue;
        }
        let stem = all.files.stem(index);
        write_marks(folder, stem, scan, &of_scan, names)?;
        let spacing = scan.geometry.spacing_mm.into_iter();
        let finest = spacing.fold(f64::MAX, f64::min);
        let radius = args.label_radius_mm.unwrap_or(RADIUS_VOXELS * finest);
        let mut positions = vec![None; names.len()];
        for prediction in of_scan {
            if let Some(slot) = positions.get_mut(usize::from(prediction.agent)) {
                *slot = Some(prediction.position);
            }
        }
        LabelMap::spheres(&scan.geometry, &positions, radius)
            .write(&folder.join(format!("{stem}{LABEL_MAP}")))?;
    }
    write_atomic(&folder.join(LEGEND), legend(names)?.as_bytes())?;
    Ok(())
}

fn write_marks(
    folder: &Path,
    stem: &str,
    scan: &Scan,
    predictions: &[&ScanPrediction],
    names: &[String],
) -> anyhow::Result<()> {
    let name = |agent: usize| names.get(agent).map_or("", String::as_str);
    let remarks: Vec<String> = predictions.iter().map(|p| remark(p)).collect();
    let mark = |agent, voxel, remark| Mark {
        name: name(agent),
        ras_mm: scan.geometry.affine.to_world(voxel),
        remark,
    };
    let found = predictions.iter().zip(&remarks);
    let found: Vec<Mark<'_>> = found
        .map(|(p, remark)| mark(usize::from(p.agent), p.position, remark.as_str()))
        .collect();
    let write = |ending: &str, text: String| {
        write_atomic(&folder.join(format!("{stem}{ending}")), text.as_bytes())
    };
    let title = format!("{stem} prediction");
    write(MARKUPS, markups_json(&title, PREDICTION, &found)?)?;
    write(FIDUCIALS, fcsv(&found)?)?;
    write(TABLE, csv(&found)?)?;
    let known = scan.landmarks.iter().enumerate();
    let truth: Vec<Mark<'_>> = known
        .filter_map(|(agent, voxel)| Some(mark(agent, (*voxel)?, "ground truth")))
        .collect();
    if !truth.is_empty() {
        let title = format!("{stem} truth");
        write(KNOWN, markups_json(&title, TRUTH, &truth)?)?;
    }
    Ok(())
}

/// Agreement of starts is not accuracy, so the comment names no more than what was averaged.
fn remark(prediction: &ScanPrediction) -> String {
    let (averaged, all) = (prediction.inliers, prediction.trajectories);
    let apart = decimal(prediction.dispersion_mm, 2);
    format!(
        "mean of {averaged} of {all} starts; dispersion {apart} mm: how far their end positions \
         lie from it, not how far the landmark is; {NOTICE}"
    )
}

/// The landmark of each label in the label maps, as CSV.
fn legend(names: &[String]) -> anyhow::Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(["label", "landmark"])?;
    for (name, label) in names.iter().zip(1..=MAX_LABELS) {
        writer.write_record([&label.to_string(), name])?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
