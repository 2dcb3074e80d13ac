//! The train thread: owns every tensor, performs one update after another, sends
//! weights and priorities, writes checkpoints, and waits for no receiver.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::config::{Config, SelectorConfig};
use common::run::telemetry::in_current_span;
use common::run::throttle::Throttle;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use model::DeviceChoice;
use proto::messages::weights::Published;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::Device;
use tokio::sync::{mpsc, oneshot, watch};

use crate::actors::broadcast::{Digests, Publisher};
use crate::batch::augment::Augmenter;
use crate::batch::collate::{self, Collate, CollateCounts, READY, Ready};
use crate::batch::sampler::SampledRows;
use crate::batch::{Batch, Collator, FillError};
use crate::checkpoint::folder::{CheckpointFolder, Resume, write_final};
use crate::checkpoint::{Checkpoint, Surroundings};
use crate::error::{LearnerError, TrainThreadError};
use crate::prepare::PreparedRun;
use crate::replay::priorities::PrioritySink;
use crate::replay::shards::ReplayClient;
use crate::training::stats::TrainStats;
use crate::training::stop::StopRules;
use crate::training::trainer::Trainer;

/// How long the thread waits for a batch before it checks the stop flag.
const STOP_POLL: Duration = Duration::from_millis(50);
/// Random stream of the augmentation, separate from the trainer's.
const AUGMENT_STREAM: u64 = 7;

/// How training ended.
#[derive(Debug, Clone)]
pub struct TrainSummary {
    pub updates: u64,
    pub checkpoint: PathBuf,
    pub weights: PathBuf,
    /// Whether a limit ended the training, not the stop flag.
    pub finished: bool,
}

/// Inputs of the threads.
#[derive(Debug)]
pub struct TrainSetup {
    /// The run to train.
    pub run: Arc<PreparedRun>,
    /// The shards and the rate limiter.
    pub replay: Arc<ReplayClient>,
    /// Set to stop the thread.
    pub stop: Arc<AtomicBool>,
    /// Updates done, shared.
    pub updates: Arc<AtomicU64>,
    /// Finished episodes of all actors.
    pub episodes: Arc<AtomicU64>,
    pub collate_counts: Arc<CollateCounts>,
    pub publisher: Publisher,
    /// What was published, so that others' copies can be compared.
    pub published: Arc<Digests>,
    pub sink: PrioritySink,
}

#[derive(Debug)]
pub struct TrainHandle {
    ready: oneshot::Receiver<()>,
    stats: watch::Receiver<TrainStats>,
}

/// The result of training.
pub type Done = oneshot::Receiver<Result<TrainSummary, TrainThreadError>>;

impl TrainHandle {
    /// Waits until the first weights are published.
    /// Returns the error that kept the trainer from starting.
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

    /// The thread's reports.
    pub fn stats(&self) -> watch::Receiver<TrainStats> {
        self.stats.clone()
    }
}

impl TrainSetup {
    /// Starts the train and the collate thread.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        self,
        sampled: mpsc::Receiver<SampledRows>,
    ) -> Result<(TrainHandle, Done), LearnerError> {
        let (free_in, free) = bounded(READY + 2);
        for _ in 0..READY + 2 {
            let _ = free_in.send(Batch::default());
        }
        let (ready_in, batches) = bounded(READY);
        let devices = devices(&self.run.config)?;
        let (collate, augmenter) = self.collate(&devices);
        std::thread::Builder::new()
            .name("collate".into())
            .spawn(in_current_span(move || {
                collate.run(sampled, &free, &ready_in);
            }))
            .map_err(|_| LearnerError::Thread("collate"))?;
        let (stats_in, stats) = watch::channel(TrainStats::default());
        let (started, ready) = oneshot::channel();
        let (ended, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("train".into())
            .spawn(in_current_span(move || {
                let begun = Run::begin(self, &devices, &augmenter);
                let result =
                    begun.and_then(|run| run.train(&batches, &free_in, &stats_in, started));
                let _ = ended.send(result);
            }))
            .map_err(|_| LearnerError::Thread("train"))?;
        Ok((TrainHandle { ready, stats }, done))
    }

    /// GPUs render windows themselves, and need the augmenter for it.
    fn collate(&self, devices: &[Device]) -> (Collate, Augmenter) {
        let (config, shape) = (&self.run.config, self.run.hello.shape);
        let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed);
        rng.set_stream(AUGMENT_STREAM);
        let samples = config.rules.window_size.pow(3);
        let augmenter = Augmenter::new(&config.augment, samples, &mut rng);
        let mut collator = Collator::new(
            self.run.dataset.scans.clone(),
            config,
            usize::from(shape.agents),
            augmenter.clone(),
            1,
        );
        if devices.iter().any(|d| d.is_cuda()) {
            collator = collator.without_windows();
        }
        let collate = Collate {
            collator,
            shape,
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

/// The devices that share each batch. Skips missing GPUs with a warning.
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
        let config = Arc::clone(&setup.run.config);
        // Replicas use threads of their own.
        model::device::set_threads(1);
        let landmarks = setup.run.dataset.landmark_names.clone();
        let mut trainer = Trainer::on(Arc::clone(&config), landmarks, devices)?;
        if devices.iter().any(|d| d.is_cuda()) {
            let scans = &setup.run.dataset.scans;
            trainer.hold_scans(scans, augmenter)?;
            let checked = scans.iter().try_for_each(|scan| scan.volume.check());
            checked.map_err(FillError::from)?;
        }
        let precision = config.learner.precision;
        tracing::info!(?devices, ?precision, "devices selected");
        let manifest_json = serde_json::to_string(&setup.run.manifest)?;
        let folder = setup.run.folder.checkpoints();
        let checkpoints = CheckpointFolder::new(&folder, config.checkpoint.keep);
        let mut stats = TrainStats::default();
        if let Some(found) = setup.run.resume.find(&folder)? {
            found.checkpoint.restore(&mut trainer, &manifest_json)?;
            let record = &found.checkpoint.record;
            setup.replay.with_limiter(|l| l.restore(&record.limiter));
            setup.episodes.store(record.episodes, Ordering::Relaxed);
            stats.weights_version = record.weights_version;
            let updates = trainer.updates();
            tracing::info!(updates, file = %found.path.display(), "resumed");
            if matches!(setup.run.resume, Resume::Named(_)) {
                checkpoints.go_on_from(updates);
            }
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
        batches: &Receiver<Result<Ready, FillError>>,
        free: &Sender<Batch>,
        stats: &watch::Sender<TrainStats>,
        started: oneshot::Sender<()>,
    ) -> Result<TrainSummary, TrainThreadError> {
        self.publish()?;
        // A resumed run never shows update 0.
        stats.send_replace(self.stats.clone());
        let _ = started.send(());
        let finished = self.updates(batches, free, stats)?;
        let last = self.publish()?;
        stats.send_replace(self.stats.clone());
        let folder = self.setup.run.folder.checkpoints();
        let checkpoint = self.checkpoint()?;
        // Smaller: it may fit on a disk that has no space for the checkpoint.
        let weights = write_final(&folder, &last.bytes, &self.setup.run.manifest);
        let unsaved = || {
            let saved = weights.as_ref().ok().map(|file| file.display());
            let saved = saved.map_or_else(String::new, |file| {
                format!("; the final weights are in {file}")
            });
            TrainThreadError::FinalCheckpoint(self.checkpoints.why().to_owned() + &saved)
        };
        Ok(TrainSummary {
            updates: self.trainer.updates(),
            checkpoint: checkpoint.ok_or_else(unsaved)?,
            weights: weights?,
            finished,
        })
    }

    /// Trains until the end (true) or until the stop flag is set (false).
    fn updates(
        &mut self,
        batches: &Receiver<Result<Ready, FillError>>,
        free: &Sender<Batch>,
        stats: &watch::Sender<TrainStats>,
    ) -> Result<bool, TrainThreadError> {
        let rules = StopRules::new(&self.setup.run.config.learner);
        loop {
            let updates = self.trainer.updates();
            let episodes = self.setup.episodes.load(Ordering::Relaxed);
            if let Some(reason) = rules.reached(updates, episodes, self.stats.trained()) {
                tracing::info!(updates, episodes, "{reason}");
                return Ok(true);
            }
            if self.setup.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let begin = Instant::now();
            let ready = batches.recv_timeout(STOP_POLL);
            self.stats.train_wait_s += begin.elapsed().as_secs_f64();
            match ready {
                Ok(ready) => {
                    self.stats.first_update.get_or_insert_with(Instant::now);
                    let batch = self.update(ready?)?;
                    let _ = free.send(batch);
                    stats.send_replace(self.stats.clone());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(TrainThreadError::Collate),
            }
        }
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
        // Uniform sampling needs no priorities: hundreds of thousands a second
        // would slow the shards down for nothing.
        if self.setup.run.config.replay.selector == SelectorConfig::Prioritised {
            let errors = report.td_errors.iter().copied();
            self.setup.sink.push(keys.into_iter().zip(errors).collect());
        }
        let config = Arc::clone(&self.setup.run.config);
        self.stats.updated(updates, &report, &config);
        self.stats.limited_s += limited.as_secs_f64();
        if updates.is_multiple_of(config.learner.publish_period) {
            self.publish()?;
        }
        if updates.is_multiple_of(config.checkpoint.period) {
            // Training continues after a failed write; the folder counts and logs it.
            self.checkpoint()?;
            self.stats.failed_checkpoints = self.checkpoints.failures();
        }
        Ok(batch)
    }

    fn publish(&mut self) -> Result<Arc<Published>, TrainThreadError> {
        self.stats.weights_version += 1;
        let version = self.stats.weights_version;
        let bytes = self.trainer.weights_bytes(version)?;
        let published = Arc::new(Published::new(version, self.trainer.updates(), bytes));
        self.setup.published.add(&published);
        let newest = Some(Arc::clone(&published));
        self.setup.publisher.send_replace(newest);
        Ok(published)
    }

    fn checkpoint(&mut self) -> Result<Option<PathBuf>, TrainThreadError> {
        let around = Surroundings {
            run_id: self.setup.run.hello.run_id.clone(),
            weights_version: self.stats.weights_version,
            manifest_json: self.manifest_json.clone(),
            limiter: self.setup.replay.with_limiter(|l| l.state().clone()),
            episodes: self.setup.episodes.load(Ordering::Relaxed),
            ..Surroundings::default()
        };
        let checkpoint = Checkpoint::new(&self.trainer, around)?;
        Ok(self.checkpoints.save(&checkpoint))
    }
}
