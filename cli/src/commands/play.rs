//! `landmarl play`: finds landmarks in scans without annotations.

use std::path::PathBuf;

use actor::evaluation::summary::summarise;

use crate::Outcome;
use crate::commands::eval::{config_of, out_folder};
use crate::input::scans;
use crate::input::settings::ConfigArgs;
use crate::input::walks::{self, StartArgs};
use crate::input::weights;
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::outputs::{OutputArgs, Walked};
use crate::output::report::{self, NOTICE};

/// Find landmarks in scans without known ones.
///
/// Prints and writes voxel, RAS and LPS coordinates, and how well the walks
/// agree (spread). DIR/exports holds files for 3D Slicer and other viewers.
/// Not a medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Weights file, or the folder of a run (its best checkpoint)
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    /// Scans (.nii or .nii.gz)
    #[arg(required = true, value_name = "SCAN")]
    scans: Vec<PathBuf>,
    #[command(flatten)]
    starts: StartArgs,
    /// Landmark names, where the weights file has none
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// Folder for the results [default: RUN/evaluations/TIME]
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
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
    let mut loaded = weights::load(&args.load, &args.landmarks)?;
    args.starts.rule(&mut loaded)?;
    let config = config_of(&loaded.origin.file, &args.config)?;
    let starts = args
        .starts
        .starts(config.evaluation.starts, config.evaluation.margin)?;
    let scans = scans::bare(&args.scans, &loaded, &config)?;
    let walks = walks::walk(
        &loaded,
        &scans,
        &starts,
        &args.starts,
        args.outputs.films.render.is_some(),
    )?;
    let walked = summarise(&walks, &scans, &loaded.landmarks, &[]);
    let out = out_folder(args.out.as_deref(), &loaded.origin.file)?;
    let all = Walked {
        walks: &walks,
        answers: &walked.answers,
        scans: &scans,
        loaded: &loaded,
        starts: &starts,
    };
    let predictions = args.outputs.write(&out, &args.starts, all)?;
    if args.json {
        let json = serde_json::json!({"notice": NOTICE, "predictions": predictions});
        console::data(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        console::data(&report::prediction_table(&predictions))?;
    }
    console::note(&format!("results are in {}; {NOTICE}", out.display()));
    Ok(Exit::Done)
}
