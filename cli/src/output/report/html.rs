//! A self-contained HTML report of an evaluation.

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::summary::{Errors, LandmarkSummary, ScanAnswer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::imaging::scan::Scan;
use common::report::picture::{Grid, render_scan_picture, to_png};
use common::run::durable::write_atomic;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::curve::{Series, cumulative_svg};
use super::pictures::item;
use super::{NOTICE, Summary};

/// Number of worst predictions that are listed, and that are shown with a picture.
const LISTED: usize = 20;
const SHOWN: usize = 5;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888;vertical-align:bottom}\
td{white-space:nowrap}tr.all td{font-weight:600;border-top:2px solid #888}.notice{background:#fff3cd;padding:.5em 1em;border-radius:4px}\
img{max-width:100%}svg{max-width:640px}.wide{overflow-x:auto}small{color:#666}";

/// Writes `report.html` and `cumulative.svg`.
pub fn write_report(
    folder: &Path,
    summary: &Summary,
    answers: &[ScanAnswer],
    walk_errors_mm: Vec<f64>,
    scans: &[Arc<Scan>],
    names: &[String],
) -> anyhow::Result<()> {
    let svg = cumulative_svg(&[
        Series {
            name: "consensus",
            colour: "#0b62c4",
            errors_mm: answers.iter().filter_map(|a| a.error_mm).collect(),
        },
        Series {
            name: "single walks",
            colour: "#6aa5e8",
            errors_mm: walk_errors_mm,
        },
        Series {
            name: "constant guess",
            colour: "#d0552b",
            errors_mm: answers.iter().filter_map(|a| a.guess_error_mm).collect(),
        },
    ]);
    write_atomic(&folder.join("cumulative.svg"), svg.as_bytes())?;
    let worst = worst(answers);
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
                h2 { "Errors" }
                (errors(summary))
                (PreEscaped(svg))
                (confidence(summary))
                h2 { "Worst answers" }
                (list(&worst, names))
                @for answer in worst.iter().take(SHOWN) {
                    (picture(answer, scans, names)?)
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
            "Weights " code { (weights.file.display()) }
            @if let Some(updates) = weights.updates { ", " (updates) " updates" }
            " " small { "(SHA-256 " (weights.sha256) ")" } br;
            "Starts: " (summary.starts) ", seed " (summary.seed) ". "
            "Each answer is the robust mean of a scan's walks. "
            @match &summary.constant_guess_from {
                Some(from) => { "Constant guess: the mean landmark positions in " (from) "." }
                None => { "The constant guess is not known: no training scans were named." }
            }
        }
    }
}

fn mm(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"))
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
                th { "single walks mm" } th { "constant guess mm" } th { "converged" }
            } }
            tbody {
                @for landmark in &summary.landmarks { (error_row(landmark, "")) }
                @if let Some(all) = all { (error_row(all, "all")) }
            }
        } }
    }
}

fn error_row(landmark: &LandmarkSummary, class: &str) -> Markup {
    let ours = landmark.consensus.as_ref();
    let of = |pick: fn(&Errors) -> f64| mm(ours.map(pick));
    let shares = |pick: fn(&Errors) -> [f64; 4]| {
        let shown = ours.map(|e| pick(e).map(|s| format!("{:.0}", 100.0 * s)).join(" · "));
        shown.unwrap_or_else(|| "–".to_owned())
    };
    html! {
        tr class=(class) {
            td { (landmark.name) }
            td { (ours.map_or(0, |e| e.mm.count)) }
            td { (of(|e| e.mm.mean)) br; small {
                @if let Some([low, high]) = ours.and_then(|e| e.mean_interval_mm) {
                    (format!("{low:.2} to {high:.2}"))
                }
            } }
            td { (of(|e| e.mm.median)) } td { (of(|e| e.mm.std)) }
            td { (of(|e| e.mm.p95)) } td { (of(|e| e.mm.max)) }
            td { (shares(|e| e.mm.within)) } td { (shares(|e| e.voxels.within)) }
            td { (of(|e| e.voxels.mean)) }
            td { (mm(landmark.walks.as_ref().map(|e| e.mm.mean))) }
            td { (mm(landmark.guess.as_ref().map(|e| e.mm.mean))) }
            td { (format!("{:.0} %", 100.0 * landmark.converged)) }
        }
    }
}

fn confidence(summary: &Summary) -> Markup {
    html! {
        p { @match &summary.confidence {
            Some(c) => {
                "Spread and error of " (c.answers) " answers: Spearman's rank correlation "
                b { (format!("{:.2}", c.spearman)) }
                @if let Some([low, high]) = c.interval { (format!(" (95 % interval {low:.2} to {high:.2})")) }
                ". At 1 the spread of the walks would put all errors in order; at 0 it says nothing."
            }
            None => { "Whether the spread tells the error is not known: too few answers." }
        } }
    }
}

/// The worst predictions: by error, or by dispersion if no error is known.
fn worst(answers: &[ScanAnswer]) -> Vec<&ScanAnswer> {
    let mut order: Vec<&ScanAnswer> = answers.iter().filter(|a| a.error_mm.is_some()).collect();
    order.sort_by(|a, b| {
        b.error_mm
            .unwrap_or(0.0)
            .total_cmp(&a.error_mm.unwrap_or(0.0))
    });
    order.truncate(LISTED);
    order
}

fn name<'a>(answer: &ScanAnswer, names: &'a [String]) -> &'a str {
    names
        .get(usize::from(answer.agent))
        .map_or("?", String::as_str)
}

fn list(worst: &[&ScanAnswer], names: &[String]) -> Markup {
    html! {
        table {
            thead { tr {
                th { "scan" } th { "landmark" } th { "error mm" } th { "voxels" }
                th { "spread mm" } th { "walks that agree" } th { "constant guess mm" }
            } }
            tbody { @for a in worst {
                tr {
                    td { (a.scan_name) } td { (name(a, names)) }
                    td { (mm(a.error_mm)) } td { (mm(a.error_voxels)) }
                    td { (mm(Some(a.spread_mm))) } td { (a.inliers) " of " (a.walks) }
                    td { (mm(a.guess_error_mm)) }
                }
            } }
        }
    }
}

fn picture(answer: &ScanAnswer, scans: &[Arc<Scan>], names: &[String]) -> anyhow::Result<Markup> {
    let scan = &scans[answer.scan];
    let shown = item(answer, scan, names);
    let drawn = render_scan_picture(&scan.volume, Grid::of(&scan.geometry), &[shown], &scan.name);
    let source = format!("data:image/png;base64,{}", STANDARD.encode(to_png(&drawn)?));
    let text = format!("{}, {}", scan.name, name(answer, names));
    Ok(html! { p { img src=(source) alt=(text); } })
}
