//! `landmarl runs`: lists runs, their progress and their differences.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use actor::evaluation::validate::Validation;
use common::run::run_folder::RunFolder;
use serde::{Deserialize, Serialize};
use toml::{Table as Toml, Value};

use crate::Outcome;
use crate::input::run::run_folder;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::table::{Table, number, or_dash};

/// List the runs of a folder, or compare some of them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the runs of a folder, oldest first
    List {
        /// Parent folder of the run folders
        #[arg(long, default_value = "runs", value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the results of runs, and the settings that differ
    Compare {
        /// Runs, by folder or name
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// Parent folder of the runs that are given by name
        #[arg(long, default_value = "runs", value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  landmarl runs list
  landmarl runs list --dir demo/run --json
  landmarl runs compare first second";

/// One run, as described by its files.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Run {
    name: String,
    folder: PathBuf,
    /// RFC 3339, UTC.
    started: String,
    seed: u64,
    landmarks: Vec<String>,
    updates: Option<u64>,
    updates_total: Option<u64>,
    /// The run finished or was stopped in order; false while it runs and after a crash.
    ended: bool,
    minutes: Option<f64>,
    /// The best mean error on the validation scans.
    best_validation_mm: Option<f64>,
    evaluation: Option<Evaluated>,
}

/// The fields read from a line of `metrics.jsonl`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    updates: Option<u64>,
    updates_total: Option<u64>,
    elapsed_s: Option<f64>,
    over: bool,
}

/// The fields read from an evaluation's `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Evaluated {
    mean_error_mm: Option<f64>,
    mean_error_voxels: Option<f64>,
    #[serde(alias = "constant_guess_mm")]
    baseline_error_mm: Option<f64>,
}

pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::List { dir, json } => list(dir, *json),
        Command::Compare { runs, dir, json } => compare(runs, dir, *json),
    }
}

fn list(dir: &Path, json: bool) -> Outcome {
    let entries = fs::read_dir(dir).map_err(|e| {
        let message = format!("cannot list the runs of {}: {e}", dir.display());
        Advice::new(Exit::Failed, message).hint("give the parent folder of the runs with --dir")
    })?;
    let mut runs: Vec<Run> = entries
        .filter_map(|entry| read(&entry.ok()?.path()).ok())
        .collect();
    runs.sort_by(|a, b| (&a.started, &a.name).cmp(&(&b.started, &b.name)));
    if json {
        console::json(&runs)?;
    } else if runs.is_empty() {
        console::note(&format!("no runs in {}", dir.display()));
    } else {
        console::data(&table(&runs).render())?;
    }
    Ok(Exit::Done)
}

/// Reads a run folder; fails if the path is not one. Missing or truncated files leave
/// their fields empty: the run may be active, or may have crashed.
fn read(path: &Path) -> anyhow::Result<Run> {
    // Reading must not change the folder; `RunFolder::open` would prepare it.
    let inside = path.join("run.json");
    let folder = RunFolder::around(&inside).filter(|_| inside.is_file());
    let folder = folder.ok_or_else(|| {
        let message = format!("{} is not a run folder: no run.json", path.display());
        Advice::new(Exit::Failed, message).hint("`landmarl runs list` shows the run folders")
    })?;
    let info = folder.info()?;
    let metrics = lines::<Progress>(&folder.metrics_file());
    let minutes = minutes(&metrics);
    let progress = metrics.into_iter().next_back().unwrap_or_default();
    let validations = lines::<Validation>(&folder.validation_file());
    let errors = validations.iter().map(|v| v.mean_error_mm);
    Ok(Run {
        name: folder.name(),
        folder: folder.path().to_owned(),
        started: info.started,
        seed: info.seed,
        landmarks: info.landmarks,
        updates: progress.updates,
        updates_total: progress.updates_total,
        ended: progress.over,
        minutes,
        best_validation_mm: errors.min_by(f64::total_cmp),
        evaluation: summaries(&folder).find_map(|summary| serde_json::from_value(summary).ok()),
    })
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let parsed = text.lines().map(serde_json::from_str);
    parsed.filter_map(Result::ok).collect()
}

/// The training time summed over all processes of the run. Each process counts from its own
/// start; `over` marks the last line of a process that ended in order.
fn minutes(metrics: &[Progress]) -> Option<f64> {
    let reported: Vec<(f64, bool)> = metrics
        .iter()
        .filter_map(|m| Some((m.elapsed_s?, m.over)))
        .collect();
    let ends = reported.iter().enumerate().filter(|(i, (seconds, over))| {
        let next = reported.get(i + 1);
        *over || next.is_none_or(|(next, _)| next < seconds)
    });
    let all: f64 = ends.map(|(_, (seconds, _))| seconds / 60.0).sum();
    (!reported.is_empty()).then_some(all)
}

/// The `summary.json` of each evaluation of a run, newest first.
pub fn summaries(run: &RunFolder) -> impl Iterator<Item = serde_json::Value> {
    let entries = fs::read_dir(run.evaluations()).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    // They are named after their time.
    folders.sort();
    folders.into_iter().rev().filter_map(|folder| {
        let text = fs::read(folder.join("summary.json")).ok()?;
        serde_json::from_slice(&text).ok()
    })
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(
        "run|started|seed>|landmarks>|updates>|minutes>|ended|best validation mm>|evaluated mm>|\
         voxels>|baseline mm>",
    );
    for run in runs {
        let evaluation = run.evaluation.as_ref();
        let of = |pick: fn(&Evaluated) -> Option<f64>| number(evaluation.and_then(pick));
        let updates = run.updates.zip(run.updates_total);
        table.row(vec![
            run.name.clone(),
            run.started.clone(),
            run.seed.to_string(),
            run.landmarks.len().to_string(),
            or_dash(updates.map(|(done, total)| format!("{done}/{total}"))),
            number(run.minutes),
            if run.ended { "yes" } else { "no" }.to_owned(),
            number(run.best_validation_mm),
            of(|e| e.mean_error_mm),
            of(|e| e.mean_error_voxels),
            of(|e| e.baseline_error_mm),
        ]);
    }
    table
}

/// Runs, and each setting that differs between them: one value per run, `None` if the
/// run's version did not have the key.
#[derive(Debug, Serialize)]
struct Comparison {
    runs: Vec<Run>,
    differing_settings: BTreeMap<String, Vec<Option<Value>>>,
}

fn compare(given: &[PathBuf], dir: &Path, json: bool) -> Outcome {
    let runs = given.iter().map(|run| read(&run_folder(run, dir)?));
    let runs: Vec<Run> = runs.collect::<anyhow::Result<_>>()?;
    let settings: Vec<BTreeMap<String, Value>> = runs.iter().map(|r| settings(&r.folder)).collect();
    let comparison = Comparison {
        differing_settings: differences(&settings),
        runs,
    };
    if json {
        console::json(&comparison)?;
        return Ok(Exit::Done);
    }
    let names = comparison.runs.iter().map(|run| format!("{}>", run.name));
    let columns: Vec<String> = std::iter::once("setting".to_owned()).chain(names).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut differing = Table::with_columns(&columns);
    for (key, values) in &comparison.differing_settings {
        let values = values.iter().map(|value| or_dash(value.as_ref()));
        differing.row(std::iter::once(key.clone()).chain(values));
    }
    let runs = table(&comparison.runs);
    console::data(&format!("{}\n{}", runs.render(), differing.render()))?;
    Ok(Exit::Done)
}

/// Maps `section.key` to its value in a run's `config.toml`.
fn settings(run: &Path) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(run.join("config.toml")).unwrap_or_default();
    let mut sections: Toml = text.parse().unwrap_or_default();
    common::config::upgrade(&mut sections);
    let mut all = BTreeMap::new();
    for (section, keys) in sections {
        if let Value::Table(keys) = keys {
            let named = keys.into_iter().map(|(k, v)| (format!("{section}.{k}"), v));
            all.extend(named);
        }
    }
    all
}

fn differences(all: &[BTreeMap<String, Value>]) -> BTreeMap<String, Vec<Option<Value>>> {
    let keys = all.iter().flat_map(BTreeMap::keys);
    let rows = keys.map(|key| {
        let values: Vec<Option<Value>> = all.iter().map(|s| s.get(key).cloned()).collect();
        (key.clone(), values)
    });
    rows.filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_differ_are_compared() {
        let of = |pairs: &[(&str, i64)]| -> BTreeMap<String, Value> {
            let pairs = pairs.iter().copied();
            pairs
                .map(|(k, v)| (k.to_owned(), Value::Integer(v)))
                .collect()
        };
        let found = differences(&[
            of(&[("a.x", 1), ("a.y", 2)]),
            of(&[("a.x", 1), ("a.y", 3), ("b.z", 4)]),
        ]);
        let int = |v| Some(Value::Integer(v));
        let expected = [
            ("a.y".to_owned(), vec![int(2), int(3)]),
            ("b.z".to_owned(), vec![None, int(4)]),
        ];
        assert_eq!(found, expected.into());
    }

    #[test]
    fn truncated_lines_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("metrics.jsonl");
        fs::write(&file, "{\"updates\":3,\"over\":true}\n{\"updates\":4").unwrap();
        let found = lines::<Progress>(&file);
        let progress: Vec<_> = found.iter().map(|p| (p.updates, p.over)).collect();
        assert_eq!(progress, [(Some(3), true)]);
        assert!(lines::<Progress>(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn the_minutes_of_a_run_are_summed_over_its_processes() {
        let at = |s: f64| Progress {
            elapsed_s: Some(s),
            ..Progress::default()
        };
        assert_eq!(minutes(&[]), None);
        assert_eq!(minutes(&[at(30.0), at(60.0)]), Some(1.0));
        let resumed = [at(60.0), at(120.0), at(6.0), at(30.0), at(3.0), at(30.0)];
        assert_eq!(minutes(&resumed), Some(3.0));
        // The first process ended after 6 s, less than the next one's first report.
        let short = Progress {
            over: true,
            ..at(6.0)
        };
        assert_eq!(minutes(&[at(3.0), short, at(54.0)]), Some(1.0));
    }
}
