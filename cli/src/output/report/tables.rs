//! Tables on standard output.

use actor::evaluation::summary::{Errors, LandmarkSummary};

use super::{Failure, Prediction};
use crate::output::table::{Align, Table, number};

/// Errors per landmark, with the mean-position baseline.
pub fn error_table(landmarks: &[LandmarkSummary], all: &LandmarkSummary) -> String {
    let mut table = Table::new(&[
        ("landmark", Align::Left),
        ("scans", Align::Right),
        ("mean mm", Align::Right),
        ("95 % interval", Align::Right),
        ("median mm", Align::Right),
        ("95th pct. mm", Align::Right),
        ("max mm", Align::Right),
        ("within 2 mm", Align::Right),
        ("single walks mm", Align::Right),
        ("mean voxels", Align::Right),
        ("constant guess mm", Align::Right),
        ("converged", Align::Right),
    ]);
    let together = (landmarks.len() > 1).then_some(all);
    for l in landmarks.iter().chain(together) {
        table.row(error_row(l));
    }
    table.render()
}

fn error_row(l: &LandmarkSummary) -> Vec<String> {
    let of = |errors: &Option<Errors>, pick: fn(&Errors) -> f64| number(errors.as_ref().map(pick));
    vec![
        l.name.clone(),
        l.consensus.as_ref().map_or(0, |c| c.mm.count).to_string(),
        of(&l.consensus, |e| e.mm.mean),
        interval(l.consensus.as_ref()),
        of(&l.consensus, |e| e.mm.median),
        of(&l.consensus, |e| e.mm.p95),
        of(&l.consensus, |e| e.mm.max),
        l.consensus.as_ref().map_or_else(
            || number(None),
            |e| format!("{:.0} %", 100.0 * e.mm.within[1]),
        ),
        of(&l.walks, |e| e.mm.mean),
        of(&l.consensus, |e| e.voxels.mean),
        of(&l.guess, |e| e.mm.mean),
        format!("{:.0} %", 100.0 * l.converged),
    ]
}

fn interval(errors: Option<&Errors>) -> String {
    let interval = errors.and_then(|e| e.mean_interval_mm);
    interval.map_or_else(
        || number(None),
        |[low, high]| format!("{low:.2} to {high:.2}"),
    )
}

/// One line per failure.
pub fn failure_lines(failures: &[Failure], limit_mm: f64) -> String {
    if failures.is_empty() {
        return format!("no answer is farther off than {limit_mm:.2} mm\n");
    }
    let mut table = Table::new(&[
        ("scan", Align::Left),
        ("landmark", Align::Left),
        ("error mm", Align::Right),
        ("spread mm", Align::Right),
    ]);
    for f in failures {
        let cells = [number(Some(f.error_mm)), number(Some(f.spread_mm))];
        table.row(
            [f.scan.clone(), f.landmark.clone()]
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    format!(
        "farther off than {limit_mm:.2} mm ({}):\n{}",
        failures.len(),
        table.render()
    )
}

/// Predicted positions, for `play`.
pub fn prediction_table(predictions: &[Prediction]) -> String {
    let mut table = Table::new(&[
        ("scan", Align::Left),
        ("landmark", Align::Left),
        ("file voxel (i, j, k)", Align::Right),
        ("RAS mm", Align::Right),
        ("LPS mm", Align::Right),
        ("spread mm", Align::Right),
        ("walks", Align::Right),
    ]);
    let point = |p: [f64; 3]| format!("{:.1}, {:.1}, {:.1}", p[0], p[1], p[2]);
    for p in predictions {
        table.row(vec![
            p.scan.clone(),
            p.landmark.clone(),
            point(p.predicted.file_voxel),
            point(p.predicted.ras_mm),
            point(p.predicted.lps_mm),
            number(Some(p.spread_mm)),
            format!("{}/{}", p.inliers, p.walks),
        ]);
    }
    table.render()
}
