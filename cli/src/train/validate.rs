//! Evaluation beside training: follows the weights as a cluster's evaluator
//! would, walks the selection scans, keeps the best.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actor::evaluate::{Evaluation, evaluate};
use actor::network_policy::{NetworkPolicy, Samples};
use actor::summary::{LandmarkSummary, summarise};
use actor::weights::Published;
use anyhow::Context as _;
use common::config::Config;
use common::durable::write_atomic;
use common::run_folder::{RunFolder, rfc3339};
use common::scan::Scan;
use common::starts::EvaluationStarts;
use common::tensorboard::EventFile;
use model::{DeviceChoice, NetworkKind};
use serde::{Deserialize, Serialize};

use crate::guess::Guess;

const BATCH: usize = 64;

/// One line of `validation.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    pub time: String,
    pub updates: u64,
    pub weights_version: u64,
    /// Mean over selection scans and landmarks of the consensus error.
    pub mean_error_mm: f64,
    pub mean_error_voxels: f64,
    pub median_error_mm: f64,
    /// The constant guess on the same scans.
    pub constant_guess_mm: Option<f64>,
    /// Whether these weights became `best.safetensors`.
    pub best: bool,
    /// How long the walks took.
    pub seconds: f64,
    pub landmarks: Vec<LandmarkSummary>,
}

/// Evaluates weights on the selection scans. Lives on one thread.
#[derive(Debug)]
pub struct Validator {
    config: Arc<Config>,
    scans: Vec<Arc<Scan>>,
    guess: Guess,
    policy: NetworkPolicy,
    lines: PathBuf,
    best_file: PathBuf,
    best_mm: Option<f64>,
    /// TensorBoard's curves; a run does without them.
    events: Option<EventFile>,
    last: Option<Validation>,
}

impl Validator {
    /// Goes on from what `validation.jsonl` says already.
    pub fn new(
        config: Arc<Config>,
        scans: Vec<Arc<Scan>>,
        guess: Guess,
        folder: &RunFolder,
    ) -> anyhow::Result<Self> {
        // The learner may fill the GPU; walks on the CPU never stop it.
        let device = config.learner.device.parse::<DeviceChoice>()?.resolve();
        let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, device);
        let lines = folder.validation_file();
        let before = std::fs::read_to_string(&lines).unwrap_or_default();
        // A line cut off by a crash is no reason to stop.
        let before: Vec<Validation> = before
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        let best_file = folder.checkpoints().join("best.safetensors");
        let best_mm = before
            .iter()
            .map(|v| v.mean_error_mm)
            .min_by(f64::total_cmp);
        Ok(Self {
            config,
            scans,
            guess,
            policy,
            lines,
            best_mm: best_mm.filter(|_| best_file.is_file()),
            best_file,
            events: EventFile::create(folder.path(), "validation", SystemTime::now()).ok(),
            last: before.into_iter().next_back(),
        })
    }

    /// Updates of the weights that were evaluated last.
    pub fn last_updates(&self) -> Option<u64> {
        self.last.as_ref().map(|v| v.updates)
    }

    /// The best and the last error in mm.
    pub fn errors_mm(&self) -> Option<(f64, f64)> {
        self.best_mm
            .zip(self.last.as_ref().map(|v| v.mean_error_mm))
    }

    /// The constant guess on the selection scans, as last computed.
    pub fn constant_guess_mm(&self) -> Option<f64> {
        self.last.as_ref().and_then(|v| v.constant_guess_mm)
    }

    /// Walks the selection scans and notes what came out.
    pub fn validate(&mut self, published: &Published) -> anyhow::Result<&Validation> {
        let begin = Instant::now();
        let network = model::weights::from_bytes(&published.bytes)?.network;
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
            together: actor::group::walk_together(&rules, commnet),
            seed: self.config.run.seed,
            batch: BATCH,
            trajectories: false,
        };
        let walks = evaluate(&mut self.policy, &evaluation, |_| {})?;
        let summary = summarise(&walks, &self.scans, names, &self.guess.ras_mm);
        let errors = summary
            .all
            .consensus
            .context("no selection scan shows any of the landmarks")?;
        let better = self.best_mm.is_none_or(|best| errors.mm.mean < best);
        if better {
            write_atomic(&self.best_file, &published.bytes)?;
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
            best: better,
            seconds: begin.elapsed().as_secs_f64(),
            landmarks: summary.landmarks,
        };
        self.note(&validation)?;
        self.draw(&validation);
        Ok(self.last.insert(validation))
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

    fn note(&self, v: &Validation) -> anyhow::Result<()> {
        let line = serde_json::to_string(v)? + "\n";
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.lines);
        opened
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .with_context(|| format!("write {}", self.lines.display()))?;
        tracing::info!(
            updates = v.updates,
            mean_error_mm = v.mean_error_mm,
            mean_error_voxels = v.mean_error_voxels,
            constant_guess_mm = v.constant_guess_mm,
            best = v.best,
            seconds = v.seconds,
            "validated"
        );
        Ok(())
    }
}
