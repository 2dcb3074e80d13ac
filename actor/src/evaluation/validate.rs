//! Evaluation during training: the error of weights that are still being trained, on the
//! validation scans.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use common::config::Config;
use common::environment::starts::EvaluationStarts;
use common::imaging::scan::Scan;
use common::run::baseline::MeanPositionBaseline;
use common::run::run_folder::rfc3339;
use model::{DeviceChoice, NetworkKind};
use serde::{Deserialize, Serialize};

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
    pub weights_version: u64,
    /// Mean over validation scans and landmarks of the consensus error.
    pub mean_error_mm: f64,
    /// The same in voxels.
    pub mean_error_voxels: f64,
    pub median_error_mm: f64,
    /// The mean-position baseline on the same scans.
    #[serde(alias = "constant_guess_mm")]
    pub baseline_error_mm: Option<f64>,
    /// Whether these weights became `best.safetensors`; set by the process that stores them.
    pub best: bool,
    /// Duration of the evaluation.
    pub seconds: f64,
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
            baseline_error_mm: v.baseline_error_mm,
            seconds: v.seconds,
            best: v.best,
        }
    }
}

/// Evaluates weights on the validation scans. Used by one thread.
#[derive(Debug)]
pub struct Validator {
    config: Arc<Config>,
    scans: Vec<Arc<Scan>>,
    baseline: MeanPositionBaseline,
    policy: NetworkPolicy,
    stop: Arc<AtomicBool>,
}

impl Validator {
    /// Evaluates on `device`, without a baseline at first.
    ///
    /// # Errors
    /// When `device` is invalid.
    pub fn new(config: Arc<Config>, scans: Vec<Arc<Scan>>, device: &str) -> anyhow::Result<Self> {
        let device = device.parse::<DeviceChoice>()?.resolve();
        let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, device);
        Ok(Self {
            config,
            scans,
            baseline: MeanPositionBaseline::default(),
            policy,
            stop: Arc::default(),
        })
    }

    /// Sets the baseline that errors are compared with.
    pub fn set_baseline(&mut self, baseline: MeanPositionBaseline) {
        self.baseline = baseline;
    }

    /// A flag that, once set, makes an evaluation in progress fail soon.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The error of these weights on the validation scans.
    ///
    /// # Errors
    /// When the weights cannot be used, or no scan shows any of the landmarks.
    pub fn validate(&mut self, published: &Published) -> anyhow::Result<Validation> {
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
            together: crate::rollout::group::one_group(&rules, commnet),
            seed: self.config.run.seed,
            batch: BATCH,
            trajectories: false,
        };
        let mut policy = UntilStopped {
            policy: &mut self.policy,
            stop: &self.stop,
        };
        let results = evaluate(&mut policy, &evaluation, |_| {})?;
        let summary = summarise(&results, &self.scans, names, &self.baseline.ras_mm);
        let errors = summary
            .all
            .consensus
            .context("no validation scan shows any of the landmarks")?;
        let validation = Validation {
            time: rfc3339(SystemTime::now()),
            updates: published.updates,
            weights_version: published.version,
            mean_error_mm: errors.mm.mean,
            mean_error_voxels: errors.voxels.mean,
            median_error_mm: errors.mm.median,
            baseline_error_mm: summary.all.baseline.map(|g| g.mm.mean),
            best: false,
            seconds: begin.elapsed().as_secs_f64(),
            landmarks: summary.landmarks,
        };
        tracing::debug!(
            updates = validation.updates,
            mean_error_mm = validation.mean_error_mm,
            mean_error_voxels = validation.mean_error_voxels,
            baseline_error_mm = validation.baseline_error_mm,
            seconds = validation.seconds,
            "validated"
        );
        Ok(validation)
    }
}

/// A policy that fails once the stop flag is set.
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
