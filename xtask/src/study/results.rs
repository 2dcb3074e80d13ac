//! What came out, a line per training.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Training};

/// Points of a curve that are kept.
const CURVE: usize = 60;

/// How a training ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Trained(Trained),
    /// Why it did not.
    Failed(String),
}

/// The figures of one training, errors in voxels on scans that it has not seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    updates: u64,
    minutes: f64,
    /// Of the consensus of all starts.
    mean: f64,
    median: f64,
    /// Of the single walks.
    walks: f64,
    constant_guess: Option<f64>,
    /// (updates, loss, error of training episodes in finest steps).
    curve: Vec<(u64, f64, Option<f64>)>,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    variant: String,
    seed: u64,
    settings: Vec<String>,
    outcome: Outcome,
}

/// The file of results.
#[derive(Debug)]
pub struct Results {
    file: PathBuf,
    lines: Vec<Line>,
}

impl Results {
    /// What is known so far.
    pub fn open(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context(format!("cannot read {}", file.display())),
        };
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                // A line that a crash cut off is trained again.
                Err(_) if number + 1 == text.lines().count() => {}
                Err(error) => bail!("{}, line {}: {error}", file.display(), number + 1),
            }
        }
        let file = file.to_owned();
        Ok(Self { file, lines })
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Refuses a study whose variants mean something else than when they were trained.
    pub fn check(&self, trainings: &[Training]) -> Result<()> {
        for training in trainings {
            let same = |line: &&Line| line.variant == training.variant;
            if let Some(line) = self.lines.iter().find(same)
                && line.settings != training.settings
            {
                bail!(
                    "{:?} was trained with {}, and means {} now: give the variant another name, or the study another --out",
                    training.variant,
                    line.settings.join(" "),
                    training.settings.join(" ")
                );
            }
        }
        Ok(())
    }

    /// How a training ended last.
    pub fn of(&self, training: &Training) -> Option<&Outcome> {
        let same = |line: &&Line| (&line.variant, line.seed) == (&training.variant, training.seed);
        Some(&self.lines.iter().rev().find(same)?.outcome)
    }

    /// Keeps how a training ended.
    pub fn add(&mut self, training: &Training, outcome: Outcome) -> Result<()> {
        let line = Line {
            variant: training.variant.clone(),
            seed: training.seed,
            settings: training.settings.clone(),
            outcome,
        };
        let shown = self.file.display();
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{shown} cannot be made"))?;
        }
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let cut_off =
            fs::read(&self.file).is_ok_and(|old| !old.is_empty() && !old.ends_with(b"\n"));
        if cut_off {
            text.insert(0, '\n');
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&self.file);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{shown} cannot be written"))?;
        self.lines.push(line);
        Ok(())
    }

    /// A line per variant: mean over the seeds, the range, how many failed.
    pub fn table(&self, plan: &Plan) -> Vec<String> {
        let mut table = vec![
            plan.question.clone(),
            "variant | seeds | mean error, voxels (range) | median | single walks | updates | minutes".to_owned(),
        ];
        for variant in &plan.variants {
            let mut newest: Vec<&Line> = Vec::new();
            for line in self.lines.iter().filter(|l| l.variant == variant.name) {
                newest.retain(|known| known.seed != line.seed);
                newest.push(line);
            }
            table.push(row(&variant.name, &newest));
        }
        table
    }
}

fn row(name: &str, lines: &[&Line]) -> String {
    let trained: Vec<&Trained> = lines
        .iter()
        .filter_map(|line| match &line.outcome {
            Outcome::Trained(trained) => Some(trained),
            Outcome::Failed(_) => None,
        })
        .collect();
    let failed = lines.len() - trained.len();
    let failures = if failed > 0 {
        format!(" and {failed} failed")
    } else {
        String::new()
    };
    if trained.is_empty() {
        return format!("{name} | 0{failures}");
    }
    let mean = |f: fn(&Trained) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
        let count = trained.len() as f64;
        trained.iter().map(|t| f(t)).sum::<f64>() / count
    };
    let errors = trained.iter().map(|t| t.mean);
    let (low, high) = errors.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), error| {
        (low.min(error), high.max(error))
    });
    #[expect(clippy::cast_precision_loss, reason = "counts of updates")]
    let updates = mean(|t| t.updates as f64);
    format!(
        "{name} | {}{failures} | {:.2} ({low:.2} to {high:.2}) | {:.2} | {:.2} | {updates:.0} | {:.1}",
        trained.len(),
        mean(|t| t.mean),
        mean(|t| t.median),
        mean(|t| t.walks),
        mean(|t| t.minutes),
    )
}

#[derive(Deserialize)]
struct Summary {
    all: All,
}

#[derive(Deserialize)]
struct All {
    walks: Errors,
    consensus: Errors,
    guess: Option<Errors>,
}

#[derive(Deserialize)]
struct Errors {
    voxels: Statistics,
}

#[derive(Deserialize)]
struct Statistics {
    mean: f64,
    median: f64,
}

#[derive(Deserialize)]
struct Metrics {
    updates: u64,
    elapsed_s: f64,
    loss: f64,
    episode_error: Option<f64>,
    over: bool,
}

impl Trained {
    /// What a finished run and its evaluation say.
    pub fn read(run: &Path, eval: &Path) -> Result<Self> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let summary: Summary = serde_json::from_str(&read(eval.join("summary.json"))?)
            .context("summary.json is not as expected")?;
        // A line that a crash cut off says nothing.
        let metrics: Vec<Metrics> = read(run.join("metrics.jsonl"))?
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let last = metrics.last().context("metrics.jsonl is empty")?;
        let all = &summary.all;
        Ok(Self {
            updates: last.updates,
            minutes: seconds(&metrics) / 60.0,
            mean: all.consensus.voxels.mean,
            median: all.consensus.voxels.median,
            walks: all.walks.voxels.mean,
            constant_guess: all.guess.as_ref().map(|g| g.voxels.mean),
            curve: metrics
                .iter()
                .step_by(metrics.len().div_ceil(CURVE).max(1))
                .map(|m| (m.updates, m.loss, m.episode_error))
                .collect(),
        })
    }
}

/// The time of all processes that a run had: each counts from its own start.
fn seconds(metrics: &[Metrics]) -> f64 {
    let mut all = 0.0;
    for (i, line) in metrics.iter().enumerate() {
        let next = metrics.get(i + 1);
        if line.over || next.is_none_or(|next| next.elapsed_s < line.elapsed_s) {
            all += line.elapsed_s;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(variant: &str, seed: u64) -> Training {
        Training {
            variant: variant.into(),
            seed,
            settings: vec!["base.toml".into(), format!("x={variant}")],
        }
    }

    fn trained(mean: f64) -> Outcome {
        Outcome::Trained(Trained {
            updates: 100,
            minutes: 2.0,
            mean,
            median: mean,
            walks: mean,
            constant_guess: None,
            curve: vec![(1, 0.5, None)],
        })
    }

    #[test]
    fn results_survive_a_cut_line_and_tell_failures() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/results.jsonl");
        let mut results = Results::open(&file).unwrap();
        results.add(&training("a", 1), trained(1.0)).unwrap();
        results
            .add(&training("a", 2), Outcome::Failed("no".into()))
            .unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(&file)
            .unwrap()
            .write_all(b"{\"var")
            .unwrap();
        let mut results = Results::open(&file).unwrap();
        assert_eq!(
            results.of(&training("a", 2)),
            Some(&Outcome::Failed("no".into()))
        );
        assert_eq!(results.of(&training("b", 1)), None);
        results.add(&training("a", 3), trained(2.0)).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("{\"var\n", "")).unwrap();
        let results = Results::open(&file).unwrap();
        let lines: Vec<&Line> = results.lines.iter().collect();
        assert_eq!(
            row("a", &lines),
            "a | 2 and 1 failed | 1.50 (1.00 to 2.00) | 1.50 | 1.50 | 100 | 2.0"
        );
        let mut other = training("a", 4);
        assert!(results.check(std::slice::from_ref(&other)).is_ok());
        other.settings.push("y=1".into());
        let error = results.check(&[other]).unwrap_err().to_string();
        assert!(error.contains("another name"), "{error}");
    }

    #[test]
    fn a_run_that_was_resumed_took_the_time_of_both_parts() {
        let line = |elapsed_s, over| Metrics {
            updates: 1,
            elapsed_s,
            loss: 0.0,
            episode_error: None,
            over,
        };
        let both = [
            line(5.0, false),
            line(9.0, false),
            line(4.0, false),
            line(6.0, true),
        ];
        assert!((seconds(&both) - 15.0).abs() < 1e-12);
    }
}
