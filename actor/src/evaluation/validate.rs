//! Evaluation beside training: walks the selection scans with weights that are
//! still being learned, and keeps the best.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use common::config::Config;
use common::environment::starts::EvaluationStarts;
use common::imaging::scan::Scan;
use common::run::durable::{append_line, write_atomic};
use common::run::run_folder::rfc3339;
use common::run::tensorboard::EventFile;
use model::{DeviceChoice, NetworkKind};
use serde::{Deserialize, Serialize};

use crate::evaluation::baseline::Guess;
use crate::evaluation::evaluate::{Evaluation, evaluate};
use crate::evaluation::summary::{LandmarkSummary, summarise};
use crate::rollout::network_policy::{NetworkPolicy, Samples};
use crate::rollout::policy::{Policy, PolicyError, QValues, View};
use proto::messages::weights::Published;

const BATCH: usize = 64;

/// One line of `validation.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// When it ended: RFC 3339, UTC.
    pub time: String,
    /// Updates done by the weights.
    pub updates: u64,
    /// Their version.
    pub weights_version: u64,
    /// Mean over selection scans and landmarks of the consensus error.
    pub mean_error_mm: f64,
    /// The same in voxels.
    pub mean_error_voxels: f64,
    /// The median.
    pub median_error_mm: f64,
    /// The constant guess on the same scans.
    pub constant_guess_mm: Option<f64>,
    /// Whether these weights became `best.safetensors`.
    pub best: bool,
    /// How long the walks took.
    pub seconds: f64,
    /// Each landmark by itself.
    pub landmarks: Vec<LandmarkSummary>,
}

impl From<&Validation> for proto::messages::status::Evaluation {
    fn from(v: &Validation) -> Self {
        Self {
            updates: v.updates,
            weights_version: v.weights_version,
            mean_error_mm: v.mean_error_mm,
            mean_error_voxels: v.mean_error_voxels,
            median_error_mm: v.median_error_mm,
            constant_guess_mm: v.constant_guess_mm,
            seconds: v.seconds,
            best: v.best,
        }
    }
}

/// A run folder that evaluations are kept in.
#[derive(Debug)]
struct Keeper {
    lines: PathBuf,
    best_file: PathBuf,
    /// TensorBoard's curves; a run does without them.
    events: Option<EventFile>,
}

/// Evaluates weights on the selection scans. Lives on one thread.
#[derive(Debug)]
pub struct Validator {
    config: Arc<Config>,
    scans: Vec<Arc<Scan>>,
    guess: Guess,
    policy: NetworkPolicy,
    keeper: Option<Keeper>,
    stop: Arc<AtomicBool>,
    best_mm: Option<f64>,
    last: Option<Validation>,
}

impl Validator {
    /// Walks on `device`. With a run folder it keeps there what it finds, and
    /// goes on from what `validation.jsonl` says already.
    ///
    /// # Errors
    /// When `device` names none.
    pub fn new(
        config: Arc<Config>,
        scans: Vec<Arc<Scan>>,
        guess: Guess,
        device: &str,
        folder: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let device = device.parse::<DeviceChoice>()?.resolve();
        let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, device);
        let keeper = folder.map(Keeper::new);
        let before = keeper.as_ref().map(Keeper::before).unwrap_or_default();
        let kept = keeper.as_ref().is_some_and(|k| k.best_file.is_file());
        let best_mm = before.iter().map(|v| v.mean_error_mm);
        Ok(Self {
            config,
            scans,
            guess,
            policy,
            keeper,
            stop: Arc::default(),
            best_mm: best_mm.min_by(f64::total_cmp).filter(|_| kept),
            last: before.into_iter().next_back(),
        })
    }

    /// Set it, and an evaluation that goes on ends with an error soon.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Updates of the weights that were evaluated last.
    #[must_use]
    pub fn last_updates(&self) -> Option<u64> {
        self.last.as_ref().map(|v| v.updates)
    }

    /// The best and the last error in mm.
    #[must_use]
    pub fn errors_mm(&self) -> Option<(f64, f64)> {
        self.best_mm
            .zip(self.last.as_ref().map(|v| v.mean_error_mm))
    }

    /// The constant guess on the selection scans, as last computed.
    #[must_use]
    pub fn constant_guess_mm(&self) -> Option<f64> {
        self.last.as_ref().and_then(|v| v.constant_guess_mm)
    }

    /// Walks the selection scans and notes what came out.
    ///
    /// # Errors
    /// When the weights do not answer or nothing can be compared. A file that cannot
    /// be written is complained of: a full disk does not stop training.
    pub fn validate(&mut self, published: &Published) -> anyhow::Result<&Validation> {
        let begin = Instant::now();
        let network = model::files::weights::from_bytes(&published.bytes)?.network;
        self.policy.set_network(&network, published.version)?;
        let names = &self.config.data.landmarks;
        let agents: Vec<u16> = (0..).take(names.len()).collect();
        let rules = Arc::new(self.config.rules.clone());
        let starts = EvaluationStarts::Random {
            count: self.config.validation.starts,
            margin: self.config.evaluation.margin,
        };
        let commnet = network.spec().kind == NetworkKind::Commnet;
        let evaluation = Evaluation {
            scans: &self.scans,
            agents: &agents,
            starts: &starts,
            rules: &rules,
            together: crate::rollout::group::walk_together(&rules, commnet),
            seed: self.config.run.seed,
            batch: BATCH,
            trajectories: false,
        };
        let mut policy = UntilStopped {
            policy: &mut self.policy,
            stop: &self.stop,
        };
        let walks = evaluate(&mut policy, &evaluation, |_| {})?;
        let summary = summarise(&walks, &self.scans, names, &self.guess.ras_mm);
        let errors = summary
            .all
            .consensus
            .context("no selection scan shows any of the landmarks")?;
        let better = self.best_mm.is_none_or(|best| errors.mm.mean < best);
        // Weights that are not kept are not the best: later ones must not have to beat them.
        let best = better
            && self
                .keeper
                .as_ref()
                .is_none_or(|k| k.keep_best(&published.bytes));
        if best {
            self.best_mm = Some(errors.mm.mean);
        }
        let validation = Validation {
            time: rfc3339(SystemTime::now()),
            updates: published.updates,
            weights_version: published.version,
            mean_error_mm: errors.mm.mean,
            mean_error_voxels: errors.voxels.mean,
            median_error_mm: errors.mm.median,
            constant_guess_mm: summary.all.guess.map(|g| g.mm.mean),
            best,
            seconds: begin.elapsed().as_secs_f64(),
            landmarks: summary.landmarks,
        };
        tell(&validation);
        if let Some(keeper) = &mut self.keeper {
            keeper.note(&validation);
            keeper.draw(&validation);
        }
        Ok(self.last.insert(validation))
    }
}

fn tell(v: &Validation) {
    tracing::info!(
        updates = v.updates,
        mean_error_mm = v.mean_error_mm,
        mean_error_voxels = v.mean_error_voxels,
        constant_guess_mm = v.constant_guess_mm,
        best = v.best,
        seconds = v.seconds,
        "validated"
    );
}

impl Keeper {
    fn new(folder: &Path) -> Self {
        Self {
            lines: folder.join("validation.jsonl"),
            best_file: folder.join("checkpoints").join("best.safetensors"),
            events: EventFile::create(folder, "validation", SystemTime::now()).ok(),
        }
    }

    fn before(&self) -> Vec<Validation> {
        let text = std::fs::read_to_string(&self.lines).unwrap_or_default();
        // A line cut off by a crash is no reason to stop.
        let lines = text.lines();
        lines.filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    fn draw(&mut self, v: &Validation) {
        let mut curves = vec![
            ("validation/mean_error_mm", v.mean_error_mm),
            ("validation/mean_error_voxels", v.mean_error_voxels),
            ("validation/median_error_mm", v.median_error_mm),
        ];
        curves.extend(
            v.constant_guess_mm
                .map(|mm| ("validation/constant_guess_mm", mm)),
        );
        let Some(events) = &mut self.events else {
            return;
        };
        if let Err(error) = events.scalars(v.updates, SystemTime::now(), &curves) {
            tracing::warn!(%error, "TensorBoard's event file takes no more; training goes on");
            self.events = None;
        }
    }

    fn note(&self, v: &Validation) {
        let line = serde_json::to_string(v).map_err(anyhow::Error::from);
        if let Err(error) = line.and_then(|l| Ok(append_line(&self.lines, &l)?)) {
            tracing::error!(error = %format!("{error:#}"), updates = v.updates,
                "an evaluation is not in validation.jsonl; training goes on");
        }
    }

    /// Whether the weights are kept.
    fn keep_best(&self, weights: &[u8]) -> bool {
        let kept = write_atomic(&self.best_file, weights);
        if let Err(error) = &kept {
            tracing::error!(%error, "the best weights so far are not kept; training goes on");
        }
        kept.is_ok()
    }
}

/// A policy that refuses to answer once it is told to stop.
struct UntilStopped<'a> {
    policy: &'a mut NetworkPolicy,
    stop: &'a AtomicBool,
}

impl Policy for UntilStopped<'_> {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(PolicyError::Stopped);
        }
        self.policy.q_values(views)
    }

    fn weights_version(&self) -> u64 {
        self.policy.weights_version()
    }
}
