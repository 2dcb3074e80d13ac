//! Tables on standard output.

use actor::evaluation::summary::{Errors, LandmarkSummary};

use super::{Failure, Prediction};
use crate::output::table::{Table, decimal, number, or_dash};

/// Errors per landmark, with the mean-position baseline. The last column says nothing about
/// errors: it is the share of the episodes that ended before the limit of steps.
pub fn error_table(landmarks: &[LandmarkSummary], all: &LandmarkSummary) -> String {
    let mut table = Table::new(
        "landmark|scans>|mean mm>|95 % interval>|median mm>|95th pct. mm>|max mm>|within 2 mm>|\
         single starts mm>|mean voxels>|baseline mm>|within step limit>",
    );
    let together = (landmarks.len() > 1).then_some(all);
    for l in landmarks.iter().chain(together) {
        table.row(error_row(l));
    }
    table.render()
}

fn error_row(l: &LandmarkSummary) -> Vec<String> {
    let of = |errors: &Option<Errors>, pick: fn(&Errors) -> f64| number(errors.as_ref().map(pick));
    let consensus = l.consensus.as_ref();
    let interval = consensus.and_then(|e| e.mean_interval_mm);
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    vec![
        l.name.clone(),
        consensus.map_or(0, |c| c.mm.count).to_string(),
        of(&l.consensus, |e| e.mm.mean),
        or_dash(interval.map(|[low, high]| format!("{} to {}", decimal(low, 2), decimal(high, 2)))),
        of(&l.consensus, |e| e.mm.median),
        of(&l.consensus, |e| e.mm.p95),
        of(&l.consensus, |e| e.mm.max),
        or_dash(consensus.map(|e| percent(e.mm.within[1]))),
        of(&l.starts, |e| e.mm.mean),
        of(&l.consensus, |e| e.voxels.mean),
        of(&l.baseline, |e| e.mm.mean),
        percent(l.converged),
    ]
}

/// One line per failure.
pub fn failure_lines(failures: &[Failure], limit_mm: f64) -> String {
    if failures.is_empty() {
        return format!("no prediction is farther off than {limit_mm:.2} mm\n");
    }
    let mut table = Table::new("scan|landmark|error mm>|dispersion mm>");
    for f in failures {
        let [error, dispersion] = [f.error_mm, f.dispersion_mm].map(|mm| number(Some(mm)));
        table.row(vec![f.scan.clone(), f.landmark.clone(), error, dispersion]);
    }
    let (count, table) = (failures.len(), table.render());
    format!("farther off than {limit_mm:.2} mm ({count}):\n{table}")
}

/// Predicted positions, for `play`.
pub fn prediction_table(predictions: &[Prediction]) -> String {
    let mut table = Table::new(
        "scan|landmark|file voxel (i, j, k)>|RAS mm>|LPS mm>|dispersion mm>|starts averaged>",
    );
    let point = |p: [f64; 3]| p.map(|v| decimal(v, 1)).join(", ");
    for p in predictions {
        table.row(vec![
            p.scan.clone(),
            p.landmark.clone(),
            point(p.predicted.file_voxel),
            point(p.predicted.ras_mm),
            point(p.predicted.lps_mm),
            number(Some(p.dispersion_mm)),
            format!("{} of {}", p.inliers, p.trajectories),
        ]);
    }
    table.render()
}
