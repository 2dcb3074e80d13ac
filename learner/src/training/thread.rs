//! The train thread: owns every tensor, makes one update after another, hands
//! out weights, priorities and checkpoints, and waits for none of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::{Config, SelectorConfig};
use common::imaging::dataset::Dataset;
use common::imaging::manifest::TrainingManifest;
use common::run::throttle::Throttle;
use common::transition::row::RowShape;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use model::DeviceChoice;
use proto::messages::weights::Published;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::Serialize;
use tch::Device;
use tokio::sync::{mpsc, oneshot, watch};

use crate::actors::broadcast::Publisher;
use crate::batch::augment::Augmenter;
use crate::batch::collate::{self, Collate, CollateCounts, READY, Ready};
use crate::batch::sampler::SampledRows;
use crate::batch::{Batch, Collator};
use crate::checkpoint::folder::{CheckpointFolder, load_newest};
use crate::checkpoint::{Checkpoint, Surroundings};
use crate::error::{LearnerError, TrainThreadError};
use crate::replay::priorities::PrioritySink;
use crate::replay::shards::Store;
use crate::training::schedule;
use crate::training::trainer::{StepReport, Trainer};

/// How long the thread waits for a batch before it looks for a stop signal.
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);
/// Random stream of the augmentation, apart from the trainer's.
const AUGMENT_STREAM: u64 = 7;

/// What the train thread reports after each update.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainStats {
    /// Updates done.
    pub updates: u64,
    /// Loss of the last update.
    pub loss: f64,
    /// Mean |TD error| of the last batch's active agents.
    pub td_mean: f64,
    /// Mean Q-value of the last batch's actions.
    pub q_mean: f64,
    /// Gradient norm of the last update before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last update.
    pub lr: f64,
    /// Exponent of the importance weights.
    pub beta: f64,
    /// Seconds spent waiting for batches.
    pub train_wait_s: f64,
    /// Seconds that batches were held back by the limiter, summed over batches.
    pub limited_s: f64,
    /// Version of the newest weights.
    pub weights_version: u64,
    /// Checkpoints that could not be written.
    pub failed_checkpoints: u64,
    /// When the first update of this process began.
    #[serde(skip)]
    pub first_update: Option<Instant>,
}

/// How training ended.
#[derive(Debug, Clone)]
pub struct TrainSummary {
    /// Updates done.
    pub updates: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// All updates were made, or the time limit was reached.
    pub finished: bool,
}

/// Everything that the thread is given.
#[derive(Debug)]
pub struct TrainSetup {
    /// The resolved configuration.
    pub config: Arc<Config>,
    /// The training scans.
    pub dataset: Arc<Dataset>,
    /// What was trained on.
    pub manifest: TrainingManifest,
    /// Name of the run.
    pub run_id: String,
    /// Where checkpoints go.
    pub run_dir: PathBuf,
    /// Go on from the newest good checkpoint.
    pub resume: bool,
    /// Shape of all rows.
    pub shape: RowShape,
    /// The shards and their ledger.
    pub store: Arc<Store>,
    /// Set when it shall stop.
    pub stop: Arc<AtomicBool>,
    /// Updates done, for everyone.
    pub updates: Arc<AtomicU64>,
    /// Walks that ended, of all actors.
    pub episodes: Arc<AtomicU64>,
    /// The collate thread's counters.
    pub collate_counts: Arc<CollateCounts>,
    /// Where weights are published.
    pub publisher: Publisher,
    /// Where priorities go.
    pub sink: PrioritySink,
}

/// The running threads.
#[derive(Debug)]
pub struct TrainHandle {
    ready: oneshot::Receiver<()>,
    stats: watch::Receiver<TrainStats>,
}

/// The end of training.
pub type Done = oneshot::Receiver<Result<TrainSummary, TrainThreadError>>;

impl TrainHandle {
    /// Waits until the first weights are published.
    ///
    /// # Errors
    /// Whatever kept the trainer from starting.
    pub async fn ready(&mut self, done: &mut Done) -> Result<(), LearnerError> {
        tokio::select! {
            biased;
            Ok(()) = &mut self.ready => Ok(()),
            ended = done => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(LearnerError::Thread("train")),
            },
        }
    }

    /// What the thread tells.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<TrainStats> {
        self.stats.clone()
    }
}

impl TrainSetup {
    /// Starts the train and the collate thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        self,
        sampled: mpsc::Receiver<SampledRows>,
    ) -> Result<(TrainHandle, Done), LearnerError> {
        let (free_in, free) = bounded(READY + 2);
        for _ in 0..READY + 2 {
            let _ = free_in.send(Batch::default());
        }
        let (ready_in, batches) = bounded(READY);
        let devices = devices(&self.config)?;
        let (collate, augmenter) = self.collate(&devices);
        std::thread::Builder::new()
            .name("collate".into())
            .spawn(move || collate.run(sampled, &free, &ready_in))
            .map_err(|_| LearnerError::Thread("collate"))?;
        let (stats_in, stats) = watch::channel(TrainStats::default());
        let (started, ready) = oneshot::channel();
        let (ended, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("train".into())
            .spawn(move || {
                let begun = Run::begin(self, &devices, &augmenter);
                let result =
                    begun.and_then(|run| run.train(&batches, &free_in, &stats_in, started));
                let _ = ended.send(result);
            })
            .map_err(|_| LearnerError::Thread("train"))?;
        Ok((TrainHandle { ready, stats }, done))
    }

    /// On GPUs the windows are left to them, and so is the augmenter given back.
    fn collate(&self, devices: &[Device]) -> (Collate, Augmenter) {
        let config = &self.config;
        let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed);
        rng.set_stream(AUGMENT_STREAM);
        let samples = config.rules.window_size.pow(3);
        let augmenter = Augmenter::new(&config.augment, samples, &mut rng);
        let mut collator = Collator::new(
            self.dataset.scans.clone(),
            config,
            usize::from(self.shape.agents),
            augmenter.clone(),
            1,
        );
        if devices.iter().any(|d| d.is_cuda()) {
            collator = collator.without_windows();
        }
        let collate = Collate {
            collator,
            shape: self.shape,
            replay: config.replay.clone(),
            updates: Arc::clone(&self.updates),
            updates_total: config.learner.updates,
            rng,
            counts: Arc::clone(&self.collate_counts),
            refusals: Throttle::new(collate::WARN_INTERVAL),
        };
        (collate, augmenter)
    }
}

/// The devices that share each batch. GPUs that are asked for and not there
/// have been complained of; they are left out where others are.
fn devices(config: &Config) -> Result<Vec<Device>, TrainThreadError> {
    let l = &config.learner;
    let (key, names) = match l.devices.as_slice() {
        [] => ("device", std::slice::from_ref(&l.device)),
        several => ("devices", several),
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let choice: DeviceChoice = name
            .parse()
            .map_err(|e| TrainThreadError::Device(key, format!("{e}")))?;
        let device = choice.resolve();
        if device != Device::Cpu || choice == DeviceChoice::Cpu {
            found.push(device);
        }
    }
    if found.is_empty() {
        found.push(Device::Cpu);
    }
    Ok(found)
}

/// The thread's own state.
struct Run {
    setup: TrainSetup,
    trainer: Trainer,
    checkpoints: CheckpointFolder,
    manifest_json: String,
    stats: TrainStats,
}

impl Run {
    fn begin(
        setup: TrainSetup,
        devices: &[Device],
        augmenter: &Augmenter,
    ) -> Result<Self, TrainThreadError> {
        let config = Arc::clone(&setup.config);
        // Replicas are threads of their own; see there.
        model::device::set_threads(1);
        let landmarks = setup.dataset.landmark_names.clone();
        let mut trainer = Trainer::on(Arc::clone(&config), landmarks, devices)?;
        if devices.iter().any(|d| d.is_cuda()) {
            trainer.hold_scans(&setup.dataset.scans, augmenter)?;
        }
        tracing::info!(
            ?devices,
            precision = ?config.learner.precision,
            "training on"
        );
        let manifest_json = serde_json::to_string(&setup.manifest)?;
        let folder = setup.run_dir.join("checkpoints");
        let checkpoints = CheckpointFolder::new(&folder, config.checkpoint.keep);
        let mut stats = TrainStats::default();
        if setup.resume
            && let Some(found) = load_newest(&folder)?
        {
            found.checkpoint.restore(&mut trainer, &manifest_json)?;
            let record = &found.checkpoint.record;
            setup.store.with_ledger(|l| l.restore(&record.books));
            setup.episodes.store(record.episodes, Ordering::Relaxed);
            stats.weights_version = record.weights_version;
            tracing::info!(
                updates = trainer.updates(),
                file = %found.path.display(),
                "resumed"
            );
        }
        stats.updates = trainer.updates();
        setup.updates.store(trainer.updates(), Ordering::Relaxed);
        Ok(Self {
            setup,
            trainer,
            checkpoints,
            manifest_json,
            stats,
        })
    }

    fn train(
        mut self,
        batches: &Receiver<Ready>,
        free: &Sender<Batch>,
        stats: &watch::Sender<TrainStats>,
        started: oneshot::Sender<()>,
    ) -> Result<TrainSummary, TrainThreadError> {
        self.publish()?;
        // A resumed run is nowhere seen at update 0.
        stats.send_replace(self.stats.clone());
        let _ = started.send(());
        let finished = self.updates(batches, free, stats)?;
        self.publish()?;
        stats.send_replace(self.stats.clone());
        let folder = self.setup.run_dir.clone();
        let checkpoint = self
            .checkpoint()?
            .ok_or(TrainThreadError::FinalCheckpoint(folder))?;
        Ok(TrainSummary {
            updates: self.trainer.updates(),
            checkpoint,
            finished,
        })
    }

    /// Trains until the end (true) or until told to stop (false).
    fn updates(
        &mut self,
        batches: &Receiver<Ready>,
        free: &Sender<Batch>,
        stats: &watch::Sender<TrainStats>,
    ) -> Result<bool, TrainThreadError> {
        let config = Arc::clone(&self.setup.config);
        let limit = (config.learner.max_minutes > 0.0)
            .then(|| Duration::from_secs_f64(config.learner.max_minutes * 60.0));
        while self.trainer.updates() < config.learner.updates {
            if self.setup.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if let (Some(limit), Some(first)) = (limit, self.stats.first_update)
                && first.elapsed() >= limit
            {
                tracing::info!(
                    updates = self.trainer.updates(),
                    "time limit learner.max_minutes reached"
                );
                return Ok(true);
            }
            let episodes = self.setup.episodes.load(Ordering::Relaxed);
            if (1..=episodes).contains(&config.learner.max_episodes) {
                tracing::info!(
                    updates = self.trainer.updates(),
                    episodes,
                    "learner.max_episodes reached"
                );
                return Ok(true);
            }
            let begin = Instant::now();
            let ready = batches.recv_timeout(LOOK_UP_EVERY);
            self.stats.train_wait_s += begin.elapsed().as_secs_f64();
            match ready {
                Ok(ready) => {
                    self.stats.first_update.get_or_insert_with(Instant::now);
                    let batch = self.update(ready)?;
                    let _ = free.send(batch);
                    stats.send_replace(self.stats.clone());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(TrainThreadError::Collate),
            }
        }
        Ok(true)
    }

    fn update(&mut self, ready: Ready) -> Result<Batch, TrainThreadError> {
        let Ready { mut batch, limited } = ready;
        if batch.rows == 0 {
            return Ok(batch);
        }
        let report = self.trainer.step(&batch)?;
        let updates = self.trainer.updates();
        self.setup.updates.store(updates, Ordering::Relaxed);
        let keys = std::mem::take(&mut batch.keys);
        // Uniform draws ask for no priorities: hundreds of thousands a second
        // would only keep shards from answering.
        if self.setup.config.replay.selector == SelectorConfig::Prioritised {
            self.setup.sink.push(
                keys.into_iter()
                    .zip(report.td_errors.iter().copied())
                    .collect(),
            );
        }
        self.note(&report, limited);
        let config = &self.setup.config;
        let due = |every: u64| updates.is_multiple_of(every);
        if due(config.learner.publish_every) {
            self.publish()?;
        }
        if due(self.setup.config.checkpoint.every) {
            // Training goes on without it; the folder counts and complains.
            self.checkpoint()?;
            self.stats.failed_checkpoints = self.checkpoints.failures();
        }
        Ok(batch)
    }

    fn note(&mut self, report: &StepReport, limited: Duration) {
        let config = &self.setup.config;
        let stats = &mut self.stats;
        stats.updates = self.trainer.updates();
        stats.loss = report.loss;
        stats.td_mean = report.td_mean();
        stats.q_mean = report.q_mean;
        stats.grad_norm = report.grad_norm;
        stats.lr = report.lr;
        stats.beta = schedule::beta(&config.replay, stats.updates, config.learner.updates);
        stats.limited_s += limited.as_secs_f64();
    }

    fn publish(&mut self) -> Result<(), TrainThreadError> {
        self.stats.weights_version += 1;
        let version = self.stats.weights_version;
        let bytes = self.trainer.weights_bytes(version)?;
        let published = Published::new(version, self.trainer.updates(), bytes);
        self.setup.publisher.send_replace(Some(Arc::new(published)));
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Option<PathBuf>, TrainThreadError> {
        let around = Surroundings {
            run_id: self.setup.run_id.clone(),
            weights_version: self.stats.weights_version,
            manifest_json: self.manifest_json.clone(),
            books: self.setup.store.with_ledger(|l| l.books().clone()),
            episodes: self.setup.episodes.load(Ordering::Relaxed),
            ..Surroundings::default()
        };
        let checkpoint = Checkpoint::new(&self.trainer, around)?;
        Ok(self.checkpoints.save(&checkpoint))
    }
}
