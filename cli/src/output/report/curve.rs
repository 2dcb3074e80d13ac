//! The cumulative error curve as SVG: the share of predictions within each distance.

use std::fmt::Write as _;

use common::report::statistics::percentile;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 44.0;

/// A named series of errors in mm.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: &'static str,
    pub colour: &'static str,
    pub errors_mm: Vec<f64>,
}

/// Draws all series with errors; the axis ends at the 98th percentile of the first
/// series, and at 1 mm at least.
pub fn cumulative_svg(series: &[Series]) -> String {
    let series: Vec<&Series> = series.iter().filter(|s| !s.errors_mm.is_empty()).collect();
    let far = series
        .first()
        .map_or(1.0, |s| percentile(&s.errors_mm, 0.98));
    let end = nice_end(far * 1.25);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"cumulative errors\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    axes(&mut svg, end);
    for (number, one) in series.iter().enumerate() {
        curve(&mut svg, one, end);
        #[expect(clippy::cast_precision_loss, reason = "a handful of curves")]
        let y = HEIGHT - BOTTOM - 14.0 - 16.0 * (series.len() - 1 - number) as f64;
        let (x, colour) = (WIDTH - RIGHT - 150.0, one.colour);
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {y}h22\" stroke=\"{colour}\" stroke-width=\"2.5\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#222\">{}</text>",
            x + 28.0,
            y + 4.0,
            one.name
        );
    }
    svg + "</svg>\n"
}

/// A round number that is at least `value`.
fn nice_end(value: f64) -> f64 {
    let value = Some(value)
        .filter(|v| v.is_finite())
        .unwrap_or(1.0)
        .max(1.0);
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let ends = steps.map(|s| s * power);
    ends.into_iter().find(|end| *end >= value).unwrap_or(value)
}

fn x_of(error: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (error / end).min(1.0)
}

fn y_of(share: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
}

fn axes(svg: &mut String, end: f64) {
    for step in 0..=5 {
        let part = f64::from(step) / 5.0;
        let (x, y) = (x_of(part * end, end), y_of(part));
        let (right, low) = (WIDTH - RIGHT, y_of(0.0));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{right}M{x:.1} {TOP}V{low}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{:.0} %</text>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            100.0 * part,
            low + 16.0,
            trimmed(part * end)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#222\">error (mm)</text>\
         <text x=\"{LEFT}\" y=\"{}\" fill=\"#222\">predictions with at most this error</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        TOP - 10.0
    );
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A step up at every error.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 predictions")]
fn curve(svg: &mut String, series: &Series, end: f64) {
    let mut errors = series.errors_mm.clone();
    errors.sort_by(f64::total_cmp);
    let count = errors.len() as f64;
    let mut path = format!("M{:.1} {:.1}", x_of(0.0, end), y_of(0.0));
    let shown = errors.iter().take_while(|e| **e <= end);
    let mut share = 0.0;
    for (number, error) in shown.enumerate() {
        share = (number + 1) as f64 / count;
        let _ = write!(path, "H{:.1}V{:.1}", x_of(*error, end), y_of(share));
    }
    let _ = write!(path, "H{:.1}", x_of(end, end));
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"><title>{}: {:.1} % up to {end} mm</title></path>",
        series.colour,
        series.name,
        100.0 * share
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_steps_at_each_error_and_ends_at_the_axis() {
        let series = |name, errors_mm: &[f64]| Series {
            name,
            colour: "#06c",
            errors_mm: errors_mm.to_vec(),
        };
        let svg = cumulative_svg(&[series("ours", &[0.5, 1.0, 2.0, 40.0]), series("none", &[])]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<title>").count(), 1, "no curve without errors");
        assert!(svg.contains("ours: 100.0 % up to 50 mm"), "{svg}");
        let near = cumulative_svg(&[series("near", &[0.1, 0.2]), series("far", &[0.3, 9.0])]);
        for part in ["near: 100.0 % up to 1 mm", "far: 50.0 % up to 1 mm"] {
            assert!(near.contains(part), "{near}");
        }
        // Half of the predictions are within half a millimetre: the middle of the axis.
        let half = cumulative_svg(&[series("a", &[0.5, 0.5])]);
        let middle = format!("H{:.1}V{:.1}", x_of(0.5, 1.0), y_of(0.5));
        assert!(half.contains(&middle), "{half}");
        assert!(cumulative_svg(&[]).contains("error (mm)"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let cases = [
            (0.2, 1.0),
            (1.2, 1.5),
            (7.0, 8.0),
            (62.0, 80.0),
            (100.0, 100.0),
        ];
        for (value, end) in cases {
            assert!((nice_end(value) - end).abs() < 1e-9, "{value}");
        }
        assert!((nice_end(f64::NAN) - 1.0).abs() < 1e-9);
    }
}
