//! Episodes as films: GIF for web pages, MP4 (H.264) for slides, without ffmpeg and
//! without a window.

mod gif;
mod mp4;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use actor::evaluation::evaluate::WalkResult;
use actor::evaluation::summary::ScanAnswer;
use anyhow::Context as _;
use common::imaging::scan::Scan;
use common::report::picture::Grid;
use common::report::picture::film::{FilmedWalk, Moment};
use common::run::durable::write_atomic;

use crate::input::weights::Loaded;
use crate::output::console;
use crate::output::report::{NOTICE, stem};

/// Milliseconds that a step is shown, and the answer.
const STEP_MS: u32 = 100;
const ANSWER_MS: u32 = 2000;

/// What is filmed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FilmArgs {
    /// Films of walks: all (a walk per scan and landmark) or worst:N (those with the
    /// largest errors, or where the walks agree least)
    #[arg(long, value_name = "WHICH")]
    pub render: Option<Which>,
    /// Kinds of film
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Gif, Kind::Mp4], value_name = "KIND,...")]
    pub film: Vec<Kind>,
}

/// Which episodes are filmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Worst(usize),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |n: &str| n.parse().ok().filter(|n| *n > 0);
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("worst", n)) if count(n).is_some() => Ok(Self::Worst(count(n).unwrap_or(1))),
            _ => Err("give all, or worst:5 for the five worst".to_owned()),
        }
    }
}

/// A kind of film.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Gif,
    Mp4,
}

/// Writes `<folder>/<scan>_<landmark>.gif` and `.mp4`; returns their paths.
pub fn write_films(
    folder: &Path,
    args: &FilmArgs,
    walks: &[WalkResult],
    answers: &[ScanAnswer],
    scans: &[Arc<Scan>],
    loaded: &Loaded,
) -> anyhow::Result<Vec<PathBuf>> {
    let Some(which) = args.render else {
        return Ok(Vec::new());
    };
    let chosen = choose(which, walks, answers);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let total = chosen.len();
    let counter = console::counter(total as u64, "films");
    let mut files = Vec::new();
    for (number, walk) in chosen.into_iter().enumerate() {
        let scan = &scans[walk.scan];
        let agent = usize::from(walk.agent);
        let name = loaded.landmarks.get(agent).map_or("?", String::as_str);
        let title = format!("{}: {name}", scan.name);
        let moments: Vec<Moment> = moments(walk);
        let filmed = FilmedWalk {
            volume: &scan.volume,
            grid: Grid::of(&scan.geometry),
            window: loaded.rules.window_size,
            moments: &moments,
            answer: walk.answer,
            truth: scan.landmarks.get(agent).copied().flatten(),
            title: &title,
            notice: NOTICE,
        };
        let safe: String = name
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '_' })
            .collect();
        let file = folder.join(format!("{}_{safe}", stem(walk.scan, scans)));
        for kind in &args.film {
            let (bytes, ending) = match kind {
                Kind::Gif => (gif::encode(&filmed)?, "gif"),
                Kind::Mp4 => (mp4::encode(&filmed)?, "mp4"),
            };
            let file = file.with_file_name(format!(
                "{}.{ending}",
                file.file_name().unwrap_or_default().to_string_lossy()
            ));
            write_atomic(&file, &bytes)?;
            files.push(file);
        }
        counter.set(number + 1, total);
    }
    counter.finish();
    Ok(files)
}

fn moments(walk: &WalkResult) -> Vec<Moment> {
    let steps = walk.trajectory.iter().flatten();
    let moment = |s: &actor::evaluation::evaluate::WalkStep| Moment {
        position: s.position.map(f64::from),
        stride: s.stride,
    };
    steps.map(moment).collect()
}

/// One episode for each prediction shown, the worst first.
fn choose<'a>(
    which: Which,
    walks: &'a [WalkResult],
    answers: &[ScanAnswer],
) -> Vec<&'a WalkResult> {
    let of = |answer: &ScanAnswer| {
        let (scan, agent) = (answer.scan, answer.agent);
        walks
            .iter()
            .filter(move |w| (w.scan, w.agent) == (scan, agent))
    };
    match which {
        Which::All => answers.iter().filter_map(|a| of(a).next()).collect(),
        Which::Worst(count) => {
            let badness = |a: &ScanAnswer| a.error_mm.unwrap_or(a.spread_mm);
            let mut order: Vec<&ScanAnswer> = answers.iter().collect();
            order.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
            let worst = order.into_iter().take(count);
            let far = |w: &&WalkResult| w.error_mm.unwrap_or(0.0);
            worst
                .filter_map(|a| of(a).max_by(|a, b| far(a).total_cmp(&far(b))))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests;
