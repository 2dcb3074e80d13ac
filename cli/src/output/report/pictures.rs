//! One PNG per scan.

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::summary::ScanAnswer;
use common::imaging::scan::Scan;
use common::report::picture::{Grid, PictureItem, render_scan_picture, to_png};
use common::run::durable::write_atomic;

use super::NOTICE;
use super::stem::stem;

/// Writes `<folder>/<scan>.png` for each scan with predictions.
pub fn write_pictures(
    folder: &Path,
    answers: &[ScanAnswer],
    scans: &[Arc<Scan>],
    names: &[String],
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (index, scan) in scans.iter().enumerate() {
        let items: Vec<PictureItem> = answers
            .iter()
            .filter(|a| a.scan == index)
            .map(|a| item(a, scan, names))
            .collect();
        if items.is_empty() {
            continue;
        }
        let title = format!("{} - {NOTICE}", scan.name);
        let picture = render_scan_picture(&scan.volume, Grid::of(&scan.geometry), &items, &title);
        let file = folder.join(format!("{}.png", stem(index, scans)));
        write_atomic(&file, &to_png(&picture)?)?;
    }
    Ok(())
}

pub(super) fn item(answer: &ScanAnswer, scan: &Scan, names: &[String]) -> PictureItem {
    let agent = usize::from(answer.agent);
    PictureItem {
        name: names
            .get(agent)
            .cloned()
            .unwrap_or_else(|| agent.to_string()),
        truth: scan.landmarks.get(agent).copied().flatten(),
        prediction: Some(answer.position),
        error_mm: answer.error_mm,
        error_voxels: answer.error_voxels,
    }
}
