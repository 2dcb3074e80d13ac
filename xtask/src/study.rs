//! Studies: how settings change the error on unseen scans, over several seeds. A
//! study that was stopped resumes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::workspace::Workspace;
use crate::{command, files, libtorch};

/// `landmarl`'s exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;
/// The folder of a run's evaluation, which `landmarl runs compare` finds.
const EVALUATION: &str = "evaluations/study";

/// Train every variant of a study with every seed and compare the errors on unseen scans.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// File of the study, such as configs/studies/bootstrap.toml
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
    /// Compare existing results and train nothing
    #[arg(long)]
    show: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask study configs/studies/bootstrap.toml
  cargo xtask study configs/studies/bootstrap.toml --seeds 4,5 --only 'gamma 0'
  cargo xtask study configs/studies/bootstrap.toml --show

You can stop it at any time; the same command resumes it and tries again what failed. All
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
    fn run(&self, seed: impl Display) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let name = self.name.to_lowercase();
        format!("{}-s{seed}", name.replace(|c| !plain(c), "-"))
    }
}

fn parse(text: &str) -> Result<Study> {
    let study: Study = toml::from_str(text)?;
    let names: BTreeSet<String> = study.variants.iter().map(|v| v.run(0)).collect();
    if names.len() < study.variants.len() {
        bail!("two variants have the same name, or nearly so");
    }
    let empty = names.is_empty() || study.seeds.is_empty();
    ensure!(!empty, "a study needs a variant and a seed");
    Ok(study)
}

/// `cargo xtask study`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let text = files::read(&workspace.root.join(&options.study))?;
    let study = parse(&text);
    let mut study = study.with_context(|| format!("{} is not a study", options.study.display()))?;
    let names: Vec<String> = study.variants.iter().map(|v| v.name.clone()).collect();
    if let Some(unknown) = options.only.iter().find(|name| !names.contains(name)) {
        let names = names.join(", ");
        bail!("there is no variant {unknown:?}; there are {names}");
    }
    let chosen = |v: &Variant| options.only.is_empty() || options.only.contains(&v.name);
    study.variants.retain(chosen);
    libtorch::ensure(workspace)?;
    let program = workspace.build("-p cli")?.join("release/landmarl");
    let program = || workspace.command(&program);
    let default = Path::new("studies").join(&study.name);
    let out = options.out.as_ref().unwrap_or(&default);
    let runs = workspace.root.join(out).join("runs");
    let mut all = Vec::new();
    for seed in options.seeds.as_ref().unwrap_or(&study.seeds) {
        for variant in &study.variants {
            let training = Training::new(&study, variant, *seed, &runs);
            training.note()?;
            all.push(training);
        }
    }
    let mut failed = 0;
    for training in all.iter().filter(|_| !options.show) {
        let shown = format!("{}, seed {}", training.variant.name, training.seed);
        println!("== {shown}");
        match training.train(program) {
            Ok(true) => {}
            Ok(false) => bail!("interrupted; the same command resumes it"),
            Err(error) => {
                eprintln!("{shown}: {error:#}");
                failed += 1;
            }
        }
    }
    let runs_of = |variant: &Variant| -> Vec<PathBuf> {
        let all = all.iter().filter(|t| t.variant.name == variant.name);
        all.map(|t| t.run.clone()).collect()
    };
    let mut there: Vec<PathBuf> = study.variants.iter().flat_map(runs_of).collect();
    there.retain(|run| run.join("run.json").is_file());
    if there.len() > 1 {
        command::run(program().args(["runs", "compare"]).args(there))?;
    }
    let question = &study.question;
    println!("{question}\nmean error in voxels, over seeds (range):");
    for variant in &study.variants {
        let runs = runs_of(variant);
        let errors = runs.iter().filter_map(|run| error(run)).collect();
        println!("  {}: {}", variant.name, over_seeds(errors));
    }
    ensure!(failed == 0, "{failed} trainings failed: see above");
    Ok(())
}

/// The mean error that the evaluation of a run found.
fn error(run: &Path) -> Option<f64> {
    let summary = run.join(EVALUATION).join("summary.json");
    files::read_json::<Value>(&summary).ok()?["mean_error_voxels"].as_f64()
}

fn over_seeds(mut errors: Vec<f64>) -> String {
    errors.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (errors.first(), errors.last()) else {
        return "none yet".to_owned();
    };
    let seeds = errors.len();
    let mean = errors.iter().sum::<f64>() / seeds as f64;
    format!("{mean:.2} ({least:.2} to {most:.2}), {seeds} seeds")
}

/// A variant with a seed.
struct Training<'a> {
    study: &'a Study,
    variant: &'a Variant,
    seed: String,
    /// The folder of its run.
    run: PathBuf,
}

impl<'a> Training<'a> {
    fn new(study: &'a Study, variant: &'a Variant, seed: u64, runs: &Path) -> Self {
        Self {
            study,
            variant,
            seed: seed.to_string(),
            run: runs.join(variant.run(seed)),
        }
    }

    fn arguments(&self) -> Vec<&str> {
        let mut line = vec!["train", "--config", &self.study.config];
        line.extend(["--seed", &self.seed]);
        for setting in self.study.set.iter().chain(&self.variant.set) {
            line.extend(["--set", setting]);
        }
        line
    }

    /// The file that records how the run was trained and evaluated, and its text.
    /// Refuses results of other settings, which would be shown as this variant's.
    fn note(&self) -> Result<(PathBuf, String)> {
        let (study, run) = (self.study, self.run.display());
        let mut line = self.arguments();
        line.extend(["then", "eval", "--protocol", &study.protocol]);
        line.extend([study.test_images.as_str(), &study.test_landmarks]);
        let (path, text) = (PathBuf::from(format!("{run}.txt")), line.join(" "));
        let before = fs::read_to_string(&path).unwrap_or_else(|_| text.clone());
        ensure!(
            before == text,
            "{run} was trained by `{before}`: give the variant another name, or the study another --out"
        );
        Ok((path, text))
    }

    /// Does the rest of the training and its evaluation; false if Ctrl-C ended it.
    fn train(&self, program: impl Fn() -> Command) -> Result<bool> {
        let (run, study) = (&self.run, self.study);
        let (note, text) = self.note()?;
        let runs = note.parent().unwrap_or(run);
        files::create_folder(runs)?;
        files::write(&note, &text)?;
        if error(run).is_some() {
            return Ok(true);
        }
        let mut train = program();
        if run.join("run.json").is_file() {
            train.args(["train", "--resume"]).arg(run);
        } else {
            let name = self.variant.run(&self.seed);
            train.args(self.arguments()).args(["--name", &name]);
            train.arg("--run-dir").arg(runs);
        }
        println!("$ {}", command::show(&train));
        let status = train.status().context("cannot start landmarl")?;
        if status.code() == Some(INTERRUPTED) {
            return Ok(false);
        }
        let logs = run.join("logs").display().to_string();
        ensure!(status.success(), "training failed ({status}); see {logs}");
        let mut eval = program();
        eval.args(["eval", "--no-pictures", "--protocol", &study.protocol])
            .args(["--images", &study.test_images])
            .args(["--landmarks-files", &study.test_landmarks])
            .args([Path::new("--load"), run])
            .args([Path::new("--out"), &run.join(EVALUATION)])
            // An interrupted evaluation has left files.
            .arg("--force");
        command::run(&mut eval)?;
        Ok(true)
    }
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
    fn a_run_resumes_is_evaluated_and_keeps_its_settings() {
        let text = "name = 'a'\nquestion = ''\nconfig = 'c.toml'\nset = ['x=1']\nseeds = [1]\n\
            test_images = 'i'\ntest_landmarks = 'l'\nprotocol = '19'\n[[variant]]\nname = 'Gamma 0.9'\n";
        let twice = format!("{text}[[variant]]\nname = 'gamma-0.9'\n");
        assert!(parse(&twice).is_err_and(|e| e.to_string().contains("two variants")));
        let mut study = parse(text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Logs its arguments and writes the files of landmarl.
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
            Training::new(study, &study.variants[0], 1, &runs).train(program)
        };
        assert!(!train(&study, "130").unwrap());
        assert!(train(&study, "4").is_err_and(|e| e.to_string().contains("gamma-0.9-s1/logs")));
        assert!(train(&study, "0").unwrap());
        assert!(train(&study, "9").unwrap(), "nothing is left to do");
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let (run, resumed) = ("R/gamma-0.9-s1", "train --resume R/gamma-0.9-s1\n");
        let expected = format!(
            "train --config c.toml --seed 1 --set x=1 --name gamma-0.9-s1 --run-dir R\n{resumed}{resumed}\
             eval --no-pictures --protocol 19 --images i --landmarks-files l --load {run} --out {run}/evaluations/study --force\n"
        );
        assert_eq!(log.replace(&runs.display().to_string(), "R"), expected);
        study.set.push("y=2".to_owned());
        assert!(train(&study, "0").is_err_and(|e| e.to_string().contains("another name")));
        let found = error(&runs.join("gamma-0.9-s1")).into_iter().chain([2.5]);
        assert_eq!(over_seeds(found.collect()), "2.00 (1.50 to 2.50), 2 seeds");
    }
}
