//! Output that `eval` and `play` share: predictions, exports, pictures, films, trajectories.

use std::path::Path;

use crate::input::trajectories::StartArgs;
use crate::output::console;
use crate::output::film::{FilmArgs, write_films};
use crate::output::report::{self, ExportArgs, Prediction, Results};

/// Output options.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputArgs {
    /// Do not write pictures
    #[arg(long)]
    no_pictures: bool,
    #[command(flatten)]
    exports: ExportArgs,
    #[command(flatten)]
    pub films: FilmArgs,
}

impl OutputArgs {
    /// Writes everything into `out`; returns the predictions in all coordinate systems.
    pub fn write(
        &self,
        out: &Path,
        args: &StartArgs,
        all: &Results<'_>,
    ) -> anyhow::Result<Vec<Prediction>> {
        let prediction = |p| Prediction::new(p, all.scans, &all.loaded.landmarks);
        let table: Vec<Prediction> = all.predictions.iter().map(prediction).collect();
        report::write_predictions(out, &table)?;
        report::write_exports(&out.join("exports"), all, &self.exports)?;
        // Last, because these paths are outside `out`: a failure must not lose predictions.
        if let Some(file) = &args.trajectories {
            report::write_trajectories(file, all)?;
        }
        if let Some(file) = &args.results_csv {
            report::write_results(file, all)?;
        }
        if !self.no_pictures {
            report::write_pictures(&out.join("pictures"), all)?;
        }
        for film in write_films(&out.join("films"), &self.films, all)? {
            console::note(&format!("film: {}", film.display()));
        }
        Ok(table)
    }
}
