//! `landmarl data split`: divides scans into training, validation and test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::imaging::dataset::{Pair, Source, Split, Subject};
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
/// Scans of one subject stay together, where names show the subject: `sub-01` in a folder
/// or name, a folder such as `patient7`, or what comes before words such as `_ses-1`,
/// `_T1w`, `_run2`. The same seed, options and file names give the same split, whatever the
/// folders.
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
    /// Scans to keep together, instead of those of one subject: those whose names are equal
    /// up to this character (`_` for a_1 and a_2), or none
    #[arg(long, value_name = "CHAR|none", value_parser = grouping)]
    group: Option<Grouping>,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which scans stay together.
#[derive(Debug, Clone, Copy)]
enum Grouping {
    None,
    /// Those whose names are equal up to the character.
    UpTo(char),
}

fn grouping(word: &str) -> Result<Grouping, String> {
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => Ok(Grouping::UpTo(letter)),
        _ if word.eq_ignore_ascii_case("none") => Ok(Grouping::None),
        _ => Err("give one character, or none".to_owned()),
    }
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
    let groups = groups(&pairs, args.group);
    let subjects = groups.len();
    let divided = divide(groups, pairs.len(), args);
    let folder = args.out.parent().unwrap_or(Path::new(""));
    let text = manifest(&pairs, &divided, folder, args.folds.is_some())?;
    write_atomic(&args.out, text.as_bytes())?;
    let count = |split| divided.iter().filter(|d| d.0 == split).count();
    let [train, validation, test] = [Split::Train, Split::Validation, Split::Test].map(count);
    if args.json {
        console::json(&serde_json::json!({
            "manifest": args.out, "train": train, "validation": validation, "test": test,
            "subjects": subjects,
        }))?;
    } else {
        let (out, scans) = (args.out.display(), pairs.len());
        let what = if args.group.is_none() {
            "subject"
        } else {
            "group"
        };
        let s = if subjects == 1 { "" } else { "s" };
        console::note(&format!(
            "{out}: {train} train, {validation} validation, {test} test; {scans} scans of \
             {subjects} {what}{s}"
        ));
    }
    if let Some(empty) = empty(train, validation, test, args) {
        console::note(&empty);
    }
    Ok(Exit::Done)
}

fn pairs(args: &Args) -> anyhow::Result<Vec<Pair>> {
    let failed = |errors: Vec<common::imaging::dataset::SourceError>| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Advice::new(Exit::Data, lines.join("\n  ")).hint("run `landmarl data check` for details")
    };
    let source = Source::read(&args.path, args.landmarks_files.as_deref()).map_err(failed)?;
    for unused in &source.unused {
        console::note(&format!("not used: {unused}"));
    }
    if Split::ALL.into_iter().any(|split| source.has(split, None)) {
        let message = format!("{} already has splits", args.path.display());
        let hint = "train and evaluate with it as it is";
        return Err(Advice::new(Exit::Usage, message).hint(hint).into());
    }
    Ok(source.pairs(Split::Train, None).map_err(failed)?)
}

/// A warning where whole subjects leave a split without scans.
fn empty(train: usize, validation: usize, test: usize, args: &Args) -> Option<String> {
    let selects = args.validation > 0.0 && args.folds.is_none();
    let wanted = [
        (train == 0, "train"),
        (selects && validation == 0, "validation"),
        (args.test > 0.0 && test == 0, "test"),
    ];
    let empty = wanted.into_iter().filter(|(empty, _)| *empty);
    let empty: Vec<&str> = empty.map(|(_, name)| name).collect();
    let names = empty.join(" and ");
    (!empty.is_empty()).then(|| {
        format!(
            "warning: no scans for {names}: scans of one subject stay together, and there are too \
             few subjects; where names only look like one subject's, give --group none"
        )
    })
}

/// The numbers of the scans that stay together, in an order that depends on names alone.
fn groups(pairs: &[Pair], by: Option<Grouping>) -> Vec<Vec<usize>> {
    let images: Vec<&Path> = pairs.iter().map(|pair| pair.image.as_path()).collect();
    let subjects = match by {
        None => Subject::of_all(&images),
        Some(_) => vec![None; pairs.len()],
    };
    let mut groups: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (number, (image, subject)) in images.into_iter().zip(subjects).enumerate() {
        groups
            .entry(key(image, subject, by))
            .or_default()
            .push(number);
    }
    groups.into_values().collect()
}

/// Split and fold of each scan. Whole groups are assigned in shuffled order, to
/// test, then validation, until each has its share.
fn divide(mut groups: Vec<Vec<usize>>, scans: usize, args: &Args) -> Vec<(Split, Option<usize>)> {
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few scans"
    )]
    let wanted = |share: f64| (share * scans as f64).round() as usize;
    let (test, validation) = (wanted(args.test), wanted(args.validation));
    let mut divided = vec![(Split::Train, None); scans];
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

/// Sorts by name, not by path: the result is the same wherever the files are.
type Key = (String, Option<Subject>);

fn key(image: &Path, subject: Option<Subject>, by: Option<Grouping>) -> Key {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    if let Some(subject) = subject {
        return (subject.to_string(), Some(subject));
    }
    if let Some(Grouping::UpTo(letter)) = by {
        let start = name.split(letter).next().unwrap_or_default();
        return (start.to_owned(), None);
    }
    // Names may repeat in other folders; the last two path components rarely do.
    let folder = image.parent().and_then(Path::file_name).unwrap_or_default();
    let (folder, whole) = (folder.to_string_lossy(), image.display());
    (format!("{name}\n{folder}\n{whole}"), None)
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
        let landmarks = pair.landmarks.iter().map(|path| shown(path, folder));
        let landmarks: Vec<String> = landmarks.collect::<anyhow::Result<_>>()?;
        let mut row = vec![
            shown(&pair.image, folder)?,
            landmarks.join("|"),
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
