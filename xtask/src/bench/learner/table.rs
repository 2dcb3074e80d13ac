//! Figures side by side, and the ratios that they are measured for.

use super::record::{Ceiling, Precision, Run, Side};

/// All turns of one side in one precision.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    side: Side,
    precision: Precision,
    turns: usize,
    ms: f64,
    render_ms: Option<f64>,
    gflop: Option<f64>,
}

impl Row {
    /// None if that side did not run in it.
    fn of(runs: &[Run], side: Side, precision: Precision) -> Option<Self> {
        let chosen: Vec<&Run> = runs
            .iter()
            .filter(|run| run.side == side && run.precision == precision)
            .collect();
        Some(Self {
            side,
            precision,
            turns: chosen.len(),
            ms: median(chosen.iter().map(|run| run.ms_per_update).collect())?,
            render_ms: median(chosen.iter().filter_map(|run| run.render_ms).collect()),
            gflop: median(
                chosen
                    .iter()
                    .filter_map(|run| run.gflop_per_update)
                    .collect(),
            ),
        })
    }

    /// Both sides do the same arithmetic; `gflop` is for one that did not say.
    fn tflops(&self, gflop: Option<f64>) -> Option<f64> {
        // Thousands of both kinds cancel: GFLOP per ms is TFLOP per s.
        Some(self.gflop.or(gflop)? / self.ms)
    }

    fn line(&self, gflop: Option<f64>, ceiling: Option<&Ceiling>) -> String {
        let side = match self.side {
            Side::Landmarl => "landmarl",
            Side::Pytorch => "PyTorch",
        };
        let tflops = self.tflops(gflop);
        let share = tflops.zip(ceiling.and_then(|c| c.of(self.precision)));
        let share =
            share.map(|(tflops, (name, top))| format!("{:.0} % of {name}", 100.0 * tflops / top));
        let render = self
            .render_ms
            .map(|ms| format!("{:.1} %", 100.0 * ms / self.ms));
        let none = || "-".to_owned();
        format!(
            "{side:9} {:9} {:>5} {:>13.2} {:>10.2} {:>9} {:>13} {:>8}",
            self.precision.name(),
            self.turns,
            self.ms,
            1000.0 / self.ms,
            tflops.map_or_else(none, |t| format!("{t:.3}")),
            share.unwrap_or_else(none),
            render.unwrap_or_else(none),
        )
    }
}

/// The table and, below it, how many times as fast we are.
pub fn lines(runs: &[Run], ceiling: Option<&Ceiling>) -> Vec<String> {
    let mut rows = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        for side in [Side::Landmarl, Side::Pytorch] {
            rows.extend(Row::of(runs, side, precision));
        }
    }
    let Some(first) = runs.first() else {
        return vec!["nothing was measured".to_owned()];
    };
    let gflop = median(rows.iter().filter_map(|row| row.gflop).collect());
    let mut lines = vec![
        format!("batch {}, medians over turns", first.batch),
        format!(
            "{:9} {:9} {:>5} {:>13} {:>10} {:>9} {:>13} {:>8}",
            "side",
            "precision",
            "turns",
            "ms per update",
            "updates/s",
            "TFLOP/s",
            "of ceiling",
            "windows"
        ),
    ];
    lines.extend(rows.iter().map(|row| row.line(gflop, ceiling)));
    lines.extend(ratios(&rows));
    lines.push("windows: rendered by us; stacked and copied to the device by PyTorch".to_owned());
    lines
}

/// Against the same precision, and our bf16 against their f32 as well.
fn ratios(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for ours in rows.iter().filter(|row| row.side == Side::Landmarl) {
        for theirs in rows.iter().filter(|row| row.side == Side::Pytorch) {
            let fair = theirs.precision == ours.precision || theirs.precision == Precision::F32;
            if fair {
                lines.push(format!(
                    "landmarl {} is {:.2} times as fast as PyTorch {}",
                    ours.precision.name(),
                    theirs.ms / ours.ms,
                    theirs.precision.name()
                ));
            }
        }
    }
    lines
}

/// The mean of the two in the middle, where there are two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len().is_multiple_of(2) {
        return Some(f64::midpoint(values[middle - 1], upper));
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(side: Side, precision: Precision, ms: f64, gflop: Option<f64>) -> Run {
        Run {
            side,
            precision,
            batch: 16,
            ms_per_update: ms,
            render_ms: (side == Side::Landmarl).then_some(ms / 50.0),
            gflop_per_update: gflop,
        }
    }

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![3.0, 1.0], Some(2.0)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
    }

    #[test]
    fn speed_share_and_ratio() {
        use Precision::{Bf16, F32};
        let runs = [
            run(Side::Landmarl, F32, 100.0, Some(5.0)),
            run(Side::Pytorch, F32, 190.0, None),
            run(Side::Landmarl, F32, 300.0, Some(5.0)),
            run(Side::Pytorch, F32, 210.0, None),
            run(Side::Landmarl, Bf16, 100.0, Some(5.0)),
        ];
        let ceiling = Ceiling {
            f32_tflops: Some(0.1),
            bf16_tflops: None,
            tf32_tflops: None,
            cudnn_allow_tf32: true,
        };
        let lines = lines(&runs, Some(&ceiling));
        let words = |i: usize| lines[i].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(2),
            "landmarl f32 2 200.00 5.00 0.025 25 % of f32 2.0 %"
        );
        assert_eq!(words(3), "PyTorch f32 2 200.00 5.00 0.025 25 % of f32 -");
        assert_eq!(words(4), "landmarl bf16 1 100.00 10.00 0.050 - 2.0 %");
        assert_eq!(
            lines[5..7],
            [
                "landmarl f32 is 1.00 times as fast as PyTorch f32",
                "landmarl bf16 is 2.00 times as fast as PyTorch f32"
            ]
        );
    }

    #[test]
    fn a_side_that_is_missing_leaves_the_other() {
        let alone = [run(Side::Pytorch, Precision::F32, 4.0, None)];
        let lines = lines(&alone, None);
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("PyTorch"), "{}", lines[2]);
        assert_eq!(super::lines(&[], None), ["nothing was measured"]);
    }
}
