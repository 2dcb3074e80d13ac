//! `landmarl data check`: reports every problem and every warning in one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::imaging::dataset::{Dataset, Split, Survey, Unused};
use common::report::picture::{Grid, SHEET_SCANS, SheetItem, render_contact_sheet, to_png};
use common::run::durable::write_atomic;
use serde::Serialize;

use super::DataArgs;
use crate::Outcome;
use crate::output::console;
use crate::output::failure::Exit;

/// Find all problems and suspicious values of a data set in one run, in all its splits.
///
/// Problems prevent use of the data: missing or damaged files, lists of different
/// length, unknown landmarks, landmarks outside their scan, duplicate scans, mixed
/// spacings, landmark files that belong to no scan. Warnings mark usable but probably
/// wrong data: odd headers, landmarks in the background, flipped sides, swapped axes, a
/// landmark far from its position in the other scans, a subject in two splits. Exit
/// code 4 if there are any. Other files of a folder that are not used are listed with
/// the reason.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Output folder for contact sheets of all scans with landmarks, those with warnings first
    #[arg(long, value_name = "DIR")]
    sheet: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl data check scans/ --sheet look/
  landmarl data check images.txt --landmarks-files landmarks.txt --landmarks AC,PC
  landmarl data check --config configs/mouse-small.toml --json";

/// The JSON output.
#[derive(Debug, Serialize)]
struct Report {
    scans: usize,
    /// Scans of each split; empty without splits.
    splits: BTreeMap<String, usize>,
    landmarks: Vec<String>,
    problems: Vec<String>,
    warnings: Vec<String>,
    /// Files of the folder that are not used; mistakes are problems too.
    unused: Vec<Unused>,
    sheets: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Outcome {
    let survey = Dataset::survey(&args.data.specs()?);
    let sheets = match &args.sheet {
        Some(folder) => draw(&survey, folder)?,
        None => Vec::new(),
    };
    let report = Report {
        scans: survey.dataset.scans.len(),
        splits: survey
            .splits
            .iter()
            .map(|(split, n)| (split.to_string(), *n))
            .collect(),
        landmarks: survey.dataset.landmark_names.clone(),
        problems: survey.problems.iter().map(ToString::to_string).collect(),
        warnings: survey.warnings.iter().map(ToString::to_string).collect(),
        unused: survey.unused,
        sheets,
    };
    if args.json {
        console::json(&report)?;
    } else {
        console::data(&as_text(&report, &survey.splits))?;
    }
    let fine = report.problems.is_empty() && report.warnings.is_empty();
    Ok(if fine { Exit::Done } else { Exit::Data })
}

fn as_text(report: &Report, splits: &[(Split, usize)]) -> String {
    let mut text = String::new();
    let (problems, warnings) = (&report.problems, &report.warnings);
    let others = report.unused.iter().filter(|unused| !unused.mistake);
    let others: Vec<String> = others.map(ToString::to_string).collect();
    for (title, lines) in [
        ("problems", problems),
        ("warnings", warnings),
        ("not used", &others),
    ] {
        if !lines.is_empty() {
            text += &format!("{title}:\n");
            text.extend(lines.iter().map(|line| format!("  {line}\n")));
        }
    }
    let (scans, landmarks) = (report.scans, report.landmarks.len());
    let (problems, warnings) = (problems.len(), warnings.len());
    let counts = splits
        .iter()
        .map(|(split, count)| format!("{count} {split}"));
    let counts: Vec<String> = counts.collect();
    let counts = match counts.as_slice() {
        [] => String::new(),
        counts => format!(" ({})", counts.join(", ")),
    };
    text += &format!(
        "{scans} scans read{counts}, {landmarks} landmarks each: {problems} problems, \
         {warnings} warnings"
    );
    let unused: usize = report.unused.iter().map(|unused| unused.count).sum();
    match unused {
        0 => {}
        1 => text += ", 1 file not used",
        unused => text += &format!(", {unused} files not used"),
    }
    text += "\n";
    let sheets = report.sheets.iter();
    text.extend(sheets.map(|sheet| format!("contact sheet: {}\n", sheet.display())));
    text
}

/// Draws all scans that could be read, those with warnings first.
fn draw(survey: &Survey, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make {} for contact sheets", folder.display()))?;
    let dataset = &survey.dataset;
    let flagged = |number: usize| {
        let source = &dataset.sources[number];
        survey.warnings.iter().any(|w| w.scan == *source)
    };
    let mut order: Vec<usize> = (0..dataset.scans.len()).collect();
    order.sort_by_key(|&n| (!flagged(n), &dataset.scans[n].name));
    let mut sheets = Vec::new();
    for (page, numbers) in order.chunks(SHEET_SCANS).enumerate() {
        let item = |&n: &usize| {
            let scan = &dataset.scans[n];
            SheetItem {
                name: &scan.name,
                volume: &scan.volume,
                grid: Grid::of(&scan.geometry),
                landmarks: &scan.landmarks,
                flagged: flagged(n),
            }
        };
        let items: Vec<SheetItem<'_>> = numbers.iter().map(item).collect();
        let path = folder.join(format!("contact-sheet-{:02}.png", page + 1));
        write_atomic(&path, &to_png(&render_contact_sheet(&items))?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        sheets.push(path);
    }
    Ok(sheets)
}
