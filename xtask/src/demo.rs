//! All of landmarl in one run, on synthetic scans: nothing to download, nothing to
//! prepare.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::workspace::Workspace;
use crate::{command, files, libtorch};

/// Make phantom scans, train on them and evaluate on unseen ones.
///
/// At the end it compares the mean error with that of the mean-position baseline,
/// the mean of the training landmarks, and fails if it is not smaller. Started again, it
/// keeps the scans and trains a new run; after an interruption it continues.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The seed of the scans and of the training
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The folder for scans, checkpoints and results; a number is appended if it holds
    /// anything but a demo of this seed
    #[arg(long, default_value = "demo")]
    pub out: PathBuf,
    /// Train as briefly as CI does
    #[arg(long)]
    pub ci: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask demo
  cargo xtask demo --seed 7 --out /tmp/demo-7";

/// A training takes half of this on two idle cores.
const USUALLY: Duration = Duration::from_secs(6 * 60);
const SLOW: &str = "this machine is slow, or busy with other programs: the training takes longer \
    than usual and goes on to its last update; its progress shows the time left";

/// The command lines of a demo in `out`, without the program's name.
struct Commands<'a> {
    seed: u64,
    out: &'a Path,
    ci: bool,
}

fn words(line: &str) -> Vec<String> {
    line.split('|').map(str::to_owned).collect()
}

impl Commands<'_> {
    fn phantom(&self) -> Vec<String> {
        let (seed, out) = (self.seed, self.out.display());
        words(&format!(
            "phantom|--out|{out}/data|--train|24|--validation|6|--test|10|--seed|{seed}"
        ))
    }

    fn train(&self) -> Vec<String> {
        let preset = if self.ci { "phantom-ci" } else { "phantom" };
        let (seed, out) = (self.seed, self.out.display());
        words(&format!(
            "train|--config|configs/{preset}.toml|--set|run.dir={out}/run|--set|run.seed={seed}\
             |--set|data.train_images={out}/data/train/images.txt\
             |--set|data.train_landmarks={out}/data/train/landmarks.txt\
             |--set|data.validation_images={out}/data/validation/images.txt\
             |--set|data.validation_landmarks={out}/data/validation/landmarks.txt"
        ))
    }

    fn resume(&self, run: &str) -> Vec<String> {
        // Earlier versions saved a time limit with the run.
        let out = self.out.display();
        words(&format!(
            "train|--resume|{out}/run/{run}|--set|learner.max_minutes=0"
        ))
    }

    /// The baseline is the mean of the training landmarks.
    fn evaluate(&self, run: &str) -> Vec<String> {
        let out = self.out.display();
        words(&format!(
            "eval|--load|{out}/run/{run}|--images|{out}/data/test/images.txt\
             |--landmarks-files|{out}/data/test/landmarks.txt\
             |--train-images|{out}/data/train/images.txt\
             |--train-landmarks|{out}/data/train/landmarks.txt"
        ))
    }
}

/// The fields of `landmarl runs list --json` that are needed here.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    name: String,
    updates: Option<u64>,
    updates_total: Option<u64>,
    ended: bool,
    evaluation: Option<Summary>,
}

#[derive(Debug, Clone, Deserialize)]
struct Summary {
    mean_error_mm: f64,
    mean_error_voxels: f64,
    baseline_error_mm: f64,
}

/// What is left to do after the last start.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Train,
    Resume(String),
    Evaluate(String),
}

impl Next {
    /// By the newest run, if there is one.
    fn after(newest: Option<Run>) -> Self {
        let Some(run) = newest else {
            return Self::Train;
        };
        let whole = run.updates.is_some() && run.updates >= run.updates_total;
        match run.evaluation {
            _ if !(run.ended && whole) => Self::Resume(run.name),
            None => Self::Evaluate(run.name),
            Some(_) => Self::Train,
        }
    }
}

/// `cargo xtask demo`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    if options.ci {
        // What the last run of CI left.
        let left = workspace.root.join(&options.out);
        if fits(&left, options.seed) {
            fs::remove_dir_all(left).ok();
        }
    }
    let out = place(&workspace.root, &options.out, options.seed)?;
    if out != options.out {
        let (given, seed) = (options.out.display(), options.seed);
        let out = out.display();
        println!("{given} holds something else than a demo of seed {seed}; this one goes to {out}");
    }
    let program = workspace.build("-p cli")?.join("release/landmarl");
    let landmarl = |arguments| {
        let mut command = workspace.command(&program);
        command.args(arguments);
        command
    };
    let commands = Commands {
        seed: options.seed,
        out: &out,
        ci: options.ci,
    };
    let newest = || newest(&workspace.root.join(&out), &mut landmarl(runs(&out)));
    command::run(&mut landmarl(commands.phantom()))?;
    let train = |arguments| {
        println!(
            "training ends after its updates, not after a time: at most 3 minutes on two idle cores"
        );
        command::run_noting(&mut landmarl(arguments), USUALLY, SLOW)
    };
    match Next::after(newest()?) {
        Next::Train => train(commands.train())?,
        Next::Resume(run) => {
            println!("the last training was interrupted: continuing {run}");
            train(commands.resume(&run))?;
        }
        Next::Evaluate(run) => println!("{run} is trained, and not evaluated yet"),
    }
    let trained = newest()?.context("the training left no run")?;
    command::run(&mut landmarl(commands.evaluate(&trained.name)))?;
    let evaluated = newest()?.and_then(|run| run.evaluation);
    let summary = evaluated.context("the evaluation left no results")?;
    println!("scans, checkpoints and results are in {}", out.display());
    verdict(&summary, options.ci)
}

/// The folder for a demo of this seed: `asked`, or the first of `asked-2`, `asked-3`, … that
/// is empty or holds a demo of this seed.
fn place(root: &Path, asked: &Path, seed: u64) -> Result<PathBuf> {
    // Without a trailing slash.
    let asked: PathBuf = asked.components().collect();
    let shown = asked.display();
    let numbered = (2..).map(|number| PathBuf::from(format!("{shown}-{number}")));
    let mut candidates = std::iter::once(asked.clone()).chain(numbered).take(1000);
    let fits = |out: &PathBuf| fits(&root.join(out), seed);
    let found = candidates.find(fits);
    found.with_context(|| format!("{shown} and all numbered ones are taken; give another --out"))
}

/// Whether a folder is missing, is empty, or holds a demo of this seed.
fn fits(out: &Path, seed: u64) -> bool {
    #[derive(Deserialize)]
    struct Data {
        seed: u64,
    }
    let data = files::read_json::<Data>(&out.join("data/dataset.json"));
    let empty = fs::read_dir(out).map_or(!out.exists(), |mut entries| entries.next().is_none());
    empty || data.is_ok_and(|data| data.seed == seed)
}

fn runs(out: &Path) -> Vec<String> {
    words(&format!("runs|list|--json|--dir|{}/run", out.display()))
}

/// The run in `out` that started last.
fn newest(out: &Path, list: &mut std::process::Command) -> Result<Option<Run>> {
    if !out.join("run").is_dir() {
        return Ok(None);
    }
    let runs: Vec<Run> = serde_json::from_str(&command::read(list)?)?;
    Ok(runs.into_iter().next_back())
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

    fn finished() -> Run {
        Run {
            name: "a".into(),
            updates: Some(2400),
            updates_total: Some(2400),
            ended: true,
            evaluation: Some(Summary {
                mean_error_mm: 1.0,
                mean_error_voxels: 1.0,
                baseline_error_mm: 9.0,
            }),
        }
    }

    #[test]
    fn a_second_demo_trains_anew_and_an_interrupted_one_continues() {
        assert_eq!(Next::after(None), Next::Train);
        assert_eq!(Next::after(Some(finished())), Next::Train);
        let trained = Run {
            evaluation: None,
            ..finished()
        };
        assert_eq!(
            Next::after(Some(trained.clone())),
            Next::Evaluate("a".into())
        );
        let resume = Next::Resume("a".into());
        let stopped = Run {
            updates: Some(766),
            ..trained.clone()
        };
        assert_eq!(Next::after(Some(stopped)), resume);
        let killed = Run {
            ended: false,
            ..trained.clone()
        };
        assert_eq!(Next::after(Some(killed)), resume);
        let at_once = Run {
            updates: None,
            updates_total: None,
            ..trained
        };
        assert_eq!(Next::after(Some(at_once)), resume);
    }

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let place = |seed| place(root.path(), Path::new("demo"), seed).unwrap();
        assert_eq!(place(1), Path::new("demo"));
        fs::create_dir(root.path().join("demo")).unwrap();
        assert_eq!(place(1), Path::new("demo"), "it is empty");
        put("demo/data/dataset.json", r#"{"version":1,"seed":1}"#);
        assert_eq!(place(1), Path::new("demo"), "the same demo");
        assert_eq!(place(7), Path::new("demo-2"));
        put("demo-2/thesis.txt", "mine");
        assert_eq!(place(7), Path::new("demo-3"));
        put("demo-3/data/dataset.json", r#"{"version":1,"seed":7}"#);
        assert_eq!(place(7), Path::new("demo-3"));
    }

    #[test]
    fn no_clock_ends_the_training_of_a_demo() {
        for preset in ["phantom", "phantom-ci"] {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let text = files::read(&Path::new(root).join(format!("configs/{preset}.toml")));
            assert!(!text.unwrap().contains("max_minutes"), "{preset}");
        }
    }
}
