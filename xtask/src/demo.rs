//! All of landmarl in one run, on synthetic scans: nothing to download, nothing to
//! prepare.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::workspace::Workspace;
use crate::{command, files, libtorch};

/// Make phantom scans, train on them and evaluate on unseen ones.
///
/// At the end it compares the mean error with that of the mean-position baseline,
/// the mean of the training landmarks, and fails if it is not smaller.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The seed of the scans and of the training
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The folder for scans, checkpoints and results; it must not exist yet
    #[arg(long, default_value = "demo")]
    pub out: PathBuf,
    /// Train as briefly as CI does
    #[arg(long)]
    pub ci: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask demo
  cargo xtask demo --seed 7 --out /tmp/demo-7";

/// All command lines, without the program's name.
fn commands(seed: u64, out: &Path, ci: bool) -> Vec<Vec<String>> {
    let preset = if ci { "phantom-ci" } else { "phantom" };
    let out = out.display();
    let lines = [
        format!("phantom|--out|{out}/data|--train|24|--validation|6|--test|10|--seed|{seed}"),
        format!(
            "train|--config|configs/{preset}.toml|--set|run.dir={out}/run|--set|run.seed={seed}\
             |--set|data.train_images={out}/data/train/images.txt\
             |--set|data.train_landmarks={out}/data/train/landmarks.txt\
             |--set|data.validation_images={out}/data/validation/images.txt\
             |--set|data.validation_landmarks={out}/data/validation/landmarks.txt"
        ),
        // The baseline is the mean of the training landmarks.
        format!(
            "eval|--load|{out}/run|--images|{out}/data/test/images.txt\
             |--landmarks-files|{out}/data/test/landmarks.txt\
             |--train-images|{out}/data/train/images.txt\
             |--train-landmarks|{out}/data/train/landmarks.txt|--out|{out}/eval"
        ),
    ];
    let words = |line: &String| line.split('|').map(str::to_owned).collect();
    lines.iter().map(words).collect()
}

/// The fields of `summary.json` that are needed here.
#[derive(Debug, Deserialize)]
struct Summary {
    mean_error_mm: f64,
    mean_error_voxels: f64,
    baseline_error_mm: f64,
}

/// `cargo xtask demo`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    let out = workspace.root.join(&options.out);
    if options.ci {
        // What the last run of CI left.
        fs::remove_dir_all(&out).ok();
    }
    let shown = out.display();
    if out.exists() {
        bail!("{shown} exists: remove it, or name another folder with --out");
    }
    let program = workspace.build("-p cli")?.join("release/landmarl");
    for arguments in commands(options.seed, &options.out, options.ci) {
        command::run(workspace.command(&program).args(arguments))?;
    }
    let summary: Summary = files::read_json(&out.join("eval/summary.json"))?;
    println!("scans, checkpoints and results are in {shown}");
    verdict(&summary, options.ci)
}

/// The short training must beat the baseline; the long one must come within
/// 2 voxels and below a third of it.
fn verdict(summary: &Summary, ci: bool) -> Result<()> {
    let Summary {
        mean_error_mm: ours,
        mean_error_voxels: voxels,
        baseline_error_mm: baseline,
    } = *summary;
    let (share, voxels_max) = if ci { (1.0, f64::INFINITY) } else { (3.0, 2.0) };
    let limit = baseline / share;
    println!(
        "mean error {ours:.2} mm = {voxels:.2} voxels, mean-position baseline {baseline:.2} mm, \
         wanted below {limit:.2} mm and at most {voxels_max} voxels"
    );
    // Written so that NaN fails.
    let good = ours < limit && voxels <= voxels_max;
    ensure!(good, "the trained agents are not good enough");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_strict_and_nan_fails() {
        let summary = |ours, baseline| Summary {
            mean_error_mm: ours,
            mean_error_voxels: ours,
            baseline_error_mm: baseline,
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
