//! Records a run: per report a line of `metrics.jsonl` and a point on each
//! TensorBoard curve. Training does not depend on either.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::run::records::{OptionalFile, RecordFile};
use common::run::run_folder::rfc3339;
use common::run::tensorboard::EventFile;
use serde::Serialize;

use crate::error::LearnerError;
use crate::report::progress::Progress;

/// A line of metrics.jsonl.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    progress: &'a Progress,
}

/// Writes reports into a run folder. What a full disk refuses is lost and counted.
#[derive(Debug)]
pub struct Recorder {
    run_dir: PathBuf,
    metrics: OptionalFile<RecordFile>,
    events: OptionalFile<EventFile>,
}

impl Recorder {
    /// Opens `metrics.jsonl` and an event file in the run folder.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be opened.
    pub fn open(run_dir: &Path) -> Result<Self, LearnerError> {
        let path = metrics_file(run_dir);
        let metrics = RecordFile::open_lines(&path)
            .map_err(|source| LearnerError::Metrics { path, source })?;
        Ok(Self {
            run_dir: run_dir.to_owned(),
            metrics: OptionalFile::opened("metrics.jsonl", metrics),
            events: OptionalFile::new("TensorBoard's event file"),
        })
    }

    /// Adds a report to each file.
    pub fn record(&mut self, progress: &Progress) {
        let (run_dir, now) = (&self.run_dir, SystemTime::now());
        let open = || RecordFile::open_lines(&metrics_file(run_dir));
        self.metrics.write(open, |metrics| {
            let time = rfc3339(now);
            let line = serde_json::to_string(&Line { time, progress });
            metrics.append((line.map_err(io::Error::other)? + "\n").as_bytes())
        });
        let create = || EventFile::create(run_dir, "learner", now);
        let updates = progress.train.updates;
        let curves = curves(progress);
        self.events
            .write(create, |events| events.scalars(updates, now, &curves));
    }
}

fn metrics_file(run_dir: &Path) -> PathBuf {
    run_dir.join("metrics.jsonl")
}

/// The TensorBoard curves of a report; docs/metrics.md describes each.
fn curves(p: &Progress) -> Vec<(&'static str, f64)> {
    let count = |n: u64| n as f64;
    let mut all = vec![
        ("train/loss", p.train.loss),
        ("train/td_mean", p.train.td_mean),
        ("train/q_mean", p.train.q_mean),
        ("train/grad_norm", p.train.grad_norm),
        ("train/lr", p.train.lr),
        ("rate/updates_per_s", p.pace.updates_per_s),
        ("rate/env_steps_per_s", p.pace.env_steps_per_s),
        ("replay/rows", count(p.rows.rows)),
        ("replay/samples_per_insert", p.rows.samples_per_insert),
        ("system/resident_bytes", count(p.resident_bytes)),
    ];
    let error = p.actors.episode_error;
    all.extend(error.map(|error| ("train/episode_error", error)));
    all
}
