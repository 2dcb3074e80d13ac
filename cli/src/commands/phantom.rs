//! `landmarl phantom`: generates synthetic scans with known landmarks.

use std::path::PathBuf;

use anyhow::Context as _;
use common::phantom::{
    LANDMARK_NAMES, PhantomCounts, PhantomSet, PhantomSpec, set_folder, write_dataset,
};

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::quote::shell_quoted;

/// Generate head-like scans with exactly known landmarks.
///
/// Writes DIR/{train,validation,test}/ with NIfTI images, landmark files (RAS mm)
/// and the two list files for train and eval. A second run adds the missing scans.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Output folder
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
    /// Number of training scans
    #[arg(long, default_value_t = 24)]
    train: usize,
    /// Number of validation scans
    #[arg(long, default_value_t = 6, alias = "selection")]
    validation: usize,
    /// Number of test scans
    #[arg(long, default_value_t = 10)]
    test: usize,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Voxels per axis, such as 64 or 96x112x96
    #[arg(long, value_name = "N[xNxN]")]
    size: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl phantom --out demo/data
  landmarl phantom --out tiny --train 4 --validation 2 --test 2 --size 56 --seed 7";

pub fn run(args: &Args) -> Outcome {
    let spec = match &args.size {
        None => PhantomSpec::default(),
        Some(text) => PhantomSpec::with_dims(size(text)?),
    };
    let counts = PhantomCounts {
        train: args.train,
        validation: args.validation,
        test: args.test,
    };
    let total = PhantomSet::ALL.iter().map(|&s| counts.of(s) as u64).sum();
    let counter = console::counter(total, "phantoms");
    let done = write_dataset(&args.out, counts, &spec, args.seed, |p| {
        counter.set(p.done, p.total);
    });
    counter.finish();
    let done = done.with_context(|| format!("write phantoms to {}", args.out.display()))?;
    if args.json {
        console::json(&serde_json::json!({
            "folder": args.out, "phantoms": done.total, "kept": done.kept,
            "landmarks": LANDMARK_NAMES,
        }))?;
        return Ok(Exit::Done);
    }
    let (total, kept, folder) = (done.total, done.kept, args.out.display());
    let landmarks = LANDMARK_NAMES.join(", ");
    console::note(&format!(
        "{total} phantoms in {folder} ({kept} existed already); landmarks: {landmarks}"
    ));
    console::note(&next_commands(args));
    Ok(Exit::Done)
}

fn next_commands(args: &Args) -> String {
    let lists = |images: &str, set: PhantomSet, landmarks: &str| {
        let list = |name: &str| {
            let list = set_folder(&args.out, set).join(name);
            shell_quoted(&list.to_string_lossy()).into_owned()
        };
        let (scans, files) = (list("images.txt"), list("landmarks.txt"));
        format!(" {images} {scans} {landmarks} {files}")
    };
    let mut text = String::from("next:");
    if args.train > 0 {
        text += "\n  landmarl train";
        text += &lists("--train-images", PhantomSet::Train, "--train-landmarks");
        if args.validation > 0 {
            let (images, landmarks) = ("--validation-images", "--validation-landmarks");
            text += &lists(images, PhantomSet::Validation, landmarks);
        }
        text += &format!(" --landmarks {}", LANDMARK_NAMES.join(","));
    }
    if args.test > 0 {
        text += "\n  landmarl eval --load runs";
        text += &lists("--images", PhantomSet::Test, "--landmarks-files");
    }
    text
}

/// `64`, or `96x112x96`.
fn size(text: &str) -> Result<[usize; 3], Advice> {
    let parts = text.split(['x', '×', ',']).map(|p| p.trim().parse().ok());
    match parts.collect::<Option<Vec<usize>>>().as_deref() {
        Some(&[n]) => Ok([n; 3]),
        Some(&[x, y, z]) => Ok([x, y, z]),
        _ => {
            let message = format!("--size \"{text}\" is not a size");
            Err(Advice::new(Exit::Usage, message).hint("give one number, or three as in 96x112x96"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("64").unwrap(), [64; 3]);
        assert_eq!(size("96x112x90").unwrap(), [96, 112, 90]);
        for bad in ["", "x", "1x2", "1x2x3x4", "-3", "big"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
