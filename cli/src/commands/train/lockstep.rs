//! `landmarl train --lockstep`: the same training on one thread, step by step.
//! Stopped at any moment and resumed, it gives the bits of one never stopped.

mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actor::evaluation::validate::Validator;
use anyhow::Context as _;
use common::config::{Config, Precision};
use common::environment::rules::RULES_VERSION;
use common::run::durable::write_atomic;
use common::run::machine::resident_bytes;
use learner::Progress;
use learner::actors::registry::ActorTotals;
use learner::checkpoint::folder::{CheckpointFolder, load_newest};
use learner::replay::limiter::RowTotals;
use learner::report::progress::Pace;
use learner::report::recorder::Recorder;
use learner::training::schedule;
use learner::training::thread::TrainStats;
use learner::training::trainer::StepReport;
use model::DeviceChoice;
use proto::messages::weights::Published;

use super::cluster::Ended;
use super::display::{Display, Moment};
use super::plan::Plan;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use machine::{Machine, Turn};

const LOOK_EVERY: Duration = Duration::from_millis(500);
const RECORD_EVERY: Duration = Duration::from_secs(5);

/// Settings that mean something else in lockstep, or nothing.
pub fn settle(config: &mut Config) -> Result<(), Advice> {
    let refuse = |key: &str, why: &str| {
        let message = format!("config key \"{key}\": {why}");
        let hint = "leave out --lockstep for GPUs and several devices";
        Err(Advice::new(Exit::Config, message).hint(hint))
    };
    let l = &mut config.learner;
    if let Ok(DeviceChoice::Cuda(_)) = l.device.parse::<DeviceChoice>() {
        return refuse("learner.device", "lockstep trains on the CPU alone");
    }
    if !l.devices.is_empty() {
        return refuse("learner.devices", "lockstep trains on one CPU alone");
    }
    // As many as the machine has would be other bits on another machine.
    l.threads = l.threads.max(1);
    l.device = "cpu".to_owned();
    l.precision = Precision::F32;
    Ok(())
}

/// Trains until the last update or until it is told to stop.
pub fn train(plan: Plan) -> anyhow::Result<Ended> {
    let stop = stop_flag()?;
    model::device::set_threads(1);
    let mut run = Run::begin(plan)?;
    let interrupted = run.until(&stop)?;
    run.finish(interrupted)
}

/// Set by Ctrl-C and SIGTERM; a second one ends the process.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime that hears signals")?;
    let body = move || {
        runtime.block_on(async move {
            proto::transport::entry::shutdown_signal().await;
            told.store(true, Ordering::Relaxed);
            console::note("stopping with a checkpoint; Ctrl-C again stops at once");
            std::future::pending::<()>().await;
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(body)
        .context("start the thread that hears signals")?;
    Ok(stop)
}

struct Run {
    plan: Plan,
    machine: Machine,
    checkpoints: CheckpointFolder,
    manifest_json: String,
    recorder: Recorder,
    display: Display,
    last: StepReport,
    began: Instant,
    recorded: Instant,
    shown: Instant,
    /// (updates, environment steps) when the last report was recorded.
    before: (u64, u64),
    failed_checkpoints: u64,
}

impl Run {
    fn begin(plan: Plan) -> anyhow::Result<Self> {
        let (config, scans) = (&plan.config, &plan.dataset.scans);
        let mut machine = Machine::new(config, scans, plan.hello.shape)?;
        let manifest_json = serde_json::to_string(&plan.dataset.manifest(RULES_VERSION))?;
        let folder = plan.folder.checkpoints();
        if plan.resume
            && let Some(found) = load_newest(&folder)?
        {
            machine.restore(&found.checkpoint, &manifest_json)?;
            let (updates, file) = (machine.trainer.updates(), found.path.display());
            tracing::info!(updates, %file, "resumed in lockstep");
        }
        let now = Instant::now();
        Ok(Self {
            checkpoints: CheckpointFolder::new(&folder, config.checkpoint.keep),
            manifest_json,
            recorder: Recorder::open(plan.folder.path())?,
            display: Display::new(config.learner.updates),
            last: StepReport::default(),
            began: now,
            recorded: now,
            shown: now,
            before: (machine.trainer.updates(), machine.counts.env_steps),
            failed_checkpoints: 0,
            machine,
            plan,
        })
    }

    /// Turn after turn; whether somebody interrupted it.
    fn until(&mut self, stop: &AtomicBool) -> anyhow::Result<bool> {
        let config = Arc::clone(&self.plan.config);
        let l = &config.learner;
        let limit = (l.max_minutes > 0.0).then(|| Duration::from_secs_f64(l.max_minutes * 60.0));
        // A run that was killed while it validated went on from the checkpoint before that.
        self.validate_if_due(&config)?;
        while self.machine.trainer.updates() < l.updates {
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            if limit.is_some_and(|limit| self.began.elapsed() >= limit)
                || (1..=self.machine.counts.episodes).contains(&l.max_episodes)
            {
                let updates = self.machine.trainer.updates();
                tracing::info!(updates, "the limit of minutes or episodes is reached");
                return Ok(false);
            }
            if let Turn::Learned(report) = self.machine.turn()? {
                self.last = report;
                self.learned(&config)?;
            }
            self.look();
        }
        Ok(false)
    }

    fn learned(&mut self, config: &Config) -> anyhow::Result<()> {
        let updates = self.machine.trainer.updates();
        if updates.is_multiple_of(config.checkpoint.every) {
            // Training goes on without it; the folder counts and complains.
            self.save()?;
        }
        self.validate_if_due(config)
    }

    fn validate_if_due(&mut self, config: &Config) -> anyhow::Result<()> {
        let updates = self.machine.trainer.updates();
        let every = config.validation.every;
        if every > 0 && updates > 0 && updates.is_multiple_of(every) {
            self.validate(updates)?;
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<Option<PathBuf>> {
        let run_id = &self.plan.hello.run_id;
        let checkpoint = self.machine.checkpoint(run_id, &self.manifest_json)?;
        let saved = self.checkpoints.save(&checkpoint);
        self.failed_checkpoints = self.checkpoints.failures();
        Ok(saved)
    }

    /// Evaluates the present weights, unless a run before this one has.
    fn validate(&mut self, updates: u64) -> anyhow::Result<()> {
        let version = self.machine.counts.weights_version;
        if let Some(validator) = &mut self.plan.validator
            && validator.last_updates().is_none_or(|last| last < updates)
        {
            let bytes = self.machine.trainer.weights_bytes(version)?;
            validator.validate(&Published::at(0, version, updates, bytes))?;
        }
        Ok(())
    }

    fn look(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.shown) >= LOOK_EVERY {
            self.shown = now;
            let moment = self.moment();
            self.display.show(now, &moment);
        }
        let since = now.duration_since(self.recorded);
        if since >= RECORD_EVERY {
            let progress = self.progress(since);
            self.recorder.record(&progress);
            self.recorded = now;
            self.before = (progress.train.updates, progress.actors.env_steps);
        }
    }

    fn moment(&self) -> Moment {
        let (counts, updates) = (&self.machine.counts, self.machine.trainer.updates());
        Moment {
            updates,
            updates_total: self.plan.config.learner.updates,
            env_steps: counts.env_steps,
            samples_per_insert: ratio(counts.sampled, counts.inserted),
            loss: (updates > 0).then_some(self.last.loss),
            validation_mm: self.plan.validator.as_ref().and_then(Validator::errors_mm),
            waiting: (updates == 0).then(|| {
                let min = self.plan.config.replay.min_rows;
                format!("{} of {min} rows", counts.inserted)
            }),
        }
    }

    fn progress(&self, since: Duration) -> Progress {
        let (counts, updates) = (&self.machine.counts, self.machine.trainer.updates());
        let config = &self.plan.config;
        let per_s = |new: u64, old: u64| {
            #[expect(clippy::cast_precision_loss, reason = "counts within seconds")]
            let more = new.saturating_sub(old) as f64;
            more / since.as_secs_f64().max(1e-3)
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of episodes")]
        let error = (counts.errors > 0).then(|| counts.error_sum / counts.errors as f64);
        Progress {
            updates_total: config.learner.updates,
            elapsed_s: self.began.elapsed().as_secs_f64(),
            resident_bytes: resident_bytes(),
            train: TrainStats {
                updates,
                loss: self.last.loss,
                td_mean: self.last.td_mean(),
                q_mean: self.last.q_mean,
                grad_norm: self.last.grad_norm,
                lr: self.last.lr,
                beta: schedule::beta(&config.replay, updates, config.learner.updates),
                weights_version: counts.weights_version,
                failed_checkpoints: self.failed_checkpoints,
                ..TrainStats::default()
            },
            actors: ActorTotals {
                env_steps: counts.env_steps,
                episodes: counts.episodes,
                episode_error: error,
                ..ActorTotals::default()
            },
            rows: RowTotals {
                rows: self.machine.rows(),
                inserted: counts.inserted,
                sampled: counts.sampled,
                samples_per_insert: ratio(counts.sampled, counts.inserted),
                limiter: "lockstep".to_owned(),
                ..RowTotals::default()
            },
            pace: Pace {
                updates_per_s: per_s(updates, self.before.0),
                env_steps_per_s: per_s(counts.env_steps, self.before.1),
                ..Pace::default()
            },
            ..Progress::default()
        }
    }

    fn finish(mut self, interrupted: bool) -> anyhow::Result<Ended> {
        self.display.finish();
        let mut last = self.progress(self.recorded.elapsed());
        last.over = true;
        self.recorder.record(&last);
        let folder = self.plan.folder.checkpoints();
        self.save()?.with_context(|| {
            let folder = folder.display();
            format!("the final checkpoint could not be written to {folder}; the log says why")
        })?;
        let version = self.machine.counts.weights_version;
        let file = folder.join("final.safetensors");
        write_atomic(&file, &self.machine.trainer.weights_bytes(version)?)?;
        if !interrupted {
            self.validate(last.train.updates)?;
        }
        let best = folder.join("best.safetensors");
        let validator = self.plan.validator.as_ref();
        Ok(Ended {
            updates: last.train.updates,
            interrupted,
            validation_mm: validator.and_then(Validator::errors_mm),
            constant_guess_mm: validator.and_then(Validator::constant_guess_mm),
            weights: Some(best).filter(|b| b.is_file()).or(Some(file)),
        })
    }
}

fn ratio(sampled: u64, inserted: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = sampled as f64 / inserted.max(1) as f64;
    ratio
}
