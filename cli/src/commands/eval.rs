//! `landmarl eval`: measures the error of trained weights on scans with known landmarks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actor::evaluation::summary::{Summary as Summed, summarise};
use anyhow::Context as _;
use common::config::Config;
use common::imaging::dataset::Split;
use common::imaging::scan::Scan;
use common::run::baseline::MeanPositionBaseline;
use common::run::run_folder::{RunFolder, folder_time};

use crate::Outcome;
use crate::input::scans::{self, ListArgs};
use crate::input::settings::ConfigArgs;
use crate::input::walks::{self, StartArgs};
use crate::input::weights::{self, Loaded};
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::outputs::{OutputArgs, Walked};
use crate::output::report::{self, Failure, NOTICE, Timing};

/// Default error in voxels above which a prediction is listed as a failure.
const FAILURE_VOXELS: f64 = 10.0;

/// Walk finished weights through scans with known landmarks and report the errors.
///
/// Rules, network and landmark names come from the weights file. The constant
/// guess (mean of the training landmarks) always stands beside our error. Not a
/// medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Weights file, or the folder of a run (its best checkpoint)
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    #[command(flatten)]
    lists: ListArgs,
    /// Training scans, for the constant guess (else as the run folder keeps it)
    #[arg(long, value_name = "PATH")]
    train_images: Option<PathBuf>,
    /// Training landmarks, for the constant guess
    #[arg(long, value_name = "LIST", requires = "train_images")]
    train_landmarks: Option<PathBuf>,
    #[command(flatten)]
    starts: StartArgs,
    /// Landmark names or numbers, where the weights file has none
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// List answers farther off than this as failures [default: 10 voxels]
    #[arg(long, value_name = "MM")]
    failure_mm: Option<f64>,
    /// Folder for the results [default: RUN/evaluations/TIME]
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
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
    let mut loaded = weights::load(&args.load, &args.landmarks)?;
    args.starts.rule(&mut loaded)?;
    let config = config_of(&loaded.origin.file, &args.config)?;
    let starts = args
        .starts
        .starts(config.evaluation.starts, config.evaluation.margin)?;
    let scans = scans::labelled(
        &args.lists.images,
        args.lists.landmarks_files.as_deref(),
        (args.lists.split, "--landmarks-files"),
        &loaded,
        &config,
    )?;
    let baseline = baseline(args, &loaded, &config)?;
    let begin = Instant::now();
    let walks = walks::walk(
        &loaded,
        &scans,
        &starts,
        &args.starts,
        args.outputs.films.render.is_some(),
    )?;
    let timing = Timing {
        walk_s: begin.elapsed().as_secs_f64(),
        steps: walks.iter().map(|w| u64::from(w.steps)).sum(),
    };
    let walked = summarise(&walks, &scans, &loaded.landmarks, &baseline.ras_mm);
    let limit = args
        .failure_mm
        .unwrap_or_else(|| FAILURE_VOXELS * finest_mm(&scans));
    let failures = failures(&walked, &loaded.landmarks, limit);

    let out = out_folder(args.out.as_deref(), &loaded.origin.file)?;
    let all = Walked {
        walks: &walks,
        answers: &walked.answers,
        scans: &scans,
        loaded: &loaded,
        starts: &starts,
    };
    args.outputs.write(&out, &args.starts, all)?;
    let words = format!("{starts:?}").to_lowercase();
    let answers = walked.answers.clone();
    let summary = summary(
        &loaded,
        &scans,
        walked,
        baseline.source,
        (words, args.starts.seed),
        timing,
        (limit, failures),
    );
    report::write_summary(&out, &summary)?;
    let walk_errors = walks.iter().filter_map(|w| w.error_mm).collect();
    report::write_report(
        &out,
        &summary,
        &answers,
        walk_errors,
        &scans,
        &loaded.landmarks,
    )?;
    print(args, &summary, &out)?;
    Ok(Exit::Done)
}

/// The configuration of the run that contains the weights, else the defaults.
pub fn config_of(weights: &Path, args: &ConfigArgs) -> anyhow::Result<Config> {
    let run = RunFolder::around(weights).map(|r| r.config_file());
    let base = run.filter(|f| f.is_file()).into_iter().collect();
    Ok(args.load_over(base, Vec::new())?)
}

/// Creates the folder for the results.
pub fn out_folder(asked: Option<&Path>, weights: &Path) -> anyhow::Result<PathBuf> {
    let folder = match asked {
        Some(folder) => folder.to_owned(),
        None => {
            let all = RunFolder::around(weights)
                .map_or_else(|| "evaluations".into(), |r| r.evaluations());
            all.join(folder_time(SystemTime::now()))
        }
    };
    std::fs::create_dir_all(&folder).map_err(|e| {
        Advice::new(
            Exit::Failed,
            format!("cannot write results to {}: {e}", folder.display()),
        )
        .hint("choose another folder with --out")
    })?;
    Ok(folder)
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
        let training =
            scans::labelled(images, landmarks, which, loaded, config).context("constant guess")?;
        return Ok(Baseline {
            ras_mm: MeanPositionBaseline::new(&training, names.len()).ras_mm,
            source: Some(format!(
                "the {} scans of {}",
                training.len(),
                images.display()
            )),
        });
    }
    let Some(run) = RunFolder::around(&loaded.origin.file) else {
        return Ok(Baseline::default());
    };
    let stored = MeanPositionBaseline::load(run.path(), names)?;
    Ok(stored.map_or_else(Baseline::default, |stored| Baseline {
        source: Some(format!(
            "the {} training scans of {}",
            stored.scans,
            run.path().display()
        )),
        ras_mm: stored.ras_mm,
    }))
}

fn finest_mm(scans: &[Arc<Scan>]) -> f64 {
    let spacings = scans.iter().flat_map(|s| s.geometry.spacing_mm);
    spacings.fold(f64::INFINITY, f64::min)
}

fn failures(walked: &Summed, names: &[String], limit_mm: f64) -> Vec<Failure> {
    let far = walked.answers.iter().filter_map(|a| {
        let error_mm = a.error_mm.filter(|e| *e > limit_mm)?;
        Some(Failure {
            scan: a.scan_name.clone(),
            landmark: names.get(usize::from(a.agent))?.clone(),
            error_mm,
            spread_mm: a.spread_mm,
        })
    });
    let mut far: Vec<Failure> = far.collect();
    far.sort_by(|a, b| b.error_mm.total_cmp(&a.error_mm));
    far
}

fn summary(
    loaded: &Loaded,
    scans: &[Arc<Scan>],
    walked: Summed,
    baseline_source: Option<String>,
    (starts, seed): (String, u64),
    timing: Timing,
    (failure_mm, failures): (f64, Vec<Failure>),
) -> report::Summary {
    let all = &walked.all;
    report::Summary {
        notice: NOTICE,
        landmarl: env!("CARGO_PKG_VERSION"),
        weights: loaded.origin.clone(),
        scans: scans.iter().map(|s| s.name.clone()).collect(),
        starts,
        seed,
        timing,
        mean_error_mm: all.consensus.as_ref().map(|e| e.mm.mean),
        mean_error_voxels: all.consensus.as_ref().map(|e| e.voxels.mean),
        mean_walk_error_mm: all.walks.as_ref().map(|e| e.mm.mean),
        constant_guess_mm: all.guess.as_ref().map(|e| e.mm.mean),
        constant_guess_from: baseline_source,
        landmarks: walked.landmarks,
        all: walked.all,
        confidence: walked.confidence,
        failure_mm,
        failures,
    }
}

fn print(args: &Args, summary: &report::Summary, out: &Path) -> anyhow::Result<()> {
    if args.json {
        console::data(&(serde_json::to_string_pretty(summary)? + "\n"))?;
    } else {
        console::data(&report::error_table(&summary.landmarks, &summary.all))?;
        console::data(&report::failure_lines(
            &summary.failures,
            summary.failure_mm,
        ))?;
    }
    console::note(&format!(
        "{} scans, starts: {}, seed {}, weights after {} updates",
        summary.scans.len(),
        summary.starts,
        summary.seed,
        summary
            .weights
            .updates
            .map_or_else(|| "unknown".to_owned(), |u| u.to_string()),
    ));
    console::note(&match &summary.constant_guess_from {
        Some(from) => format!("constant guess: mean landmark positions in {from}"),
        None => "constant guess: unknown; give --train-images and --train-landmarks".to_owned(),
    });
    if let Some(confidence) = &summary.confidence {
        let interval = confidence.interval.map_or_else(String::new, |[low, high]| {
            format!(" (95 % interval {low:.2} to {high:.2})")
        });
        console::note(&format!(
            "spread against error: rank correlation {:.2}{interval} over {} answers",
            confidence.spearman, confidence.answers
        ));
    }
    console::note(&format!(
        "results are in {}, all of them in report.html; {NOTICE}",
        out.display()
    ));
    Ok(())
}
