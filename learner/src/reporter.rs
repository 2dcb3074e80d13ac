//! Progress once a second for whoever watches, and a line of metrics every few
//! seconds for the run folder.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use common::run_folder::rfc3339;
use common::tensorboard::EventFile;
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::collate::CollateCounts;
use crate::priorities::PriorityCounts;
use crate::progress::{Progress, resident_bytes};
use crate::run::LearnerError;
use crate::service::Shared;
use crate::standstill::Standstill;
use crate::train_thread::TrainStats;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Rates are taken over this many reports.
const RATE_REPORTS: usize = 15;
/// Every how many progress reports a line of metrics is written.
const METRICS_EVERY: u32 = 5;

/// The reporting task.
#[derive(Debug)]
pub struct Reporter {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Progress>,
}

/// A line of metrics.jsonl.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    progress: &'a Progress,
}

struct Sources {
    progress: watch::Sender<Progress>,
    shared: Arc<Shared>,
    priorities: Arc<PriorityCounts>,
    collate: Arc<CollateCounts>,
    train: watch::Receiver<TrainStats>,
    metrics: File,
    /// `None` once it takes no more.
    events: Option<EventFile>,
    standstill: Standstill,
    began: Instant,
    /// (when, updates, environment steps) of the last reports, oldest first:
    /// heartbeats come every few seconds, so rates are taken over several.
    last: VecDeque<(Instant, u64, u64)>,
}

impl Reporter {
    /// Opens `metrics.jsonl` and starts reporting.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(
        run_dir: &Path,
        progress: watch::Sender<Progress>,
        shared: &Arc<Shared>,
        (priorities, collate): (Arc<PriorityCounts>, Arc<CollateCounts>),
        train: watch::Receiver<TrainStats>,
    ) -> Result<Self, LearnerError> {
        let path: PathBuf = run_dir.join("metrics.jsonl");
        let metrics = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| LearnerError::Metrics { path, source })?;
        // Curves are a convenience: a run does without them.
        let events = EventFile::create(run_dir, "learner", SystemTime::now());
        if let Err(error) = &events {
            tracing::warn!(%error, "no event file for TensorBoard; training goes on");
        }
        let now = Instant::now();
        let updates = train.borrow().updates;
        let sources = Sources {
            progress,
            shared: Arc::clone(shared),
            priorities,
            collate,
            train,
            metrics,
            events: events.ok(),
            began: now,
            last: VecDeque::from([(now, updates, 0)]),
            standstill: Standstill::new(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sources.report_until(stopped));
        Ok(Self { stop, task })
    }

    /// The last report, marked as over and written.
    pub async fn finish(self) -> Progress {
        let _ = self.stop.send(());
        self.task.await.unwrap_or_default()
    }
}

impl Sources {
    async fn report_until(mut self, mut stopped: oneshot::Receiver<()>) -> Progress {
        let mut ticks = 0_u32;
        let mut written = true;
        loop {
            let over = tokio::select! {
                _ = &mut stopped => true,
                () = tokio::time::sleep(PROGRESS_EVERY) => false,
            };
            let mut progress = self.measure();
            progress.over = over;
            ticks += 1;
            if (over || ticks.is_multiple_of(METRICS_EVERY)) && written {
                written = self.write(&progress);
                self.draw(&progress);
            }
            self.progress.send_replace(progress.clone());
            if over {
                return progress;
            }
        }
    }

    fn measure(&mut self) -> Progress {
        let train = self.train.borrow().clone();
        let shared = &self.shared;
        let mut progress = Progress {
            updates: train.updates,
            updates_total: shared.updates_total,
            elapsed_s: self.began.elapsed().as_secs_f64(),
            loss: train.loss,
            td_mean: train.td_mean,
            q_mean: train.q_mean,
            grad_norm: train.grad_norm,
            lr: train.lr,
            beta: train.beta,
            train_wait_s: train.wait_s,
            limited_s: train.limited_s,
            failed_checkpoints: train.failed_checkpoints,
            weights_version: train.weights_version,
            shards_alive: shared.store.alive(),
            shards: shared.store.shards(),
            collate_busy_s: Duration::from_micros(self.collate.busy_us.load(Relaxed)).as_secs_f64(),
            refused_rows: self.collate.refused_rows.load(Relaxed),
            stale_priorities: self.priorities.stale.load(Relaxed),
            dropped_priorities: self.priorities.dropped.load(Relaxed),
            resident_bytes: resident_bytes(),
            ..Progress::default()
        };
        {
            let mut registry = shared.registry();
            progress.actors_alive = registry.alive();
            progress.env_steps = registry.env_steps();
            progress.episodes = registry.episodes();
            shared.episodes.store(progress.episodes, Relaxed);
            progress.dropped_rows = registry.rows_dropped();
            let before = self.progress.borrow().episode_error;
            progress.episode_error = registry.take_episode_error().or(before);
        }
        shared.store.with_ledger(|l| {
            progress.rows = l.rows();
            progress.inserted = l.inserted();
            progress.sampled = l.sampled();
            progress.samples_per_insert = l.samples_per_insert();
            progress.limiter = l.why_blocked().unwrap_or_else(|| "open".into());
        });
        self.rates(&mut progress);
        self.warn(&progress);
        progress
    }

    /// Rows that neither come nor go are told with the limiter's numbers.
    fn warn(&mut self, progress: &Progress) {
        let (inserted, sampled) = (progress.inserted, progress.sampled);
        if let Some(stood) = self.standstill.see(inserted, sampled, self.began.elapsed()) {
            tracing::warn!(
                seconds = stood.as_secs(),
                inserted,
                sampled,
                rows = progress.rows,
                actors_alive = progress.actors_alive,
                shards_alive = progress.shards_alive,
                limiter = progress.limiter,
                "no row was inserted or sampled: look at the actors if sampling waits, \
                 at the shards' status (`replay-server status`) if inserting does"
            );
        }
    }

    fn rates(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        if let Some((then, updates, env_steps)) = self.last.front() {
            let seconds = now.duration_since(*then).as_secs_f64().max(1e-3);
            #[expect(clippy::cast_precision_loss, reason = "counts within seconds")]
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            progress.updates_per_s = rate(progress.updates, *updates);
            progress.env_steps_per_s = rate(progress.env_steps, *env_steps);
        }
        self.last
            .push_back((now, progress.updates, progress.env_steps));
        if self.last.len() > RATE_REPORTS {
            self.last.pop_front();
        }
    }

    /// A point on each of TensorBoard's curves.
    fn draw(&mut self, progress: &Progress) {
        let Some(events) = &mut self.events else {
            return;
        };
        let drawn = events.scalars(progress.updates, SystemTime::now(), &curves(progress));
        if let Err(error) = drawn {
            tracing::warn!(%error, "TensorBoard's event file takes no more; training goes on");
            self.events = None;
        }
    }

    /// False when the file takes no more; training does not depend on it.
    fn write(&mut self, progress: &Progress) -> bool {
        let time = rfc3339(SystemTime::now());
        let line = match serde_json::to_string(&Line { time, progress }) {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!(%error, "metrics cannot be written as JSON");
                return false;
            }
        };
        let written = writeln!(self.metrics, "{line}");
        if let Err(error) = &written {
            tracing::error!(%error, "metrics.jsonl takes no more lines; training goes on");
        }
        written.is_ok()
    }
}

/// What TensorBoard shows of a report; docs/metrics.md says what each means.
fn curves(p: &Progress) -> Vec<(&'static str, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "counts shown on a curve")]
    let count = |n: u64| n as f64;
    let mut all = vec![
        ("train/loss", p.loss),
        ("train/td_mean", p.td_mean),
        ("train/q_mean", p.q_mean),
        ("train/grad_norm", p.grad_norm),
        ("train/lr", p.lr),
        ("rate/updates_per_s", p.updates_per_s),
        ("rate/env_steps_per_s", p.env_steps_per_s),
        ("replay/rows", count(p.rows)),
        ("replay/samples_per_insert", p.samples_per_insert),
        ("system/resident_bytes", count(p.resident_bytes)),
    ];
    all.extend(p.episode_error.map(|error| ("train/episode_error", error)));
    all
}
