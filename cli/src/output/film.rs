//! Episodes as films: GIF for web pages, MP4 (H.264) for slides, without ffmpeg and
//! without a window.

mod gif;
mod mp4;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use actor::evaluation::evaluate::{StartResult, TrajectoryStep};
use actor::evaluation::summary::ScanPrediction;
use anyhow::Context as _;
use common::report::picture::Grid;
use common::report::picture::film::{FilmedTrajectory, Moment};
use common::run::durable::write_atomic;

use crate::output::console;
use crate::output::report::{NOTICE, Results, landmark, name};

/// Duration of a step, and of the final frame.
const STEP_MS: u32 = 100;
const PREDICTION_MS: u32 = 2000;

/// Which films to write.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FilmArgs {
    /// Trajectories to film: all (one per scan and landmark) or worst:N (the N with the
    /// largest errors, or the largest dispersion if errors are unknown)
    #[arg(long, value_name = "WHICH")]
    pub render: Option<Which>,
    /// File formats
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Gif, Kind::Mp4], value_name = "KIND,...")]
    pub film: Vec<Kind>,
}

/// Which episodes are filmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Worst(usize),
}

impl FilmArgs {
    /// The formats of the films, if there are to be any.
    pub fn kinds(&self) -> &[Kind] {
        if self.render.is_some() {
            &self.film
        } else {
            &[]
        }
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |n: &str| n.parse().ok().filter(|n| *n > 0);
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("worst", n)) if count(n).is_some() => Ok(Self::Worst(count(n).unwrap_or(1))),
            _ => Err("give all, or worst:5 for the five worst predictions".to_owned()),
        }
    }
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Gif,
    Mp4,
}

/// The endings of all kinds.
pub const ENDINGS: [&str; 2] = [".gif", ".mp4"];

impl Kind {
    pub fn ending(self) -> &'static str {
        match self {
            Self::Gif => ENDINGS[0],
            Self::Mp4 => ENDINGS[1],
        }
    }
}

/// The name of a film after the name of its scan's files; others may have the same.
pub fn wanted_name(stem: &str, landmark: &str) -> String {
    let safe = landmark.replace(|c: char| !c.is_alphanumeric(), "_");
    format!("{stem}_{safe}")
}

/// Writes `<folder>/<scan>_<landmark>.gif` and `.mp4`; returns their paths.
pub fn write_films(
    folder: &Path,
    args: &FilmArgs,
    all: &Results<'_>,
) -> anyhow::Result<Vec<PathBuf>> {
    let Some(which) = args.render else {
        return Ok(Vec::new());
    };
    let (scans, loaded) = (all.scans, all.loaded);
    let chosen = choose(which, all);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let total = chosen.len();
    let counter = console::counter(total as u64, "films");
    let mut files = Vec::new();
    for (number, result) in chosen.into_iter().enumerate() {
        let scan = &scans[result.scan];
        let name = name(&loaded.landmarks, result.agent);
        let title = format!("{}: {name}", scan.name);
        let steps = result.trajectory.iter().flatten();
        let moments: Vec<Moment> = steps.map(moment).collect();
        let filmed = FilmedTrajectory {
            volume: &scan.volume,
            grid: Grid::of(&scan.geometry),
            window: loaded.rules.window_size,
            moments: &moments,
            prediction: result.prediction,
            truth: landmark(scan, result.agent),
            title: &title,
            notice: NOTICE,
        };
        let Some(stem) = all.files.film(result.scan, result.agent) else {
            continue;
        };
        for kind in &args.film {
            let bytes = match kind {
                Kind::Gif => gif::encode(&filmed)?,
                Kind::Mp4 => mp4::encode(&filmed)?,
            };
            let file = folder.join(format!("{stem}{}", kind.ending()));
            write_atomic(&file, &bytes)?;
            files.push(file);
        }
        counter.set(number + 1, total);
    }
    counter.finish();
    Ok(files)
}

fn moment(step: &TrajectoryStep) -> Moment {
    Moment {
        position: step.position.map(f64::from),
        stride: step.stride,
    }
}

/// One trajectory for each filmed prediction, the worst first.
fn choose<'a>(which: Which, all: &Results<'a>) -> Vec<&'a StartResult> {
    let predictions = all.predictions;
    let of = |prediction: &ScanPrediction| {
        let (scan, agent) = (prediction.scan, prediction.agent);
        let trajectories = all.trajectories.iter();
        trajectories.filter(move |r| (r.scan, r.agent) == (scan, agent))
    };
    match which {
        Which::All => predictions.iter().filter_map(|p| of(p).next()).collect(),
        Which::Worst(count) => {
            let badness = |p: &ScanPrediction| p.error_mm.unwrap_or(p.dispersion_mm);
            let mut order: Vec<&ScanPrediction> = predictions.iter().collect();
            order.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
            let worst = order.into_iter().take(count);
            let error = |r: &&StartResult| r.error_mm.unwrap_or(0.0);
            let worst_start = |p| of(p).max_by(|a, b| error(a).total_cmp(&error(b)));
            worst.filter_map(worst_start).collect()
        }
    }
}

#[cfg(test)]
mod tests;
