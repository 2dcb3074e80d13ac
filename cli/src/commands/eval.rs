//! `landmarl eval`: measures the error of trained weights on scans with known landmarks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use actor::evaluation::summary::{Errors, ScanPrediction, summarise};
use anyhow::Context as _;
use common::config::Config;
use common::environment::starts::EvaluationStarts;
use common::imaging::dataset::Split;
use common::imaging::scan::Scan;
use common::run::baseline::MeanPositionBaseline;
use common::run::run_folder::RunFolder;

use crate::Outcome;
use crate::input::scans::{self, ListArgs};
use crate::input::settings::ConfigArgs;
use crate::input::training_scans;
use crate::input::trajectories::{self, StartArgs};
use crate::input::weights::{self, Loaded};
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::outputs::OutputArgs;
use crate::output::report::{self, AGREEMENT, Failure, NOTICE, Results, Timing};
use crate::output::table::decimal;

/// Default error in voxels above which a prediction is listed as a failure.
const FAILURE_VOXELS: f64 = 10.0;

/// What `play` does not write.
const FILES: [&str; 3] = ["summary.json", "report.html", "cumulative.svg"];

/// Evaluate trained weights on scans with known landmarks and report the errors.
///
/// Rules, network and landmark names come from the weights file. Errors are always
/// compared with the mean-position baseline (mean of the training landmarks). Not a
/// medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Weights file, or run folder (its best checkpoint)
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    #[command(flatten)]
    lists: ListArgs,
    /// Training scans for the mean-position baseline [default: the baseline in the run folder]
    #[arg(long, value_name = "PATH")]
    train_images: Option<PathBuf>,
    /// Landmark files of the training scans
    #[arg(long, value_name = "LIST", requires = "train_images")]
    train_landmarks: Option<PathBuf>,
    #[command(flatten)]
    starts: StartArgs,
    /// Landmark names or numbers, if the weights file has none
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// List predictions with a larger error as failures [default: 10 voxels]
    #[arg(long, value_name = "MM")]
    failure_mm: Option<f64>,
    /// Print summary.json instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    outputs: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

const EXAMPLES: &str = "\
Examples:
  landmarl eval --load runs/NAME/checkpoints/best.safetensors --images test/images.txt --landmarks-files test/landmarks.txt
  landmarl eval --load runs/NAME --images manifest.csv --split test --protocol 19 --json
  landmarl eval --load best.safetensors --images i.txt --landmarks-files l.txt --train-images ti.txt --train-landmarks tl.txt";

pub fn run(args: &Args) -> Outcome {
    let (loaded, config, starts) =
        prepare(&args.load, &args.landmarks, &args.starts, &args.config)?;
    let (names, lists) = (&loaded.landmarks, &args.lists);
    let landmarks = lists.landmarks_files.as_deref();
    let which = (lists.split, "--landmarks-files");
    let scans = scans::labelled(&lists.images, landmarks, which, &loaded, &config)?;
    training_scans::warn(&loaded, &scans);
    training_scans::warn_of_trained(&loaded, &scans);
    let files = args.outputs.plan(&args.starts, &scans, names, &FILES)?;
    let baseline = baseline(args, &loaded, &config)?;
    let begin = Instant::now();
    let films = args.outputs.films.render.is_some();
    let results = trajectories::run(&loaded, &scans, &starts, &args.starts, films)?;
    let timing = Timing {
        inference_s: begin.elapsed().as_secs_f64(),
        steps: results.iter().map(|r| u64::from(r.steps)).sum(),
    };
    let summed = summarise(&results, &scans, names, &baseline.ras_mm);
    let out = args.outputs.create(&loaded.origin.file)?;
    let all = Results {
        trajectories: &results,
        predictions: &summed.predictions,
        scans: &scans,
        loaded: &loaded,
        starts: &starts,
        files: &files,
    };
    args.outputs.write(&out, &args.starts, &all)?;
    let limit = args
        .failure_mm
        .unwrap_or_else(|| FAILURE_VOXELS * finest_mm(&scans));
    let mean = |errors: &Option<Errors>| errors.as_ref().map(|e| e.mm.mean);
    let summary = report::Summary {
        notice: NOTICE,
        agreement: AGREEMENT,
        landmarl: env!("CARGO_PKG_VERSION"),
        weights: loaded.origin.clone(),
        scans: scans.iter().map(|s| s.name.clone()).collect(),
        starts: format!("{starts:?}").to_lowercase(),
        seed: args.starts.seed,
        timing,
        mean_error_mm: mean(&summed.all.consensus),
        mean_error_voxels: summed.all.consensus.as_ref().map(|e| e.voxels.mean),
        mean_start_error_mm: mean(&summed.all.starts),
        baseline_error_mm: mean(&summed.all.baseline),
        baseline_from: baseline.source,
        landmarks: summed.landmarks,
        all: summed.all,
        confidence: summed.confidence,
        failure_mm: limit,
        failures: failures(&summed.predictions, names, limit),
    };
    report::write_json(&out.join("summary.json"), &summary)?;
    report::write_report(&out, &summary, &all)?;
    print(args, &summary, &out)?;
    Ok(Exit::Done)
}

/// Loads the weights with the requested rules, the configuration and the starts.
pub fn prepare(
    load: &Path,
    names: &[String],
    starts: &StartArgs,
    config: &ConfigArgs,
) -> anyhow::Result<(Loaded, Config, EvaluationStarts)> {
    let mut loaded = weights::load(load, names, config)?;
    starts.apply_rules(&mut loaded)?;
    let config = config_of(&loaded.origin.file, config)?;
    let starts = starts.starts(&config)?;
    Ok((loaded, config, starts))
}

/// The configuration of the run that contains the weights, else the defaults.
fn config_of(weights: &Path, args: &ConfigArgs) -> anyhow::Result<Config> {
    let run = RunFolder::around(weights).map(|r| r.saved_config());
    let base = run.filter(|r| r.file.is_file()).into_iter().collect();
    Ok(args.load_over(base, Vec::new())?)
}

/// The baseline that errors are compared with.
#[derive(Debug, Default)]
struct Baseline {
    /// RAS mm per agent.
    ras_mm: Vec<Option<[f64; 3]>>,
    /// A description of its source; `None` if no baseline is known.
    source: Option<String>,
}

/// The baseline of the training scans on the command line, else of the run with the weights.
fn baseline(args: &Args, loaded: &Loaded, config: &Config) -> anyhow::Result<Baseline> {
    let names = &loaded.landmarks;
    if let Some(images) = &args.train_images {
        let landmarks = args.train_landmarks.as_deref();
        let which = (Split::Train, "--train-landmarks");
        let training = scans::labelled(images, landmarks, which, loaded, config);
        let training = training.context("mean-position baseline")?;
        let (count, images) = (training.len(), images.display());
        return Ok(Baseline {
            ras_mm: MeanPositionBaseline::new(&training, names.len()).ras_mm,
            source: Some(format!("the {count} scans of {images}")),
        });
    }
    let Some(run) = RunFolder::around(&loaded.origin.file) else {
        return Ok(Baseline::default());
    };
    let stored = MeanPositionBaseline::load(run.path(), names)?;
    let source = |scans: usize| format!("the {scans} training scans of {}", run.path().display());
    let baseline = stored.map(|stored| Baseline {
        source: Some(source(stored.scans)),
        ras_mm: stored.ras_mm,
    });
    Ok(baseline.unwrap_or_default())
}

fn finest_mm(scans: &[Arc<Scan>]) -> f64 {
    let spacings = scans.iter().flat_map(|s| s.geometry.spacing_mm);
    spacings.fold(f64::INFINITY, f64::min)
}

fn failures(predictions: &[ScanPrediction], names: &[String], limit_mm: f64) -> Vec<Failure> {
    let failure = |p: &ScanPrediction| {
        let error_mm = p.error_mm.filter(|e| *e > limit_mm)?;
        Some(Failure {
            scan: p.scan_name.clone(),
            landmark: report::name(names, p.agent),
            error_mm,
            dispersion_mm: p.dispersion_mm,
        })
    };
    let mut failures: Vec<Failure> = predictions.iter().filter_map(failure).collect();
    failures.sort_by(|a, b| b.error_mm.total_cmp(&a.error_mm));
    failures
}

fn print(args: &Args, summary: &report::Summary, out: &Path) -> anyhow::Result<()> {
    if args.json {
        console::json(summary)?;
    } else {
        let failures = report::failure_lines(&summary.failures, summary.failure_mm);
        console::data(&report::error_table(&summary.landmarks, &summary.all))?;
        console::data(&failures)?;
    }
    console::note(&report::weights_line(&summary.weights));
    console::note(&format!(
        "{} scans, starts: {}, seed {}",
        summary.scans.len(),
        summary.starts,
        summary.seed,
    ));
    console::note(&match &summary.baseline_from {
        Some(from) => format!("mean-position baseline: mean landmark positions in {from}"),
        None => {
            "mean-position baseline: unknown; give --train-images and --train-landmarks".to_owned()
        }
    });
    if let Some(confidence) = &summary.confidence {
        let interval = confidence.interval.map_or_else(String::new, |[low, high]| {
            let (low, high) = (decimal(low, 2), decimal(high, 2));
            format!(" (95 % interval {low} to {high})")
        });
        let (correlation, count) = (decimal(confidence.spearman, 2), confidence.predictions);
        console::note(&format!(
            "dispersion and error: rank correlation {correlation}{interval} over {count} predictions"
        ));
    }
    console::note(AGREEMENT);
    let out = out.display();
    console::note(&format!(
        "results are in {out}, overview in report.html; {NOTICE}"
    ));
    if let Some(worse) = report::baseline_verdict(summary) {
        console::note(&worse);
    }
    Ok(())
}
