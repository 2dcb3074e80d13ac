//! Evaluation results: the newest and the best, and the files that a run keeps
//! of them, because an evaluator may have no access to the run folder.
//!
//! The caller supplies the time, as a duration since any fixed moment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::imaging::manifest::TrainingManifest;
use common::run::durable::{DurableError, append_line, write_atomic};
use common::run::records::OptionalFile;
use common::run::tensorboard::EventFile;
use model::ModelError;
use model::network::parameters::WEIGHT_MAX;
use proto::messages::evaluator::EvaluatorBeat;
use proto::messages::status::{Evaluation, EvaluatorStatus};
use proto::messages::weights::Published;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::actors::broadcast::Digests;
use crate::checkpoint::training_scans;
use crate::training::trainer::UPDATES_KEY;

/// File name of the best weights in the checkpoint folder.
pub const BEST: &str = "best.safetensors";

/// An evaluator without a report for this long is absent. It reports every two seconds.
const ABSENT_AFTER: Duration = Duration::from_secs(10);

/// Evaluators that are known at once. Hosts name themselves: beyond this, one takes the place of
/// that which was silent the longest.
const EVALUATORS_MAX: usize = 256;

#[derive(Debug)]
struct Seen {
    host: String,
    at: Duration,
    evaluating: Option<u64>,
    stop_sent: bool,
    /// Manifest hash of its scans, once they were compared with the training scans.
    compared: Option<[u8; 32]>,
}

impl Seen {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }

    fn is_present(&self, now: Duration) -> bool {
        self.age(now) < ABSENT_AFTER
    }
}

/// Why an evaluation or its weights were not saved.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The line is not valid JSON.
    #[error("the line for validation.jsonl is not a JSON object: {0}")]
    Line(String),
    #[error("cannot write {path}: {source}; free disk space for the run folder")]
    Write { path: PathBuf, source: io::Error },
    /// The line or the best weights could not be written.
    #[error(transparent)]
    Disk(#[from] DurableError),
    #[error("these weights cannot be the best: {0}")]
    Weights(#[from] ModelError),
    /// These weights were not requested, or others are better meanwhile.
    #[error("weights of version {0} are not wanted")]
    NotWanted(u64),
    #[error(
        "these are not the weights that the learner published as version {0}: an evaluator sends \
         back what it received; restart it"
    )]
    Unpublished(u64),
}

/// The evaluations of a run, and their files: validation.jsonl, the best weights, TensorBoard's
/// curves.
#[derive(Debug)]
pub struct Evaluations {
    run_dir: PathBuf,
    lines: PathBuf,
    best_file: PathBuf,
    curves: OptionalFile<EventFile>,
    training: TrainingManifest,
    evaluators: Vec<Seen>,
    last: Option<Evaluation>,
    best: Option<Evaluation>,
    /// Evaluations better than the best, whose weights are still in transit: the newest of each
    /// evaluator. They do not keep others from becoming the best, since they may never arrive.
    wanted: Vec<Wanted>,
    /// What the learner published; `None` where it evaluates by itself.
    published: Option<Arc<Digests>>,
}

#[derive(Debug)]
struct Wanted {
    host: String,
    evaluation: Evaluation,
}

/// Identifies an evaluation.
fn id(e: &Evaluation) -> (u64, u64) {
    (e.weights_version, e.updates)
}

impl Evaluations {
    /// Restores the state from the run folder; `training` lists the training scans.
    pub fn new(run_dir: &Path, training: TrainingManifest) -> Self {
        let lines = run_dir.join("validation.jsonl");
        let best_file = run_dir.join("checkpoints").join(BEST);
        let text = read_lines(&lines);
        // Skips a line truncated by a crash.
        let before: Vec<Evaluation> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let by_error =
            |a: &&Evaluation, b: &&Evaluation| a.mean_error_mm.total_cmp(&b.mean_error_mm);
        // A learner that crashed may have saved the line but not the weights: only an evaluation
        // of the weights in the file is one that others have to beat.
        let saved = updates_of(&best_file);
        let of_saved = before.iter().filter(|e| Some(e.updates) == saved);
        Self {
            best: of_saved.min_by(by_error).copied(),
            last: before.last().copied(),
            run_dir: run_dir.to_owned(),
            curves: OptionalFile::new("TensorBoard's curves of evaluations"),
            training,
            lines,
            best_file,
            evaluators: Vec::new(),
            wanted: Vec::new(),
            published: None,
        }
    }

    /// Keeps no weights but those that were published.
    #[must_use]
    pub fn of_published(mut self, published: Arc<Digests>) -> Self {
        self.published = Some(published);
        self
    }

    pub fn last(&self) -> Option<Evaluation> {
        self.last
    }

    /// The evaluation with the lowest mean error whose weights are saved.
    pub fn best(&self) -> Option<Evaluation> {
        self.best
    }

    /// Evaluators that reported recently.
    pub fn evaluators(&self, now: Duration) -> Vec<EvaluatorStatus> {
        let present = self.evaluators.iter().filter(|s| s.is_present(now));
        let status = |s: &Seen| EvaluatorStatus {
            host: s.host.clone(),
            silent_s: s.age(now).as_secs_f64(),
            evaluating: s.evaluating,
        };
        present.map(status).collect()
    }

    /// Whether the run's end must wait for an evaluator: these weights are not evaluated
    /// yet, the best weights are still in transit, or an evaluator has not received the
    /// end of the run and would wait for ever.
    pub fn awaited(&self, now: Duration, weights: &Published) -> bool {
        let open = self.last.is_none_or(|last| last.updates != weights.updates);
        let mut present = self.evaluators.iter().filter(|s| s.is_present(now));
        let in_transit = |s: &Seen| self.wanted.iter().any(|w| w.host == s.host);
        present.any(|s| open || in_transit(s) || !s.stop_sent)
    }

    /// Records a report, whose reply carries `stop`; true if the evaluator should send the
    /// weights of its evaluation. An evaluation that is reported twice is recorded once.
    /// After an error the evaluator reports it again.
    pub fn beat(
        &mut self,
        now: Duration,
        beat: &EvaluatorBeat,
        stop: bool,
    ) -> Result<bool, KeepError> {
        let place = self.evaluators.iter().position(|s| s.host == beat.host);
        let place = place.unwrap_or_else(|| {
            tracing::info!(host = beat.host, "evaluator found");
            // Removes absent evaluators; else each restart would add one.
            self.evaluators.retain(|s| s.is_present(now));
            if self.evaluators.len() >= EVALUATORS_MAX {
                let oldest = (0..self.evaluators.len()).min_by_key(|i| self.evaluators[*i].at);
                oldest.map(|i| self.evaluators.swap_remove(i));
            }
            self.evaluators.push(Seen {
                host: beat.host.clone(),
                at: now,
                evaluating: None,
                stop_sent: false,
                compared: None,
            });
            self.evaluators.len() - 1
        });
        let seen = &mut self.evaluators[place];
        (seen.at, seen.evaluating) = (now, beat.evaluating);
        let scans = beat.hello.manifest;
        if seen.compared != Some(scans) && !beat.manifest_json.is_empty() {
            seen.compared = Some(scans);
            match serde_json::from_slice(&beat.manifest_json) {
                Ok(validation) => warn_of_training_scans(&self.training, &validation),
                Err(error) => {
                    tracing::warn!(host = beat.host, %error, "cannot read the manifest of an evaluator's scans");
                }
            }
        }
        let kept = beat
            .evaluation
            .map(|found| self.take(&beat.host, found, &beat.line_json));
        let kept = kept.unwrap_or(Ok(false));
        // An error is sent instead of the reply, and with it no `stop`.
        if kept.is_ok() {
            self.evaluators[place].stop_sent = stop;
        }
        kept
    }

    /// Saves an evaluation, and its weights if they are the best so far.
    ///
    /// # Errors
    /// When a file cannot be written; unsaved weights do not become the best.
    pub fn keep(
        &mut self,
        found: Evaluation,
        line: &[u8],
        weights: &[u8],
    ) -> Result<(), KeepError> {
        if self.take("", found, line)? {
            let kept = self.keep_best(found.weights_version, weights);
            self.wanted.clear();
            kept?;
        }
        Ok(())
    }

    fn take(&mut self, host: &str, found: Evaluation, line: &[u8]) -> Result<bool, KeepError> {
        if self.wanted.iter().any(|w| id(&w.evaluation) == id(&found)) {
            return Ok(true);
        }
        if self.last.as_ref().map(id) == Some(id(&found)) {
            return Ok(false);
        }
        let better = self.is_better(&found);
        let kept = Evaluation {
            best: better,
            ..found
        };
        self.append(line, better)?;
        let now = SystemTime::now();
        let create = || EventFile::create(&self.run_dir, "validation", now);
        self.curves.write(create, |file| draw(file, now, &kept));
        self.last = Some(kept);
        // An evaluator reports one after another: the weights before these will not come.
        let seen = |host: &str| self.evaluators.iter().any(|s| s.host == host);
        self.wanted.retain(|w| w.host != host && seen(&w.host));
        if better {
            self.wanted.push(Wanted {
                host: host.to_owned(),
                evaluation: kept,
            });
        }
        tracing::info!(
            updates = found.updates,
            mean_error_mm = found.mean_error_mm,
            mean_error_voxels = found.mean_error_voxels,
            best = better,
            "evaluated"
        );
        Ok(better)
    }

    /// Whether it is better than the one whose weights are saved.
    fn is_better(&self, found: &Evaluation) -> bool {
        let best = self.best.as_ref();
        best.is_none_or(|best| found.mean_error_mm < best.mean_error_mm)
    }

    fn append(&self, line: &[u8], best: bool) -> Result<(), KeepError> {
        let line: Result<Map<String, Value>, _> = serde_json::from_slice(line);
        let mut line = line.map_err(|e| KeepError::Line(e.to_string()))?;
        line.insert("best".into(), best.into());
        Ok(append_line(&self.lines, &Value::from(line).to_string())?)
    }

    /// Saves the weights that [`Evaluations::beat`] requested.
    ///
    /// # Errors
    /// When these were not requested, are not those that were published, or hold no network that
    /// can be used: they are then no longer wanted. When a file cannot be written: they may be
    /// sent again.
    pub fn keep_best(&mut self, version: u64, bytes: &[u8]) -> Result<(), KeepError> {
        let of_version = |w: &Wanted| w.evaluation.weights_version == version;
        let place = self.wanted.iter().position(of_version);
        let place = place.ok_or(KeepError::NotWanted(version))?;
        let best = self.wanted[place].evaluation;
        let file = self.best_of(&best, bytes);
        let file = file.inspect_err(|_| drop(self.wanted.swap_remove(place)))?;
        if let Some(folder) = self.best_file.parent() {
            fs::create_dir_all(folder).map_err(|source| KeepError::Write {
                path: folder.to_owned(),
                source,
            })?;
        }
        write_atomic(&self.best_file, &file)?;
        self.best = Some(best);
        self.wanted.swap_remove(place);
        tracing::info!(file = %self.best_file.display(), version, "best weights saved");
        Ok(())
    }

    /// The file of the best weights, if these can be that.
    fn best_of(&self, found: &Evaluation, bytes: &[u8]) -> Result<Vec<u8>, KeepError> {
        let version = found.weights_version;
        // Another evaluator's may have come first.
        if !self.is_better(found) {
            return Err(KeepError::NotWanted(version));
        }
        let published = self.published.as_ref();
        if published.is_some_and(|all| !all.has(version, &Sha256::digest(bytes).into())) {
            return Err(KeepError::Unpublished(version));
        }
        let weights = model::files::weights::from_bytes(bytes)?;
        weights.network.parameters().check_within(WEIGHT_MAX)?;
        Ok(training_scans::record(bytes, &self.training)?)
    }
}

/// Adds an evaluation to TensorBoard's event file.
fn draw(file: &mut EventFile, now: SystemTime, e: &Evaluation) -> io::Result<()> {
    let mut points = vec![
        ("validation/mean_error_mm", e.mean_error_mm),
        ("validation/mean_error_voxels", e.mean_error_voxels),
        ("validation/median_error_mm", e.median_error_mm),
    ];
    let baseline = e.baseline_error_mm;
    points.extend(baseline.map(|mm| ("validation/baseline_error_mm", mm)));
    file.scalars(e.updates, now, &points)
}

/// Warns of validation scans that are also training scans: they bias the selection of weights.
pub fn warn_of_training_scans(training: &TrainingManifest, validation: &TrainingManifest) {
    let trained: HashSet<_> = training.entries.iter().map(|e| e.volume).collect();
    let validation = validation.entries.iter();
    for entry in validation.filter(|e| trained.contains(&e.volume)) {
        tracing::warn!(
            scan = entry.name,
            "a validation scan is also a training scan: its error does not apply to other scans"
        );
    }
}

/// The lines of earlier evaluations. One that is not text does not hide the others.
fn read_lines(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                let file = path.display();
                tracing::warn!(%error, "cannot read {file}: the earlier evaluations do not count");
            }
            String::new()
        }
    }
}

/// The updates of these weights; `None` if the file does not record them.
fn updates_of(weights: &Path) -> Option<u64> {
    let bytes = fs::read(weights).ok()?;
    let (_, metadata) = model::files::weights::inspect(&bytes).ok()?;
    metadata.get(UPDATES_KEY)?.parse().ok()
}

#[cfg(test)]
#[path = "evaluations_tests.rs"]
mod tests;
