//! `landmarl train --lockstep`: the same training on one thread, step by step.
//! A resumed run is bit-identical to an uninterrupted one.

mod machine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use actor::evaluation::validate::Validator;
use anyhow::Context as _;
use common::config::{Config, Precision};
use common::environment::rules::RULES_VERSION;
use common::imaging::manifest::TrainingManifest;
use common::run::run_folder::Endpoints;
use common::run::telemetry::{InProcess, service_span};
use learner::Progress;
use learner::actors::evaluations::{Evaluations, warn_of_training_scans};
use learner::actors::registry::ActorTotals;
use learner::checkpoint::folder::{CheckpointFolder, Resume, write_final};
use learner::replay::limiter::RowTotals;
use learner::report::rates::Rates;
use learner::report::recorder::Recorder;
use learner::training::stats::TrainStats;
use learner::training::stop::StopRules;
use model::DeviceChoice;
use proto::messages::status::Evaluation;
use proto::messages::weights::Published;

use super::cluster::{Ended, note_stopping};
use super::display::{Display, Moment, waiting};
use super::plan::Plan;
use crate::output::failure::{Advice, Exit};
use machine::{Machine, Turn};

const DISPLAY_INTERVAL: Duration = Duration::from_millis(500);
const RECORD_INTERVAL: Duration = Duration::from_secs(5);

/// Adjusts or refuses settings with a different meaning, or none, in lockstep.
pub fn settle(config: &mut Config) -> Result<(), Advice> {
    let refuse = |key: &str, why: &str| {
        let message = format!("config key \"{key}\": {why}");
        let hint = "omit --lockstep to use GPUs or several devices";
        Err(Advice::new(Exit::Config, message).hint(hint))
    };
    let l = &mut config.learner;
    if let Ok(DeviceChoice::Cuda(_)) = l.device.parse::<DeviceChoice>() {
        return refuse("learner.device", "lockstep supports only the CPU");
    }
    if !l.devices.is_empty() {
        return refuse(
            "learner.devices",
            "lockstep runs on the CPU alone; leave this empty",
        );
    }
    // The machine's number of threads would give different bits on another machine.
    l.threads = l.threads.max(1);
    l.device = "cpu".to_owned();
    l.precision = Precision::F32;
    Ok(())
}

/// Trains until a limit is reached or a signal arrives.
pub fn train(plan: Plan) -> anyhow::Result<Ended> {
    let _learner = service_span(InProcess::Learner).entered();
    let stop = stop_flag()?;
    model::device::set_threads(1);
    let endpoints = Endpoints::of_this_process(SystemTime::now());
    let announced = plan.run.folder.announce(endpoints);
    let _announced = announced.inspect_err(|error| {
        tracing::warn!(%error, "`landmarl status` will not find this run; training continues");
    });
    let mut run = Run::begin(plan)?;
    let interrupted = run.until(&stop)?;
    run.finish(interrupted)
}

/// A flag set by the signals that stop a process in order; a second one ends it at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let runtime = crate::commands::checkpoint::runtime()?;
    let body = move || {
        runtime.block_on(async move {
            proto::transport::entry::shutdown_signal().await;
            stopped.store(true, Ordering::Relaxed);
            note_stopping();
            std::future::pending::<()>().await;
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(body)
        .context("start the thread for signals")?;
    Ok(stop)
}

struct Run {
    plan: Plan,
    machine: Machine,
    checkpoints: CheckpointFolder,
    manifest_json: String,
    validator: Option<Validator>,
    evaluations: Evaluations,
    recorder: Recorder,
    display: Display,
    stats: TrainStats,
    rates: Rates,
    rules: StopRules,
    began: Instant,
    recorded: Instant,
    shown: Instant,
}

impl Run {
    fn begin(plan: Plan) -> anyhow::Result<Self> {
        let run = &plan.run;
        let (config, folder) = (&run.config, &run.folder);
        let mut machine = Machine::new(config, &run.dataset.scans, run.hello.shape)?;
        let manifest_json = serde_json::to_string(&run.manifest)?;
        let checkpoints = CheckpointFolder::new(&folder.checkpoints(), config.checkpoint.keep);
        if let Some(found) = run.resume.find(&folder.checkpoints())? {
            machine.restore(&found.checkpoint, &manifest_json)?;
            let (updates, file) = (machine.trainer.updates(), found.path.display());
            tracing::info!(updates, %file, "resumed in lockstep");
            if matches!(run.resume, Resume::Named(_)) {
                checkpoints.go_on_from(updates);
            }
        }
        let (now, rules) = (Instant::now(), StopRules::new(&config.learner));
        let stats = TrainStats {
            updates: machine.trainer.updates(),
            ..TrainStats::default()
        };
        let mut begin = Progress::of_training(&stats, &rules, now);
        begin.actors.env_steps = machine.counts.env_steps;
        Ok(Self {
            checkpoints,
            validator: validator(&plan)?,
            evaluations: Evaluations::new(folder.path(), run.manifest.clone()),
            manifest_json,
            recorder: Recorder::open(folder.path())?,
            display: Display::new(config.learner.updates),
            rates: Rates::new(now, &begin, 1),
            stats,
            rules,
            began: now,
            recorded: now,
            shown: now,
            machine,
            plan,
        })
    }

    /// Runs turn after turn; returns true if the user interrupted it.
    fn until(&mut self, stop: &AtomicBool) -> anyhow::Result<bool> {
        // A run killed during validation resumed from the checkpoint before that validation.
        self.validate_if_due()?;
        loop {
            let (updates, episodes) = (self.stats.updates, self.machine.counts.episodes);
            if let Some(reason) = self.rules.reached(updates, episodes, self.stats.trained()) {
                tracing::info!(updates, episodes, "{reason}");
                return Ok(false);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            let begin = Instant::now();
            if let Turn::Learned(report) = self.machine.turn()? {
                self.stats.first_update.get_or_insert(begin);
                let updates = self.machine.trainer.updates();
                self.stats.updated(updates, &report, &self.plan.run.config);
                self.learned()?;
            }
            self.look();
        }
    }

    fn learned(&mut self) -> anyhow::Result<()> {
        let every = self.plan.run.config.checkpoint.period;
        if self.stats.updates.is_multiple_of(every) {
            // Training continues after a failure; the checkpoint folder counts and logs it.
            self.save()?;
        }
        self.validate_if_due()
    }

    fn validate_if_due(&mut self) -> anyhow::Result<()> {
        let every = self.plan.run.config.validation.period;
        if every > 0 && self.stats.updates.is_multiple_of(every) {
            self.validate()?;
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<Option<PathBuf>> {
        let run_id = &self.plan.run.hello.run_id;
        let checkpoint = self.machine.checkpoint(run_id, &self.manifest_json)?;
        let saved = self.checkpoints.save(&checkpoint);
        self.stats.failed_checkpoints = self.checkpoints.failures();
        Ok(saved)
    }

    /// Evaluates the current weights, unless an earlier process has.
    fn validate(&mut self) -> anyhow::Result<()> {
        let (version, updates) = (self.machine.counts.weights_version, self.stats.updates);
        let done = self
            .evaluations
            .last()
            .is_some_and(|last| last.updates >= updates);
        let Some(validator) = self.validator.as_mut().filter(|_| !done) else {
            return Ok(());
        };
        let bytes = self.machine.trainer.weights_bytes(version)?;
        let weights = Published::at(0, version, updates, bytes);
        let evaluator = service_span(InProcess::Evaluator);
        let validation = evaluator.in_scope(|| validator.validate(&weights))?;
        let line = serde_json::to_vec(&validation)?;
        let kept = (&validation).into();
        let kept = self.evaluations.keep(kept, &line, &weights.bytes);
        if let Err(error) = kept {
            tracing::error!(%error, updates, "cannot store an evaluation; training continues");
        }
        Ok(())
    }

    fn look(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.shown) >= DISPLAY_INTERVAL {
            self.shown = now;
            let progress = self.progress(now);
            let min = self.plan.run.config.replay.min_rows;
            let waiting = waiting(&progress, min);
            let moment = Moment {
                progress,
                validation_mm: errors_mm(&self.evaluations),
                waiting,
            };
            self.display.show(now, &moment);
        }
        if now.duration_since(self.recorded) >= RECORD_INTERVAL {
            self.recorded = now;
            let progress = self.progress(now);
            self.recorder.record(&progress);
        }
    }

    fn progress(&mut self, now: Instant) -> Progress {
        let counts = &self.machine.counts;
        let (inserted, sampled) = (counts.inserted, counts.sampled);
        #[expect(clippy::cast_precision_loss, reason = "a count of episodes")]
        let error = (counts.errors > 0).then(|| counts.error_sum / counts.errors as f64);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let samples_per_insert = sampled as f64 / inserted.max(1) as f64;
        self.stats.weights_version = counts.weights_version;
        let mut progress = Progress {
            actors: ActorTotals {
                env_steps: counts.env_steps,
                episodes: counts.episodes,
                episode_error: error,
                ..ActorTotals::default()
            },
            rows: RowTotals {
                rows: self.machine.rows(),
                inserted,
                sampled,
                samples_per_insert,
                limiter: "lockstep".to_owned(),
                ..RowTotals::default()
            },
            ..Progress::of_training(&self.stats, &self.rules, self.began)
        };
        progress.complete(now, &mut self.rates, &self.rules);
        progress
    }

    fn finish(mut self, interrupted: bool) -> anyhow::Result<Ended> {
        self.display.finish();
        let mut last = self.progress(Instant::now());
        last.over = true;
        self.recorder.record(&last);
        let folder = self.plan.run.folder.clone();
        let checkpoints = folder.checkpoints();
        let saved = self.save()?;
        let version = self.machine.counts.weights_version;
        let bytes = self.machine.trainer.weights_bytes(version)?;
        // Smaller: it may fit on a disk that has no space for the checkpoint.
        let weights = write_final(&checkpoints, &bytes, &self.plan.run.manifest);
        saved.with_context(|| {
            let why = self.checkpoints.why();
            format!("the final checkpoint was not saved: {why}")
        })?;
        let weights = weights?;
        if !interrupted {
            self.validate()?;
        }
        Ok(Ended::new(
            (last.train.updates, interrupted),
            (self.evaluations.best(), self.evaluations.last()),
            &folder,
            weights,
        ))
    }
}

/// The evaluator of the run's weights, if there are validation scans.
fn validator(plan: &Plan) -> anyhow::Result<Option<Validator>> {
    if plan.validation.is_empty() {
        return Ok(None);
    }
    let scans = plan.validation.iter().map(AsRef::as_ref);
    let manifest = TrainingManifest::new(scans, RULES_VERSION);
    warn_of_training_scans(&plan.run.manifest, &manifest);
    let config = &plan.run.config;
    let device = &config.learner.device;
    let mut validator = Validator::new(Arc::clone(config), plan.validation.clone(), device)?;
    validator.set_baseline(plan.run.baseline.clone());
    Ok(Some(validator))
}

fn errors_mm(evaluations: &Evaluations) -> Option<(f64, f64)> {
    let mm = |e: Option<Evaluation>| e.map(|e| e.mean_error_mm);
    mm(evaluations.best()).zip(mm(evaluations.last()))
}
