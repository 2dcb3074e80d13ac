//! `results.csv` in the format of rl-medical: a row per scan and start, eight columns
//! per agent; positions are voxels of the scan's own file, distances are mm.

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::evaluate::WalkResult;
use common::imaging::scan::Scan;
use common::run::durable::write_atomic;

/// Placeholder for an unknown landmark.
const UNKNOWN: &str = "N/A";

/// Writes the table.
pub fn write_results(file: &Path, walks: &[WalkResult], scans: &[Arc<Scan>]) -> anyhow::Result<()> {
    let mut order: Vec<&WalkResult> = walks.iter().collect();
    order.sort_by_key(|w| (w.start_index, &scans[w.scan].name, w.scan, w.agent));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (number, row) in order
        .chunk_by(|a, b| (a.start_index, a.scan) == (b.start_index, b.scan))
        .enumerate()
    {
        if number == 0 {
            writer.write_record(header(row.len()))?;
        }
        let mut cells = vec![number.to_string()];
        cells.extend(row.iter().flat_map(|walk| agent(walk, &scans[walk.scan])));
        writer.write_record(&cells)?;
    }
    write_atomic(file, &writer.into_inner()?)?;
    Ok(())
}

fn header(agents: usize) -> Vec<String> {
    let mut columns = vec!["number".to_owned()];
    for i in 0..agents {
        columns.push(format!("Filename {i}"));
        for what in ["Agent", "Landmark"] {
            columns.extend(["x", "y", "z"].map(|axis| format!("{what} {i} pos {axis}")));
        }
        columns.push(format!("Distance {i}"));
    }
    columns
}

fn agent(walk: &WalkResult, scan: &Scan) -> Vec<String> {
    let file = |voxel| scan.geometry.axis_map.to_file(voxel);
    let landmark = scan
        .landmarks
        .get(usize::from(walk.agent))
        .copied()
        .flatten();
    let mut cells = vec![scan.name.clone()];
    cells.extend(file(walk.answer).map(|v| v.to_string()));
    cells.extend(match landmark {
        Some(voxel) => file(voxel).map(|v| v.to_string()),
        None => [UNKNOWN; 3].map(str::to_owned),
    });
    cells.push(
        walk.error_mm
            .map_or_else(|| UNKNOWN.to_owned(), |e| e.to_string()),
    );
    cells
}
