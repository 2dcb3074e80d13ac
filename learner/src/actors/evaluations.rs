//! What evaluators found: the newest and the best evaluation, and the files
//! that a run keeps of them where an evaluator has no access to its folder.
//!
//! Time is the caller's: a duration since any fixed moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::run::durable::{DurableError, append_line, write_atomic};
use proto::messages::evaluator::EvaluatorBeat;
use proto::messages::status::{Evaluation, EvaluatorStatus};
use proto::messages::weights::Published;
use serde_json::Value;

use crate::training::trainer::UPDATES_KEY;

/// Name of the best weights' file in the folder of checkpoints.
pub const BEST: &str = "best.safetensors";

/// An evaluator that says nothing for this long is gone. It beats every two seconds.
const GONE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Seen {
    host: String,
    at: Duration,
    evaluating: Option<u64>,
    told_to_stop: bool,
}

impl Seen {
    fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }

    fn is_there(&self, now: Duration) -> bool {
        self.silent(now) < GONE
    }
}

/// Why an evaluation or its weights are not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The line is no evaluation.
    #[error("the line for validation.jsonl is no JSON object: {0}")]
    Line(String),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; free the disk of the run folder")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The line or the best weights cannot be written.
    #[error(transparent)]
    Disk(#[from] DurableError),
    /// They were not asked for.
    #[error("weights version {0} are not the best that were found")]
    NotWanted(u64),
}

/// The evaluations of a run.
#[derive(Debug)]
pub struct Evaluations {
    lines: PathBuf,
    best_file: PathBuf,
    evaluators: Vec<Seen>,
    last: Option<Evaluation>,
    best: Option<Evaluation>,
    /// The best evaluation whose weights are still on their way here.
    wanted: Option<Evaluation>,
}

impl Evaluations {
    /// Goes on from what the run folder says.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        let lines = run_dir.join("validation.jsonl");
        let best_file = run_dir.join("checkpoints").join(BEST);
        let text = fs::read_to_string(&lines).unwrap_or_default();
        // A line cut off by a crash is no reason to stop.
        let before: Vec<Evaluation> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let least = |mut among: Vec<&Evaluation>| {
            among.sort_by(|a, b| a.mean_error_mm.total_cmp(&b.mean_error_mm));
            among.first().copied().copied()
        };
        // A learner that died may have kept the line, and its weights not yet.
        let kept = updates_of(&best_file);
        let theirs = before.iter().filter(|e| Some(e.updates) == kept);
        let best = least(theirs.collect()).or_else(|| least(before.iter().collect()));
        Self {
            best: best.filter(|_| best_file.is_file()),
            last: before.last().copied(),
            lines,
            best_file,
            evaluators: Vec::new(),
            wanted: None,
        }
    }

    /// The newest evaluation.
    #[must_use]
    pub fn last(&self) -> Option<Evaluation> {
        self.last
    }

    /// The one with the least mean error whose weights are kept.
    #[must_use]
    pub fn best(&self) -> Option<Evaluation> {
        self.best
    }

    /// Evaluators that were heard of lately.
    #[must_use]
    pub fn evaluators(&self, now: Duration) -> Vec<EvaluatorStatus> {
        let there = self.evaluators.iter().filter(|s| s.is_there(now));
        there
            .map(|s| EvaluatorStatus {
                host: s.host.clone(),
                heard_s: s.silent(now).as_secs_f64(),
                evaluating: s.evaluating,
            })
            .collect()
    }

    /// Whether an evaluator is there, and these weights were not evaluated yet,
    /// or the best ones are still on their way here, or it has not heard of the
    /// end of the run and would wait for ever.
    #[must_use]
    pub fn awaited(&self, now: Duration, weights: &Published) -> bool {
        let open = self.last.is_none_or(|last| last.updates < weights.updates);
        let mut there = self.evaluators.iter().filter(|s| s.is_there(now));
        there.any(|s| open || self.wanted.is_some() || !s.told_to_stop)
    }

    /// Takes note of a sign of life, which is answered with `stop`; true where the
    /// weights of its evaluation are to be sent. Told twice, an evaluation is kept once.
    ///
    /// # Errors
    /// When the line cannot be kept; the evaluator tells it again.
    pub fn beat(
        &mut self,
        now: Duration,
        beat: &EvaluatorBeat,
        stop: bool,
    ) -> Result<bool, KeepError> {
        let place = self.evaluators.iter().position(|s| s.host == beat.host);
        let place = place.unwrap_or_else(|| {
            tracing::info!(host = beat.host, "evaluator found");
            // Those that are gone would gather, one per restart.
            self.evaluators.retain(|s| s.is_there(now));
            self.evaluators.push(Seen {
                host: beat.host.clone(),
                at: now,
                evaluating: None,
                told_to_stop: false,
            });
            self.evaluators.len() - 1
        });
        let seen = &mut self.evaluators[place];
        (seen.at, seen.evaluating, seen.told_to_stop) = (now, beat.evaluating, stop);
        match beat.evaluation {
            Some(found) => self.take(found, &beat.line_json),
            None => Ok(false),
        }
    }

    fn take(&mut self, found: Evaluation, line: &[u8]) -> Result<bool, KeepError> {
        let of = |e: Evaluation| (e.weights_version, e.updates);
        if self.last.map(of) == Some(of(found)) {
            return Ok(self.wanted.map(of) == Some(of(found)));
        }
        // What is wanted is better than what is kept.
        let best = self.wanted.or(self.best);
        let better = best.is_none_or(|best| found.mean_error_mm < best.mean_error_mm);
        let kept = Evaluation {
            best: better,
            ..found
        };
        let ours = !line.is_empty();
        if ours {
            self.append(line, better)?;
        }
        self.last = Some(kept);
        match (better, ours) {
            (true, true) => self.wanted = Some(kept),
            (true, false) => self.best = Some(kept),
            (false, _) => {}
        }
        tracing::info!(
            updates = found.updates,
            mean_error_mm = found.mean_error_mm,
            mean_error_voxels = found.mean_error_voxels,
            best = better,
            "evaluated"
        );
        Ok(better && ours)
    }

    fn append(&self, line: &[u8], best: bool) -> Result<(), KeepError> {
        let bad = |e: String| KeepError::Line(e);
        let mut line: Value = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
        let entries = line.as_object_mut();
        let entries = entries.ok_or_else(|| bad("no object".into()))?;
        entries.insert("best".into(), best.into());
        Ok(append_line(&self.lines, &line.to_string())?)
    }

    /// Keeps the weights that [`Evaluations::beat`] asked for.
    ///
    /// # Errors
    /// When they are not those, or the disk takes no more.
    pub fn keep_best(&mut self, version: u64, bytes: &[u8]) -> Result<(), KeepError> {
        let asked = self.wanted.filter(|w| w.weights_version == version);
        let best = asked.ok_or(KeepError::NotWanted(version))?;
        if let Some(folder) = self.best_file.parent() {
            fs::create_dir_all(folder).map_err(|source| KeepError::Write {
                path: folder.to_owned(),
                source,
            })?;
        }
        write_atomic(&self.best_file, bytes)?;
        (self.best, self.wanted) = (Some(best), None);
        tracing::info!(file = %self.best_file.display(), version, "best weights kept");
        Ok(())
    }
}

/// After how many updates these weights were; `None` where the file does not say.
fn updates_of(weights: &Path) -> Option<u64> {
    let bytes = fs::read(weights).ok()?;
    let (_, metadata) = model::files::weights::inspect(&bytes).ok()?;
    metadata.get(UPDATES_KEY)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use common::transition::row::RowShape;
    use proto::messages::hello::Hello;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn found(version: u64, mm: f64) -> Evaluation {
        Evaluation {
            updates: version * 20,
            weights_version: version,
            mean_error_mm: mm,
            mean_error_voxels: mm * 5.0,
            median_error_mm: mm,
            constant_guess_mm: Some(9.0),
            seconds: 1.0,
            best: false,
        }
    }

    fn beat(host: &str, evaluation: Option<Evaluation>, ours: bool) -> EvaluatorBeat {
        let line = evaluation.filter(|_| ours).map(|e| {
            let line = serde_json::json!({
                "updates": e.updates, "weights_version": e.weights_version, "mean_error_mm": e.mean_error_mm,
                "mean_error_voxels": e.mean_error_voxels, "median_error_mm": e.median_error_mm,
                "constant_guess_mm": e.constant_guess_mm, "seconds": e.seconds, "best": false, "landmarks": [],
            });
            Bytes::from(line.to_string())
        });
        EvaluatorBeat {
            hello: Hello {
                run_id: String::new(),
                manifest: [0; 32],
                config_digest: [0; 32],
                shape: RowShape {
                    agents: 1,
                    history: 1,
                },
            },
            host: host.into(),
            evaluating: None,
            evaluation,
            line_json: line.unwrap_or_default(),
            config_json: Bytes::new(),
        }
    }

    #[test]
    fn the_best_is_asked_for_once_and_outlives_the_learner() {
        let dir = tempfile::tempdir().unwrap();
        let mut e = Evaluations::new(dir.path());
        assert!(!e.beat(S(0), &beat("a", None, true), false).unwrap());
        assert!(
            e.beat(S(1), &beat("a", Some(found(1, 8.0)), true), false)
                .unwrap()
        );
        // Its answer was lost: told again, kept once.
        assert!(
            e.beat(S(2), &beat("a", Some(found(1, 8.0)), true), false)
                .unwrap()
        );
        assert_eq!(e.best(), None, "its weights are not here yet");
        assert!(matches!(
            e.keep_best(3, b"other"),
            Err(KeepError::NotWanted(3))
        ));
        e.keep_best(1, b"weights 1").unwrap();
        assert!(
            !e.beat(S(3), &beat("a", Some(found(2, 9.0)), true), false)
                .unwrap()
        );
        assert!(
            e.beat(S(4), &beat("a", Some(found(3, 2.0)), true), true)
                .unwrap()
        );
        // A learner that ended now would never have them.
        let last = Published::new(3, 60, Vec::new());
        assert!(e.awaited(S(4), &last));
        e.keep_best(3, b"weights 3").unwrap();
        assert!(!e.awaited(S(4), &last));
        let best = dir.path().join("checkpoints").join(BEST);
        assert_eq!(fs::read(best).unwrap(), b"weights 3");
        let text = fs::read_to_string(dir.path().join("validation.jsonl")).unwrap();
        let flags = text.lines().map(|l| {
            let line: Value = serde_json::from_str(l).unwrap();
            (line["updates"].as_u64(), line["best"].as_bool())
        });
        let expected = [(20, true), (40, false), (60, true)];
        assert!(
            flags.eq(expected.map(|(u, b)| (Some(u), Some(b)))),
            "{text}"
        );

        let again = Evaluations::new(dir.path());
        let versions = (again.last().unwrap().updates, again.best().unwrap().updates);
        assert_eq!(versions, (60, 60));
    }

    #[test]
    fn weights_that_never_came_are_not_the_best_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut e = Evaluations::new(dir.path());
        let untrained = Evaluation {
            updates: 0,
            ..found(1, 8.0)
        };
        e.beat(S(0), &beat("a", Some(untrained), true), false)
            .unwrap();
        let trainer = crate::testing::trainer(&crate::testing::config(
            common::config::NetworkKind::Collab,
            2,
        ));
        e.keep_best(1, &trainer.weights_bytes(1).unwrap()).unwrap();
        assert!(
            e.beat(S(1), &beat("a", Some(found(3, 2.0)), true), false)
                .unwrap()
        );
        let mut again = Evaluations::new(dir.path());
        let known = (again.best().unwrap(), again.last().unwrap());
        assert_eq!((known.0.updates, known.1.updates), (0, 60));
        let better = beat("a", Some(found(4, 5.0)), true);
        assert!(again.beat(S(2), &better, false).unwrap());
    }

    #[test]
    fn an_evaluator_with_the_folder_writes_itself_and_is_only_noted() {
        let dir = tempfile::tempdir().unwrap();
        let mut e = Evaluations::new(dir.path());
        let told = beat("a", Some(found(1, 8.0)), false);
        assert!(!e.beat(S(0), &told, false).unwrap());
        assert_eq!(e.best().unwrap().updates, 20);
        assert!(!dir.path().join("validation.jsonl").exists());
        // Versions are fewer than updates and say nothing here.
        let after = |updates| Published::new(2, updates, Vec::new());
        // It has not heard of the end, and would wait for ever.
        assert!(e.awaited(S(1), &after(40)) && e.awaited(S(1), &after(20)));
        let silent = beat("a", None, false);
        assert!(!e.beat(S(1), &silent, true).unwrap());
        assert!(e.awaited(S(1), &after(40)) && !e.awaited(S(1), &after(20)));
        assert_eq!(e.evaluators(S(10)).len(), 1);
        assert!(e.evaluators(S(11)).is_empty() && !e.awaited(S(11), &after(40)));
        let mut broken = beat("b", Some(found(3, 1.0)), true);
        broken.line_json = Bytes::from_static(b"[1]");
        assert!(matches!(
            e.beat(S(12), &broken, false),
            Err(KeepError::Line(_))
        ));
        assert_eq!(e.last().unwrap().updates, 20, "told again later");
    }
}
