//! One PNG per scan.

use std::path::Path;

use actor::evaluation::summary::ScanPrediction;
use common::imaging::scan::Scan;
use common::report::picture::{Grid, PictureItem, render_scan_picture, to_png};
use common::run::durable::write_atomic;

use super::{NOTICE, Results, landmark, name};

/// Writes `<folder>/<scan>.png` for each scan with predictions.
pub fn write_pictures(folder: &Path, all: &Results<'_>) -> anyhow::Result<()> {
    let (scans, names) = (all.scans, &all.loaded.landmarks);
    std::fs::create_dir_all(folder)?;
    for (index, scan) in scans.iter().enumerate() {
        let predictions = all.predictions.iter().filter(|p| p.scan == index);
        let items: Vec<PictureItem> = predictions.map(|p| item(p, scan, names)).collect();
        if items.is_empty() {
            continue;
        }
        let title = format!("{} - {NOTICE}", scan.name);
        let picture = render_scan_picture(&scan.volume, Grid::of(&scan.geometry), &items, &title);
        let file = folder.join(format!("{}.png", all.files.stem(index)));
        write_atomic(&file, &to_png(&picture)?)?;
    }
    Ok(())
}

pub(super) fn item(prediction: &ScanPrediction, scan: &Scan, names: &[String]) -> PictureItem {
    PictureItem {
        name: name(names, prediction.agent),
        truth: landmark(scan, prediction.agent),
        prediction: Some(prediction.position),
        error_mm: prediction.error_mm,
        error_voxels: prediction.error_voxels,
    }
}
