//! Studies: what a setting does to the error on unseen scans, over seeds.
//!
//! One line per training is appended to `results.jsonl`, with its curve; a study
//! that was stopped goes on where it was, in the middle of a training too.

mod plan;
mod results;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::libtorch;
use crate::workspace::Workspace;
use plan::{Plan, Training};
use results::{Outcome, Results, Trained};

/// `landmarl`'s exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Train every variant of a study with every seed and compare the errors on unseen scans.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What to compare, such as configs/studies/bootstrap.toml
    study: PathBuf,
    /// Folder for runs and results [default: studies/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// These seeds instead of the study's
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Train the variants with these names only
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Try again what failed before
    #[arg(long)]
    again: bool,
    /// Print what is known so far and train nothing
    #[arg(long)]
    show: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask study configs/studies/bootstrap.toml
  cargo xtask study configs/studies/bootstrap.toml --seeds 4,5 --only 'gamma 0'
  cargo xtask study configs/studies/bootstrap.toml --show

Stop it whenever you like; the same command goes on. Seeds are gone through one after
another, all variants of each, so that what is there can be compared at any time.";

/// `cargo xtask study`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let plan = Plan::read(&workspace.root().join(&options.study))?;
    let out = workspace.root().join(match &options.out {
        Some(out) => out.clone(),
        None => Path::new("studies").join(&plan.name),
    });
    let mut results = Results::open(&out.join("results.jsonl"))?;
    let mut wanted = plan.trainings(options.seeds.as_deref(), &options.only)?;
    results.check(&wanted)?;
    if !options.show {
        wanted.retain(|training| match results.of(training) {
            Some(Outcome::Failed(_)) => options.again,
            Some(Outcome::Trained(_)) => false,
            None => true,
        });
        train_all(workspace, &plan, &wanted, &out, &mut results)?;
    }
    for line in results.table(&plan) {
        println!("{line}");
    }
    println!("curves and all figures: {}", results.file().display());
    Ok(())
}

fn train_all(
    workspace: &Workspace,
    plan: &Plan,
    wanted: &[Training],
    out: &Path,
    results: &mut Results,
) -> Result<()> {
    if wanted.is_empty() {
        println!("nothing is left to train");
        return Ok(());
    }
    libtorch::ensure(workspace)?;
    command::run(&mut workspace.cargo("build --release --locked -p cli"))?;
    let program = workspace.target_folder()?.join("release/landmarl");
    let began = Instant::now();
    for (done, training) in wanted.iter().enumerate() {
        let left = left(began.elapsed(), done, wanted.len());
        println!(
            "== {} of {}: {}, seed {}{left}",
            done + 1,
            wanted.len(),
            training.variant,
            training.seed
        );
        let outcome = match train(workspace, plan, training, out, &program) {
            Ok(Some(trained)) => Outcome::Trained(trained),
            // No result: the training is there to go on with.
            Ok(None) => bail!("interrupted; the same command goes on with it"),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        if let Outcome::Failed(why) = &outcome {
            eprintln!("{}, seed {}: {why}", training.variant, training.seed);
        }
        results.add(training, outcome)?;
    }
    Ok(())
}

/// ", about 12 min left", from what the ones before took.
fn left(elapsed: Duration, done: usize, all: usize) -> String {
    let Some(each) = u32::try_from(done)
        .ok()
        .and_then(|d| elapsed.checked_div(d))
    else {
        return String::new();
    };
    let rest = each.saturating_mul(u32::try_from(all - done).unwrap_or(u32::MAX));
    format!(", about {} min left", rest.as_secs().div_ceil(60))
}

/// One training and its evaluation on scans that it has not seen; `None` where
/// somebody interrupted it.
fn train(
    workspace: &Workspace,
    plan: &Plan,
    training: &Training,
    out: &Path,
    program: &Path,
) -> Result<Option<Trained>> {
    let runs = out.join("runs");
    let run = runs.join(training.folder());
    let program = |arguments: Vec<String>| -> Command {
        let mut command = workspace.command(&program.to_string_lossy());
        command.args(arguments);
        command
    };
    let arguments = if run.join("run.json").is_file() {
        vec!["train".into(), "--resume".into(), text(&run)]
    } else {
        plan.train_arguments(training, &runs)
    };
    let mut command = program(arguments);
    println!("$ {}", command::show(&command));
    let status = command.status().context("landmarl does not start")?;
    if !went_through(status, &run)? {
        return Ok(None);
    }
    let eval = out.join("eval").join(training.folder());
    command::run(&mut program(plan.eval_arguments(&run, &eval)))?;
    Trained::read(&run, &eval).map(Some)
}

/// False where somebody interrupted the training.
fn went_through(status: ExitStatus, run: &Path) -> Result<bool> {
    if status.code() == Some(INTERRUPTED) {
        return Ok(false);
    }
    if !status.success() {
        let logs = run.join("logs");
        bail!(
            "training failed ({status}); its log is in {}",
            logs.display()
        );
    }
    Ok(true)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_training_is_no_failure() {
        use std::os::unix::process::ExitStatusExt as _;
        let ends_with = |code: i32| went_through(ExitStatus::from_raw(code << 8), Path::new("run"));
        assert!(ends_with(0).unwrap());
        assert!(!ends_with(INTERRUPTED).unwrap());
        let error = ends_with(4).unwrap_err().to_string();
        assert!(error.contains("run/logs"), "{error}");
    }

    #[test]
    fn the_time_left_follows_what_the_others_took() {
        assert_eq!(left(Duration::from_secs(99), 0, 4), "");
        assert_eq!(left(Duration::from_secs(120), 1, 4), ", about 6 min left");
        assert_eq!(left(Duration::from_secs(90), 3, 4), ", about 1 min left");
    }
}
