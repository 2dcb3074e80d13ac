//! `landmarl data stats`: describes a data set and its mean-position baseline.

use std::sync::Arc;

use common::imaging::dataset::{Dataset, mean_landmarks};
use common::imaging::scan::Scan;
use serde::Serialize;

use super::DataArgs;
use crate::Outcome;
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::table::{Table, number};

/// Describe scans and landmarks, with the error of the mean-position baseline.
///
/// The baseline predicts each landmark's mean position (RAS mm) in all other scans
/// (leave one out). A method that uses the image must have a smaller error.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl data stats scans.csv --landmarks AC,PC
  landmarl data stats --config configs/mouse-small.toml --json";

#[derive(Debug, Serialize)]
struct Stats {
    scans: usize,
    /// Smallest and largest number of voxels per axis, on RAS axes.
    voxels: [[usize; 3]; 2],
    /// Smallest and largest spacing per axis, mm.
    spacing_mm: [[f64; 3]; 2],
    landmarks: Vec<LandmarkStats>,
}

#[derive(Debug, Serialize)]
struct LandmarkStats {
    name: String,
    /// Number of scans with this landmark.
    known: usize,
    missing: usize,
    mean_ras_mm: Option<[f64; 3]>,
    /// Standard deviation per axis, RAS mm, over scans; needs at least two.
    std_ras_mm: Option<[f64; 3]>,
    /// Mean distance to the mean of all other scans; needs at least two.
    baseline_error_mm: Option<f64>,
}

pub fn run(args: &Args) -> Outcome {
    let dataset = Dataset::load(&args.data.spec()?)?;
    console::data_warnings(&dataset.warnings);
    for unused in &dataset.unused {
        console::note(&format!("not used: {unused}"));
    }
    let stats = Stats::of(&dataset);
    if args.json {
        console::json(&stats)?;
    } else {
        console::data(&stats.as_text())?;
    }
    Ok(Exit::Done)
}

impl Stats {
    fn of(dataset: &Dataset) -> Self {
        let scans = &dataset.scans;
        let dims = |i: usize| scans.iter().map(move |s| s.geometry.dims[i]);
        let spacing = |i: usize| scans.iter().map(move |s| s.geometry.spacing_mm[i]);
        let least = |i: usize| spacing(i).fold(f64::INFINITY, f64::min);
        let most = |i: usize| spacing(i).fold(0.0, f64::max);
        let means = mean_landmarks(scans);
        let names = dataset.landmark_names.iter().enumerate();
        Self {
            scans: scans.len(),
            voxels: [
                std::array::from_fn(|i| dims(i).min().unwrap_or(0)),
                std::array::from_fn(|i| dims(i).max().unwrap_or(0)),
            ],
            spacing_mm: [std::array::from_fn(least), std::array::from_fn(most)],
            landmarks: names
                .map(|(l, name)| landmark(name, l, scans, means.get(l).copied().flatten()))
                .collect(),
        }
    }

    fn as_text(&self) -> String {
        let mut table =
            Table::new("landmark|known>|missing>|mean R>|A>|S mm>|std R>|A>|S mm>|baseline mm>");
        for l in &self.landmarks {
            let three = |v: Option<[f64; 3]>| (0..3).map(move |i| number(v.map(|v| v[i])));
            let mut cells = vec![l.name.clone(), l.known.to_string(), l.missing.to_string()];
            cells.extend(three(l.mean_ras_mm).chain(three(l.std_ras_mm)));
            cells.push(number(l.baseline_error_mm));
            table.row(cells);
        }
        let ([fewest, most], [finest, coarsest]) = (self.voxels, self.spacing_mm);
        let (scans, table) = (self.scans, table.render());
        format!(
            "{scans} scans of {fewest:?} to {most:?} voxels, {finest:.4?} to {coarsest:.4?} mm\n{table}"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "few scans")]
fn landmark(
    name: &str,
    index: usize,
    scans: &[Arc<Scan>],
    mean: Option<[f64; 3]>,
) -> LandmarkStats {
    let places = scans.iter().filter_map(|scan| {
        let voxel = (*scan.landmarks.get(index)?)?;
        Some(scan.geometry.affine.to_world(voxel))
    });
    let places: Vec<[f64; 3]> = places.collect();
    let n = places.len() as f64;
    // The distance to the mean of all others is larger by a factor of n / (n − 1).
    let baseline = |mean: [f64; 3]| {
        let distance = |p: &[f64; 3]| (0..3).map(|i| (p[i] - mean[i]).powi(2)).sum::<f64>().sqrt();
        places.iter().map(distance).sum::<f64>() / n * (n / (n - 1.0))
    };
    let deviation = |mean: [f64; 3]| -> [f64; 3] {
        std::array::from_fn(|i| {
            let squares: f64 = places.iter().map(|p| (p[i] - mean[i]).powi(2)).sum();
            (squares / (n - 1.0)).sqrt()
        })
    };
    let several = mean.filter(|_| places.len() > 1);
    LandmarkStats {
        name: name.to_owned(),
        known: places.len(),
        missing: scans.len() - places.len(),
        mean_ras_mm: mean,
        std_ras_mm: several.map(deviation),
        baseline_error_mm: several.map(baseline),
    }
}
