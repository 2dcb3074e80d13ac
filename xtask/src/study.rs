//! Studies: what a setting does to the error on scans that training did not see,
//! over seeds. A study that was stopped resumes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::command;
use crate::libtorch;
use crate::workspace::Workspace;

/// `landmarl`'s exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;
/// The folder of a run's evaluation, which `landmarl runs compare` finds.
const EVALUATION: &str = "evaluations/study";

/// Train every variant of a study with every seed and compare the errors on unseen scans.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What to compare, such as configs/studies/bootstrap.toml
    study: PathBuf,
    /// Folder for the runs [default: studies/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// These seeds instead of the study's
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Train the variants with these names only
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Compare what is there and train nothing
    #[arg(long)]
    show: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask study configs/studies/bootstrap.toml
  cargo xtask study configs/studies/bootstrap.toml --seeds 4,5 --only 'gamma 0'
  cargo xtask study configs/studies/bootstrap.toml --show

Stop it whenever you like; the same command goes on, and tries again what failed. All
variants are trained with one seed before the next, so that they can be compared at any time.";

/// A study file. Paths are relative to the clone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Study {
    name: String,
    question: String,
    /// The preset that all variants begin with.
    config: String,
    /// Settings of all variants.
    #[serde(default)]
    set: Vec<String>,
    seeds: Vec<u64>,
    /// What the runs are evaluated on, and how (`landmarl eval --protocol`).
    test_images: String,
    test_landmarks: String,
    protocol: String,
    #[serde(rename = "variant")]
    variants: Vec<Variant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default)]
    set: Vec<String>,
}

impl Variant {
    /// The name of its run with a seed.
    fn run(&self, seed: u64) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let name = self.name.to_lowercase();
        format!("{}-s{seed}", name.replace(|c| !plain(c), "-"))
    }
}

fn parse(text: &str) -> Result<Study> {
    let study: Study = toml::from_str(text)?;
    let names: BTreeSet<String> = study.variants.iter().map(|v| v.run(0)).collect();
    ensure!(
        names.len() == study.variants.len(),
        "two variants have the same name, or nearly so"
    );
    ensure!(
        !names.is_empty() && !study.seeds.is_empty(),
        "a study needs a variant and a seed"
    );
    Ok(study)
}

/// `cargo xtask study`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let shown = options.study.display();
    let text = fs::read_to_string(workspace.root().join(&options.study))
        .with_context(|| format!("cannot read {shown}"))?;
    let mut study = parse(&text).with_context(|| format!("{shown} is not a study"))?;
    let names: Vec<String> = study.variants.iter().map(|v| v.name.clone()).collect();
    if let Some(unknown) = options.only.iter().find(|name| !names.contains(name)) {
        bail!(
            "there is no variant {unknown:?}; there are {}",
            names.join(", ")
        );
    }
    let chosen = |v: &Variant| options.only.is_empty() || options.only.contains(&v.name);
    study.variants.retain(chosen);
    libtorch::ensure(workspace)?;
    command::run(&mut workspace.cargo("build --release --locked -p cli"))?;
    let program = workspace.target_folder()?.join("release/landmarl");
    let program = || workspace.command(&program.to_string_lossy());
    let default = Path::new("studies").join(&study.name);
    let out = workspace
        .root()
        .join(options.out.as_ref().unwrap_or(&default));
    let runs = out.join("runs");
    let seeds = options.seeds.as_ref().unwrap_or(&study.seeds);
    for seed in seeds {
        for variant in &study.variants {
            check(&study, variant, *seed, &runs)?;
        }
    }
    let mut failed = 0;
    for (seed, variant) in seeds
        .iter()
        .flat_map(|s| study.variants.iter().map(move |v| (s, v)))
    {
        if options.show {
            break;
        }
        println!("== {}, seed {seed}", variant.name);
        match train(program, &study, variant, *seed, &runs) {
            Ok(true) => {}
            Ok(false) => bail!("interrupted; the same command goes on with it"),
            Err(error) => {
                eprintln!("{}, seed {seed}: {error:#}", variant.name);
                failed += 1;
            }
        }
    }
    let there = |v: &Variant| {
        seeds
            .iter()
            .map(|s| runs.join(v.run(*s)))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<PathBuf> = study.variants.iter().flat_map(there).collect();
    all.retain(|run| run.join("run.json").is_file());
    if all.len() > 1 {
        command::run(program().args(["runs", "compare"]).args(all))?;
    }
    println!(
        "{}\nmean error in voxels, over seeds (range):",
        study.question
    );
    for variant in &study.variants {
        let errors = there(variant)
            .into_iter()
            .filter_map(|run| error(&run))
            .collect();
        println!("  {}: {}", variant.name, over_seeds(errors));
    }
    ensure!(failed == 0, "{failed} trainings failed: see above");
    Ok(())
}

/// What the evaluation of a run found.
fn error(run: &Path) -> Option<f64> {
    let text = fs::read_to_string(run.join(EVALUATION).join("summary.json")).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["mean_error_voxels"].as_f64()
}

fn over_seeds(mut errors: Vec<f64>) -> String {
    errors.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (errors.first(), errors.last()) else {
        return "none yet".to_owned();
    };
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    format!(
        "{mean:.2} ({least:.2} to {most:.2}), {} seeds",
        errors.len()
    )
}

fn training<'a>(study: &'a Study, variant: &'a Variant, seed: &'a str) -> Vec<&'a str> {
    let mut line = vec!["train", "--config", &study.config, "--seed", seed];
    for setting in study.set.iter().chain(&variant.set) {
        line.extend(["--set", setting]);
    }
    line
}

/// The file that says how a run was trained and evaluated, and its text.
fn note(study: &Study, variant: &Variant, seed: u64, runs: &Path) -> (PathBuf, String) {
    let path = runs.join(format!("{}.txt", variant.run(seed)));
    let seed = seed.to_string();
    let mut line = training(study, variant, &seed);
    line.extend(["then", "eval", "--protocol", &study.protocol]);
    line.extend([study.test_images.as_str(), &study.test_landmarks]);
    (path, line.join(" "))
}

/// Refuses results of other settings, which would be shown as this variant's.
fn check(study: &Study, variant: &Variant, seed: u64, runs: &Path) -> Result<()> {
    let (path, text) = note(study, variant, seed, runs);
    let before = fs::read_to_string(&path).unwrap_or_else(|_| text.clone());
    ensure!(
        before == text,
        "{} was made by `{before}`: give the variant another name, or the study another --out",
        variant.run(seed)
    );
    Ok(())
}

/// Does what is left of a training and its evaluation; false if Ctrl-C ended it.
fn train(
    program: impl Fn() -> Command,
    study: &Study,
    variant: &Variant,
    seed: u64,
    runs: &Path,
) -> Result<bool> {
    check(study, variant, seed, runs)?;
    let (note, text) = note(study, variant, seed, runs);
    let (name, seed) = (variant.run(seed), seed.to_string());
    let run = runs.join(&name);
    let line = training(study, variant, &seed);
    fs::create_dir_all(runs)
        .and_then(|()| fs::write(&note, text))
        .with_context(|| format!("cannot write {}", note.display()))?;
    if error(&run).is_some() {
        return Ok(true);
    }
    let mut train = program();
    if run.join("run.json").is_file() {
        train.args(["train", "--resume"]).arg(&run);
    } else {
        train
            .args(line)
            .args(["--name", &name, "--run-dir"])
            .arg(runs);
    }
    println!("$ {}", command::show(&train));
    let status = train.status().context("landmarl does not start")?;
    if status.code() == Some(INTERRUPTED) {
        return Ok(false);
    }
    ensure!(
        status.success(),
        "training failed ({status}); see {}/logs",
        run.display()
    );
    let mut eval = program();
    eval.args(["eval", "--no-pictures", "--protocol", &study.protocol])
        .args([
            "--images",
            &study.test_images,
            "--landmarks-files",
            &study.test_landmarks,
        ])
        .arg("--load")
        .arg(&run)
        .arg("--out")
        .arg(run.join(EVALUATION));
    command::run(&mut eval)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_studies_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/studies");
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(parse(&text).unwrap().variants.len() > 1);
        }
    }

    #[test]
    fn a_run_is_trained_evaluated_and_never_taken_for_another() {
        let text = "name = 'a'\nquestion = ''\nconfig = 'c.toml'\nset = ['x=1']\nseeds = [1]\n\
            test_images = 'i'\ntest_landmarks = 'l'\nprotocol = '19'\n[[variant]]\nname = 'Gamma 0.9'\n";
        let twice = format!("{text}[[variant]]\nname = 'gamma-0.9'\n");
        assert!(parse(&twice).is_err_and(|e| e.to_string().contains("two variants")));
        let mut study = parse(text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Notes its arguments and leaves the files that landmarl leaves.
        let script = "echo \"$@\" >> log; mkdir -p $R/evaluations/study; touch $R/run.json; test $1 = train ||
            echo '{\"mean_error_voxels\": 1.5}' > $R/evaluations/study/summary.json; exit $CODE";
        fs::write(folder.path().join("landmarl"), script).unwrap();
        let runs = folder.path().join("runs");
        let train = |study: &Study, code: &str| {
            let program = || {
                let mut command = Command::new("sh");
                command.arg("landmarl").current_dir(&folder);
                command.envs([("CODE", code), ("R", "runs/gamma-0.9-s1")]);
                command
            };
            super::train(program, study, &study.variants[0], 1, &runs)
        };
        assert!(!train(&study, "130").unwrap());
        assert!(train(&study, "4").is_err_and(|e| e.to_string().contains("gamma-0.9-s1/logs")));
        assert!(train(&study, "0").unwrap());
        assert!(train(&study, "9").unwrap(), "nothing is left to do");
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let (run, resumed) = ("R/gamma-0.9-s1", "train --resume R/gamma-0.9-s1\n");
        let expected = format!(
            "train --config c.toml --seed 1 --set x=1 --name gamma-0.9-s1 --run-dir R\n{resumed}{resumed}\
             eval --no-pictures --protocol 19 --images i --landmarks-files l --load {run} --out {run}/evaluations/study\n"
        );
        assert_eq!(log.replace(&runs.display().to_string(), "R"), expected);
        study.set.push("y=2".to_owned());
        assert!(train(&study, "0").is_err_and(|e| e.to_string().contains("another name")));
        let found = error(&runs.join("gamma-0.9-s1")).into_iter().chain([2.5]);
        assert_eq!(over_seeds(found.collect()), "2.00 (1.50 to 2.50), 2 seeds");
    }
}
