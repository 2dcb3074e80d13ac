//! `landmarl phantom`: generates synthetic scans with known landmarks.

use std::path::PathBuf;

use anyhow::Context as _;
use common::phantom::{
    LANDMARK_NAMES, PhantomCounts, PhantomSet, PhantomSpec, set_folder, write_dataset,
};

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Make head-like scans with exactly known landmarks.
///
/// Writes DIR/{train,validation,test}/ with NIfTI images, landmark files (RAS
/// mm) and the two list files that train and eval take. Run again, it
/// completes what is there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Folder to write
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
    /// Scans to train on
    #[arg(long, default_value_t = 24)]
    train: usize,
    /// Scans that choose the best checkpoint
    #[arg(long, default_value_t = 6, alias = "selection")]
    validation: usize,
    /// Scans to report on
    #[arg(long, default_value_t = 10)]
    test: usize,
    /// Seed of all scans
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
        let made = serde_json::json!({
            "folder": args.out, "phantoms": done.total, "kept": done.kept,
            "landmarks": LANDMARK_NAMES,
        });
        console::data(&(serde_json::to_string_pretty(&made)? + "\n"))?;
        return Ok(Exit::Done);
    }
    console::note(&format!(
        "{} phantoms in {} ({} were there already); landmarks: {}",
        done.total,
        args.out.display(),
        done.kept,
        LANDMARK_NAMES.join(", ")
    ));
    console::note(&next_commands(args));
    Ok(Exit::Done)
}

fn next_commands(args: &Args) -> String {
    let list = |set: PhantomSet, what: &str| {
        let folder = set_folder(&args.out, set);
        format!("{}/{what}.txt", folder.display())
    };
    let mut text = String::from("next:\n");
    if args.train > 0 {
        text.push_str(&format!(
            "  landmarl train --train-images {} --train-landmarks {}",
            list(PhantomSet::Train, "images"),
            list(PhantomSet::Train, "landmarks")
        ));
        if args.validation > 0 {
            text.push_str(&format!(
                " --validation-images {} --validation-landmarks {}",
                list(PhantomSet::Validation, "images"),
                list(PhantomSet::Validation, "landmarks")
            ));
        }
        text.push_str(&format!(" --landmarks {}\n", LANDMARK_NAMES.join(",")));
    }
    if args.test > 0 {
        text.push_str(&format!(
            "  landmarl eval --load runs/NAME/checkpoints/best.safetensors --images {} --landmarks-files {}\n",
            list(PhantomSet::Test, "images"),
            list(PhantomSet::Test, "landmarks")
        ));
    }
    text.trim_end().to_owned()
}

/// `64`, or `96x112x96`.
fn size(text: &str) -> Result<[usize; 3], Advice> {
    let parts: Option<Vec<usize>> = text
        .split(['x', '×', ','])
        .map(|p| p.trim().parse().ok())
        .collect();
    match parts.as_deref() {
        Some(&[n]) => Ok([n; 3]),
        Some(&[x, y, z]) => Ok([x, y, z]),
        _ => Err(
            Advice::new(Exit::Usage, format!("--size \"{text}\" is not a size"))
                .hint("give one number, or three as in 96x112x96"),
        ),
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
