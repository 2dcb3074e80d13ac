//! The whole of landmarl in one go, on made-up scans: nothing to download,
//! nothing to prepare.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::command;
use crate::libtorch;
use crate::workspace::Workspace;

/// Make phantom scans, train on them and evaluate on unseen ones.
///
/// It ends by comparing our mean error with that of the constant guess, the
/// mean of the training landmarks, and fails if we are not better.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The seed of the scans and of the training
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for scans, checkpoints and results; it must not exist yet
    #[arg(long, default_value = "demo")]
    out: PathBuf,
    /// Train as briefly as CI does
    #[arg(long)]
    ci: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask demo
  cargo xtask demo --seed 7 --out /tmp/demo-7";

impl Options {
    /// What CI runs.
    pub fn for_ci() -> Self {
        Self {
            seed: 1,
            out: PathBuf::from("demo/ci"),
            ci: true,
        }
    }
}

/// The command lines, after the program's name. They are all here.
fn commands(seed: u64, out: &Path, ci: bool) -> Vec<Vec<String>> {
    let config = if ci {
        "configs/phantom-ci.toml"
    } else {
        "configs/phantom.toml"
    };
    let place = |name: &str| out.join(name).display().to_string();
    let (data, run, eval) = (place("data"), place("run"), place("eval"));
    let lines = [
        format!("phantom|--out|{data}|--train|24|--validation|6|--test|10|--seed|{seed}"),
        format!(
            "train|--config|{config}|--set|run.dir={run}|--set|run.seed={seed}\
             |--set|data.train_images={data}/train/images.txt\
             |--set|data.train_landmarks={data}/train/landmarks.txt\
             |--set|data.validation_images={data}/validation/images.txt\
             |--set|data.validation_landmarks={data}/validation/landmarks.txt"
        ),
        // The training scans are named for the constant guess.
        format!(
            "eval|--load|{run}|--images|{data}/test/images.txt\
             |--landmarks-files|{data}/test/landmarks.txt\
             |--train-images|{data}/train/images.txt\
             |--train-landmarks|{data}/train/landmarks.txt|--out|{eval}"
        ),
    ];
    lines
        .iter()
        .map(|line| line.split('|').map(str::to_owned).collect())
        .collect()
}

/// What `landmarl eval` leaves in `summary.json`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Summary {
    mean_error_mm: f64,
    mean_error_voxels: f64,
    constant_guess_mm: f64,
}

/// `cargo xtask demo`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    let out = workspace.root().join(&options.out);
    if options.ci {
        // CI must not stumble over its last run.
        fs::remove_dir_all(&out).ok();
    }
    if out.exists() {
        bail!(
            "{} exists: remove it, or name another folder with --out",
            out.display()
        );
    }
    command::run(&mut workspace.cargo("build --release --locked -p cli"))?;
    let program = workspace.target_folder()?.join("release/landmarl");
    for arguments in commands(options.seed, &options.out, options.ci) {
        command::run(
            workspace
                .command(&program.to_string_lossy())
                .args(arguments),
        )?;
    }
    let path = out.join("eval/summary.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("eval left no {}", path.display()))?;
    let summary: Summary = serde_json::from_str(&text)
        .with_context(|| format!("{} is not as expected", path.display()))?;
    println!("scans, checkpoints and results are in {}", out.display());
    verdict(&summary, options.ci)
}

/// The short training must beat the constant guess; the long one must come
/// within 2 voxels and below a third of it.
fn verdict(summary: &Summary, ci: bool) -> Result<()> {
    let Summary {
        mean_error_mm: ours,
        mean_error_voxels: voxels,
        constant_guess_mm: guess,
    } = *summary;
    let (limit, voxels_max) = if ci {
        (guess, f64::INFINITY)
    } else {
        (guess / 3.0, 2.0)
    };
    println!(
        "mean error {ours:.2} mm = {voxels:.2} voxels, constant guess {guess:.2} mm, \
         wanted below {limit:.2} mm and at most {voxels_max} voxels"
    );
    // Written so that NaN fails.
    if ours < limit && voxels <= voxels_max {
        return Ok(());
    }
    bail!("the trained agents are not good enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_strict_about_what_is_not_a_number() {
        let summary = |ours, guess| Summary {
            mean_error_mm: ours,
            mean_error_voxels: ours,
            constant_guess_mm: guess,
        };
        assert!(verdict(&summary(3.0, 5.0), true).is_ok());
        assert!(verdict(&summary(3.0, 8.0), false).is_err());
        assert!(verdict(&summary(2.5, 9.0), false).is_err(), "2.5 voxels");
        assert!(verdict(&summary(2.0, 9.0), false).is_ok());
        assert!(verdict(&summary(5.0, 5.0), true).is_err());
        assert!(verdict(&summary(f64::NAN, 5.0), true).is_err());
        assert!(verdict(&summary(1.0, f64::NAN), true).is_err());
    }
}
