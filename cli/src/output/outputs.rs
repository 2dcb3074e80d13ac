//! Output that `eval` and `play` share: predictions, exports, pictures, films, trajectories.

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::evaluate::WalkResult;
use actor::evaluation::summary::ScanAnswer;
use common::environment::starts::EvaluationStarts;
use common::imaging::scan::Scan;

use crate::input::walks::StartArgs;
use crate::input::weights::Loaded;
use crate::output::console;
use crate::output::film::{FilmArgs, write_films};
use crate::output::report::{self, ExportArgs, Prediction};

/// What to write besides the answers.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputArgs {
    /// Draw no pictures
    #[arg(long)]
    no_pictures: bool,
    #[command(flatten)]
    exports: ExportArgs,
    #[command(flatten)]
    pub films: FilmArgs,
}

#[derive(Debug, Clone, Copy)]
pub struct Walked<'a> {
    pub walks: &'a [WalkResult],
    pub answers: &'a [ScanAnswer],
    pub scans: &'a [Arc<Scan>],
    pub loaded: &'a Loaded,
    pub starts: &'a EvaluationStarts,
}

impl OutputArgs {
    /// Writes everything into `out`; returns the predictions in all coordinate systems.
    pub fn write(
        &self,
        out: &Path,
        args: &StartArgs,
        walked: Walked<'_>,
    ) -> anyhow::Result<Vec<Prediction>> {
        let Walked {
            walks,
            answers,
            scans,
            loaded,
            starts,
        } = walked;
        let names = &loaded.landmarks;
        let predictions = report::predictions(answers, scans, names);
        report::write_predictions(out, &predictions)?;
        report::write_exports(&out.join("exports"), answers, scans, names, &self.exports)?;
        // Last, because these paths are outside `out`: a failure must not lose predictions.
        if let Some(file) = &args.trajectories {
            report::write_trajectories(file, walks, scans, loaded, starts)?;
        }
        if let Some(file) = &args.results_csv {
            report::write_results(file, walks, scans)?;
        }
        if !self.no_pictures {
            report::write_pictures(&out.join("pictures"), answers, scans, names)?;
        }
        let films = out.join("films");
        for film in write_films(&films, &self.films, walks, answers, scans, loaded)? {
            console::note(&format!("film: {}", film.display()));
        }
        Ok(predictions)
    }
}
