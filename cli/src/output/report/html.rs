//! A self-contained HTML report of an evaluation.

use std::path::Path;

use actor::evaluation::summary::{Errors, LandmarkSummary, ScanPrediction};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::report::picture::{Grid, render_scan_picture, to_png};
use common::report::statistics::CORRELATION_MIN;
use common::run::durable::write_atomic;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::curve::{Series, cumulative_svg};
use super::pictures::item;
use super::{AGREEMENT, NOTICE, Results, Summary, baseline_verdict, name, weights_line};
use crate::output::table::{decimal, number, or_dash};

/// Number of worst predictions that are listed, and that are shown with a picture.
const LISTED: usize = 20;
const SHOWN: usize = 5;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888;vertical-align:bottom}\
td{white-space:nowrap}tr.all td{font-weight:600;border-top:2px solid #888}.notice{background:#fff3cd;padding:.5em 1em;border-radius:4px}\
img{max-width:100%}svg{max-width:640px}.wide{overflow-x:auto}small{color:#666}";

/// Writes `report.html` and `cumulative.svg`.
pub fn write_report(folder: &Path, summary: &Summary, all: &Results<'_>) -> anyhow::Result<()> {
    let (predictions, names) = (all.predictions, &all.loaded.landmarks);
    let series = |name, colour, errors_mm| Series {
        name,
        colour,
        errors_mm,
    };
    let consensus = predictions.iter().filter_map(|p| p.error_mm);
    let starts = all.trajectories.iter().filter_map(|r| r.error_mm);
    let baseline = predictions.iter().filter_map(|p| p.baseline_error_mm);
    let svg = cumulative_svg(&[
        series("consensus", "#0b62c4", consensus.collect()),
        series("single starts", "#6aa5e8", starts.collect()),
        series("mean-position baseline", "#d0552b", baseline.collect()),
    ]);
    write_atomic(&folder.join("cumulative.svg"), svg.as_bytes())?;
    let worst = worst(predictions);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "landmarl: " (summary.scans.len()) " scans" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Landmarks in " (summary.scans.len()) " scans" }
                p.notice { (NOTICE) }
                (facts(summary))
                @if let Some(worse) = baseline_verdict(summary) { p.notice { (worse) } }
                h2 { "Errors" }
                (errors(summary))
                (PreEscaped(svg))
                (confidence(summary))
                h2 { "Worst predictions" }
                (list(&worst, names))
                @for prediction in worst.iter().take(SHOWN) {
                    (picture(prediction, all)?)
                }
            }
        }
    };
    write_atomic(&folder.join("report.html"), page.into_string().as_bytes())?;
    Ok(())
}

fn facts(summary: &Summary) -> Markup {
    let weights = &summary.weights;
    html! {
        p {
            (weights_line(weights)) " " small { "(SHA-256 " (weights.sha256) ")" } br;
            "Starts: " (summary.starts) ", seed " (summary.seed) ". "
            "Each prediction is the robust mean of a scan's trajectories. "
            @match &summary.baseline_from {
                Some(from) => { "Mean-position baseline: the mean landmark positions in " (from) "." }
                None => { "The mean-position baseline is unknown: no training scans were given." }
            }
        }
    }
}

fn errors(summary: &Summary) -> Markup {
    let all = (summary.landmarks.len() > 1).then_some(&summary.all);
    html! {
        div.wide { table {
            thead { tr {
                th { "landmark" } th { "scans" }
                th { "mean mm" br; small { "95 % interval" } }
                th { "median" } th { "std" } th { "95th pct." } th { "largest" }
                th { "% within 1 · 2 · 3 · 4 mm" } th { "% within 1 · 2 · 3 · 4 voxels" } th { "mean voxels" }
                th { "single starts mm" } th { "baseline mm" }
                th { "within step limit" }
            } }
            tbody {
                @for landmark in &summary.landmarks { (error_row(landmark, "")) }
                @if let Some(all) = all { (error_row(all, "all")) }
            }
        } }
        p { small {
            "Within step limit: the share of the episodes that ended before the limit of steps; "
            "it says nothing about where they ended."
        } }
    }
}

fn error_row(landmark: &LandmarkSummary, class: &str) -> Markup {
    let ours = landmark.consensus.as_ref();
    let of = |pick: fn(&Errors) -> f64| number(ours.map(pick));
    let shares = |pick: fn(&Errors) -> [f64; 4]| {
        or_dash(ours.map(|e| pick(e).map(|s| format!("{:.0}", 100.0 * s)).join(" · ")))
    };
    html! {
        tr class=(class) {
            td { (landmark.name) }
            td { (ours.map_or(0, |e| e.mm.count)) }
            td { (of(|e| e.mm.mean)) br; small {
                @if let Some([low, high]) = ours.and_then(|e| e.mean_interval_mm) {
                    (interval(low, high))
                }
            } }
            td { (of(|e| e.mm.median)) } td { (of(|e| e.mm.std)) }
            td { (of(|e| e.mm.p95)) } td { (of(|e| e.mm.max)) }
            td { (shares(|e| e.mm.within)) } td { (shares(|e| e.voxels.within)) }
            td { (of(|e| e.voxels.mean)) }
            td { (number(landmark.starts.as_ref().map(|e| e.mm.mean))) }
            td { (number(landmark.baseline.as_ref().map(|e| e.mm.mean))) }
            td { (format!("{:.0} %", 100.0 * landmark.converged)) }
        }
    }
}

fn confidence(summary: &Summary) -> Markup {
    html! {
        p { @match &summary.confidence {
            Some(c) => {
                "Dispersion and error of " (c.predictions) " predictions: Spearman's rank correlation "
                b { (decimal(c.spearman, 2)) }
                @if let Some([low, high]) = c.interval { " (95 % interval " (interval(low, high)) ")" }
                ". At 1 the dispersion of the trajectories ranks all errors correctly; at 0 it is uninformative."
            }
            None => {
                "The correlation of dispersion and error is not shown: it takes at least "
                (CORRELATION_MIN) " predictions whose dispersions and errors differ."
            }
        } }
    }
}

fn interval(low: f64, high: f64) -> String {
    format!("{} to {}", decimal(low, 2), decimal(high, 2))
}

/// The predictions with the largest errors.
fn worst(predictions: &[ScanPrediction]) -> Vec<&ScanPrediction> {
    let known = predictions.iter().filter(|p| p.error_mm.is_some());
    let mut order: Vec<&ScanPrediction> = known.collect();
    let error = |p: &ScanPrediction| p.error_mm.unwrap_or(0.0);
    order.sort_by(|a, b| error(b).total_cmp(&error(a)));
    order.truncate(LISTED);
    order
}

fn list(worst: &[&ScanPrediction], names: &[String]) -> Markup {
    html! {
        p { small { (AGREEMENT) "." } }
        table {
            thead { tr {
                th { "scan" } th { "landmark" } th { "error mm" } th { "voxels" }
                th { "dispersion mm" } th { "starts averaged" } th { "baseline mm" }
            } }
            tbody { @for p in worst {
                tr {
                    td { (p.scan_name) } td { (name(names, p.agent)) }
                    td { (number(p.error_mm)) } td { (number(p.error_voxels)) }
                    td { (number(Some(p.dispersion_mm))) } td { (p.inliers) " of " (p.trajectories) }
                    td { (number(p.baseline_error_mm)) }
                }
            } }
        }
    }
}

fn picture(prediction: &ScanPrediction, all: &Results<'_>) -> anyhow::Result<Markup> {
    let (scan, names) = (&all.scans[prediction.scan], &all.loaded.landmarks);
    let shown = item(prediction, scan, names);
    let drawn = render_scan_picture(&scan.volume, Grid::of(&scan.geometry), &[shown], &scan.name);
    let source = format!("data:image/png;base64,{}", STANDARD.encode(to_png(&drawn)?));
    let text = format!("{}, {}", scan.name, name(names, prediction.agent));
    Ok(html! { p { img src=(source) alt=(text); } })
}
