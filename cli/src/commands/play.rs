//! `landmarl play`: finds landmarks in scans without annotations.

use std::path::PathBuf;

use actor::evaluation::summary::summarise;

use crate::Outcome;
use crate::commands::eval::prepare;
use crate::input::scans;
use crate::input::settings::ConfigArgs;
use crate::input::training_scans;
use crate::input::trajectories::{self, StartArgs};
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::outputs::OutputArgs;
use crate::output::report::{self, AGREEMENT, NOTICE, Results};

/// Predict landmarks in scans without known landmarks.
///
/// Prints and writes voxel, RAS and LPS coordinates, and the dispersion of the
/// trajectories. DIR/exports contains files for 3D Slicer and other viewers. Not a
/// medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Weights file, or run folder (its best checkpoint)
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    /// Scans (.nii or .nii.gz), or folders of scans
    #[arg(required = true, value_name = "SCAN")]
    scans: Vec<PathBuf>,
    #[command(flatten)]
    starts: StartArgs,
    /// Landmark names, if the weights file has none
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// Print predictions.json instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    outputs: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

const EXAMPLES: &str = "\
Examples:
  landmarl play --load runs/NAME/checkpoints/best.safetensors scan.nii.gz -o found
  landmarl play --load runs/NAME a.nii.gz b.nii.gz --starts 19 --json";

pub fn run(args: &Args) -> Outcome {
    let (loaded, config, starts) =
        prepare(&args.load, &args.landmarks, &args.starts, &args.config)?;
    let scans = scans::bare(&args.scans, &loaded, &config)?;
    training_scans::warn(&loaded, &scans);
    let outputs = &args.outputs;
    let files = outputs.plan(&args.starts, &scans, &loaded.landmarks, &[])?;
    let films = outputs.films.render.is_some();
    let results = trajectories::run(&loaded, &scans, &starts, &args.starts, films)?;
    let summed = summarise(&results, &scans, &loaded.landmarks, &[]);
    let out = outputs.create(&loaded.origin.file)?;
    let all = Results {
        trajectories: &results,
        predictions: &summed.predictions,
        scans: &scans,
        loaded: &loaded,
        starts: &starts,
        files: &files,
    };
    let predictions = outputs.write(&out, &args.starts, &all)?;
    if args.json {
        console::json(&report::predictions_json(&predictions, &loaded.origin))?;
    } else {
        console::data(&report::prediction_table(&predictions))?;
    }
    console::note(&report::weights_line(&loaded.origin));
    console::note(&report::validation_line(&loaded.origin));
    console::note(AGREEMENT);
    console::note(&format!("results are in {}; {NOTICE}", out.display()));
    Ok(Exit::Done)
}
