//! `results.csv` in the format of rl-medical: a row per scan and start, eight columns
//! per agent; positions are voxels of the scan's own file, distances are mm.

use std::path::Path;

use actor::evaluation::evaluate::StartResult;
use common::imaging::scan::Scan;
use common::report::text::unsigned_zeros;
use common::run::durable::write_atomic;

use super::{Results, landmark};

/// Placeholder for an unknown landmark.
const UNKNOWN: &str = "N/A";

/// Writes the table.
pub fn write_results(file: &Path, all: &Results<'_>) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let same =
        |a: &&StartResult, b: &&StartResult| (a.start_index, a.scan) == (b.start_index, b.scan);
    for (number, row) in all.ordered().chunk_by(same).enumerate() {
        if number == 0 {
            writer.write_record(header(row.len()))?;
        }
        let mut cells = vec![number.to_string()];
        let agents = row.iter().flat_map(|r| agent(r, &all.scans[r.scan]));
        cells.extend(agents);
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

fn agent(result: &StartResult, scan: &Scan) -> Vec<String> {
    let file = |voxel| {
        let voxel = unsigned_zeros(scan.geometry.axis_map.to_file(voxel));
        voxel.map(|v| v.to_string())
    };
    let unknown = || UNKNOWN.to_owned();
    let mut cells = vec![scan.name.clone()];
    cells.extend(file(result.prediction));
    let truth = landmark(scan, result.agent);
    cells.extend(truth.map_or_else(|| [(); 3].map(|()| unknown()), file));
    cells.push(result.error_mm.map_or_else(unknown, |e| e.to_string()));
    cells
}
