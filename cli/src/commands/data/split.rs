//! `landmarl data split`: divides scans into training, validation and test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::imaging::dataset::{Pair, Source, Split};
use common::run::durable::write_atomic;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::new_file::Replace;

const DEFAULT_SHARE: f64 = 0.15;

/// Split scans into training, validation and test, and write a manifest.
///
/// The same seed, options and file names give the same split, whatever the folders.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// List, folder or manifest of scans, without splits
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Landmark files of a list of scans: a list in the same order
    #[arg(long, value_name = "LIST", alias = "landmark-files")]
    landmarks_files: Option<PathBuf>,
    /// Manifest to write (CSV); paths below its folder are relative to it
    #[arg(long, short = 'o', value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    replace: Replace,
    /// Fraction of the scans for selecting the best checkpoint
    #[arg(long, default_value_t = DEFAULT_SHARE, value_name = "SHARE", alias = "selection")]
    validation: f64,
    /// Fraction of the scans for the final test
    #[arg(long, default_value_t = DEFAULT_SHARE, value_name = "SHARE")]
    test: f64,
    /// Number of folds for cross-validation, instead of a validation fraction
    #[arg(long, value_name = "K", conflicts_with = "validation")]
    folds: Option<usize>,
    /// Keep scans together whose names are equal up to this character (`_` for
    /// sub-01_ses-1 and sub-01_ses-2)
    #[arg(long, value_name = "CHAR")]
    group: Option<char>,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl data split scans/ -o scans.csv --validation 0.15 --test 0.15
  landmarl data split images.txt --landmarks-files landmarks.txt -o folds.csv --folds 5 --group _
  landmarl train --train-images folds.csv --fold 0 --landmarks AC,PC";

pub fn run(args: &Args) -> Outcome {
    let (validation, test) = (args.validation, args.test);
    let valid = |share: f64| (0.0..1.0).contains(&share);
    if !valid(validation) || !valid(test) || validation + test >= 1.0 {
        let message =
            format!("--validation {validation} and --test {test} leave nothing to train on");
        let hint = "give shares of 0 to below 1 that add up to less than 1";
        return Err(Advice::new(Exit::Usage, message).hint(hint).into());
    }
    if args.folds.is_some_and(|k| k < 2) {
        return Err(Advice::new(Exit::Usage, "--folds needs at least 2").into());
    }
    args.replace.check(&args.out)?;
    let pairs = pairs(args)?;
    let divided = divide(&pairs, args);
    let folder = args.out.parent().unwrap_or(Path::new(""));
    let text = manifest(&pairs, &divided, folder, args.folds.is_some())?;
    write_atomic(&args.out, text.as_bytes())?;
    let count = |split| divided.iter().filter(|d| d.0 == split).count();
    let [train, validation, test] = [Split::Train, Split::Validation, Split::Test].map(count);
    if args.json {
        console::json(&serde_json::json!({
            "manifest": args.out, "train": train, "validation": validation, "test": test,
        }))?;
    } else {
        let (out, counts) = (
            args.out.display(),
            format!("{train} train, {validation} validation"),
        );
        console::note(&format!("{out}: {counts}, {test} test"));
    }
    Ok(Exit::Done)
}

fn pairs(args: &Args) -> anyhow::Result<Vec<Pair>> {
    let failed = |errors: Vec<common::imaging::dataset::SourceError>| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Advice::new(Exit::Data, lines.join("\n  ")).hint("run `landmarl data check` for details")
    };
    let source = Source::read(&args.path, args.landmarks_files.as_deref()).map_err(failed)?;
    let named = [Split::Train, Split::Validation, Split::Test];
    if named.into_iter().any(|split| source.has(split, None)) {
        let message = format!("{} already has splits", args.path.display());
        let hint = "train and evaluate with it as it is";
        return Err(Advice::new(Exit::Usage, message).hint(hint).into());
    }
    Ok(source.pairs(Split::Train, None).map_err(failed)?)
}

/// Split and fold of each pair. Whole groups are assigned in shuffled order, to
/// test, then validation, until each has its share.
fn divide(pairs: &[Pair], args: &Args) -> Vec<(Split, Option<usize>)> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, pair) in pairs.iter().enumerate() {
        let group = group(&pair.image, args.group);
        groups.entry(group).or_default().push(number);
    }
    // By name, not by path: the result is the same wherever the files are.
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few scans"
    )]
    let wanted = |share: f64| (share * pairs.len() as f64).round() as usize;
    let (test, validation) = (wanted(args.test), wanted(args.validation));
    let mut divided = vec![(Split::Train, None); pairs.len()];
    let (mut tested, mut selecting) = (0, 0);
    for (number, members) in groups.iter().enumerate() {
        let split = if tested < test {
            tested += members.len();
            Split::Test
        } else if args.folds.is_none() && selecting < validation {
            selecting += members.len();
            Split::Validation
        } else {
            Split::Train
        };
        let folds = args.folds.filter(|_| split == Split::Train);
        let fold = folds.map(|k| number % k);
        members.iter().for_each(|&m| divided[m] = (split, fold));
    }
    divided
}

fn group(image: &Path, until: Option<char>) -> String {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let whole = || image.display().to_string();
    let Some(until) = until else {
        // Names may repeat in other folders; the last two path components rarely do.
        let folder = image.parent().and_then(Path::file_name).unwrap_or_default();
        return format!("{name}\n{}\n{}", folder.to_string_lossy(), whole());
    };
    name.split(until).next().map_or_else(whole, str::to_owned)
}

fn manifest(
    pairs: &[Pair],
    divided: &[(Split, Option<usize>)],
    folder: &Path,
    folds: bool,
) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["image", "landmarks", "split"];
    header.extend(folds.then_some("fold"));
    writer.write_record(&header)?;
    for (pair, (split, fold)) in pairs.iter().zip(divided) {
        let landmarks = pair.landmarks.as_deref().map(|p| shown(p, folder));
        let mut row = vec![
            shown(&pair.image, folder)?,
            landmarks.transpose()?.unwrap_or_default(),
            split.to_string(),
        ];
        row.extend(folds.then(|| fold.map_or_else(String::new, |f| f.to_string())));
        writer.write_record(&row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Relative to the manifest's folder if the path is below it, else absolute.
fn shown(path: &Path, folder: &Path) -> anyhow::Result<String> {
    let here = std::env::current_dir()?;
    let (path, folder) = (here.join(path), here.join(folder));
    let path = path.canonicalize().unwrap_or(path);
    let folder = folder.canonicalize().unwrap_or(folder);
    let short = path.strip_prefix(&folder).unwrap_or(&path);
    Ok(short.display().to_string())
}
