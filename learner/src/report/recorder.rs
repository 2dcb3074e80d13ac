//! Records a run: per report a line of `metrics.jsonl` and a point on each
//! TensorBoard curve. Training does not depend on either.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::run::durable::open_lines;
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

/// Writes reports into a run folder.
#[derive(Debug)]
pub struct Recorder {
    /// `None` after a failed write.
    metrics: Option<File>,
    events: Option<EventFile>,
}

impl Recorder {
    /// Opens `metrics.jsonl` and an event file in the run folder.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be opened.
    pub fn open(run_dir: &Path) -> Result<Self, LearnerError> {
        let path: PathBuf = run_dir.join("metrics.jsonl");
        let metrics = open_lines(&path).map_err(|source| LearnerError::Metrics { path, source })?;
        // Curves are optional: a run continues without them.
        let events = EventFile::create(run_dir, "learner", SystemTime::now());
        if let Err(error) = &events {
            tracing::warn!(%error, "cannot create TensorBoard's event file; training continues");
        }
        Ok(Self {
            metrics: Some(metrics),
            events: events.ok(),
        })
    }

    /// Adds a report; logs the first failure of each file and stops writing it.
    pub fn record(&mut self, progress: &Progress) {
        if let Some(metrics) = &mut self.metrics
            && !write(metrics, progress)
        {
            self.metrics = None;
        }
        let Some(events) = &mut self.events else {
            return;
        };
        let now = SystemTime::now();
        if let Err(error) = events.scalars(progress.train.updates, now, &curves(progress)) {
            tracing::warn!(%error, "cannot write TensorBoard's event file; training continues");
            self.events = None;
        }
    }
}

/// Returns false if the write failed.
fn write(metrics: &mut File, progress: &Progress) -> bool {
    let time = rfc3339(SystemTime::now());
    let line = match serde_json::to_string(&Line { time, progress }) {
        Ok(line) => line,
        Err(error) => {
            tracing::warn!(%error, "cannot write the metrics as JSON");
            return false;
        }
    };
    let written = writeln!(metrics, "{line}");
    if let Err(error) = &written {
        tracing::error!(%error, "cannot write metrics.jsonl; training continues");
    }
    written.is_ok()
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
