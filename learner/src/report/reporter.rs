//! Measures the progress once a second, and writes a line of metrics into the
//! run folder every few seconds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::run::machine::resident_bytes;
use tokio::sync::{oneshot, watch};

use crate::batch::collate::CollateCounts;
use crate::error::LearnerError;
use crate::replay::priorities::PriorityCounts;
use crate::replay::watchdog::Standstill;
use crate::report::progress::{Pace, Progress};
use crate::report::recorder::Recorder;
use crate::shared::Shared;
use crate::training::thread::TrainStats;

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

struct Sources {
    progress: watch::Sender<Progress>,
    shared: Arc<Shared>,
    priorities: Arc<PriorityCounts>,
    collate: Arc<CollateCounts>,
    train: watch::Receiver<TrainStats>,
    recorder: Recorder,
    standstill: Standstill,
    began: Instant,
    /// The last reports, oldest first: heartbeats come every few seconds, so
    /// rates are taken over several.
    last: VecDeque<Mark>,
    /// Requests for batches at a time.
    prefetch: usize,
}

/// What rates are taken of.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    updates: u64,
    env_steps: u64,
    train_wait_s: f64,
    limited_s: f64,
    collate_busy_s: f64,
}

impl Mark {
    fn of(at: Instant, p: &Progress) -> Self {
        Self {
            at,
            updates: p.train.updates,
            env_steps: p.actors.env_steps,
            train_wait_s: p.train.train_wait_s,
            limited_s: p.train.limited_s,
            collate_busy_s: p.collate.collate_busy_s,
        }
    }
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
        prefetch: usize,
    ) -> Result<Self, LearnerError> {
        let recorder = Recorder::open(run_dir)?;
        let now = Instant::now();
        let begin = Progress {
            train: train.borrow().clone(),
            ..Progress::default()
        };
        let sources = Sources {
            progress,
            shared: Arc::clone(shared),
            priorities,
            collate,
            train,
            recorder,
            began: now,
            last: VecDeque::from([Mark::of(now, &begin)]),
            prefetch,
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
        loop {
            let over = tokio::select! {
                _ = &mut stopped => true,
                () = tokio::time::sleep(PROGRESS_EVERY) => false,
            };
            let mut progress = self.measure();
            progress.over = over;
            ticks += 1;
            if over || ticks.is_multiple_of(METRICS_EVERY) {
                self.recorder.record(&progress);
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
        let actors = {
            let mut registry = shared.registry();
            let expected = shared.expected(&registry);
            registry.totals(expected)
        };
        shared.episodes.store(actors.episodes, Relaxed);
        let mut progress = Progress {
            updates_total: shared.updates_total,
            elapsed_s: self.began.elapsed().as_secs_f64(),
            training_s: train.first_update.map(|at| at.elapsed().as_secs_f64()),
            resident_bytes: resident_bytes(),
            over: false,
            train,
            collate: self.collate.totals(),
            priorities: self.priorities.totals(),
            actors,
            rows: shared.store.with_ledger(|l| l.totals()),
            shards: shared.store.totals(),
            pace: Pace::default(),
        };
        self.rates(&mut progress);
        self.warn(&progress);
        progress
    }

    /// Warns of rows that neither arrive nor leave, with the limiter's numbers.
    fn warn(&mut self, progress: &Progress) {
        let rows = &progress.rows;
        let elapsed = self.began.elapsed();
        if let Some(stood) = self.standstill.see(rows.inserted, rows.sampled, elapsed) {
            tracing::warn!(
                seconds = stood.as_secs(),
                inserted = rows.inserted,
                sampled = rows.sampled,
                rows = rows.rows,
                actors_alive = progress.actors.actors_alive,
                shards_alive = progress.shards.shards_alive,
                limiter = rows.limiter,
                "no row was inserted or sampled: look at the actors if sampling waits, \
                 at the shards' status (`replay-server status`) if inserting does"
            );
        }
    }

    fn rates(&mut self, progress: &mut Progress) {
        let now = Mark::of(Instant::now(), progress);
        if let Some(then) = self.last.front() {
            let seconds = now.at.duration_since(then.at).as_secs_f64().max(1e-3);
            #[expect(clippy::cast_precision_loss, reason = "counts within seconds")]
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            let pace = &mut progress.pace;
            pace.updates_per_s = rate(now.updates, then.updates);
            pace.env_steps_per_s = rate(now.env_steps, then.env_steps);
            let share = |new: f64, old: f64| ((new - old) / seconds).clamp(0.0, 1.0);
            pace.train_wait_share = share(now.train_wait_s, then.train_wait_s);
            pace.collate_share = share(now.collate_busy_s, then.collate_busy_s);
            #[expect(clippy::cast_precision_loss, reason = "a few requests")]
            let requests = self.prefetch.max(1) as f64;
            pace.limited_share = share(now.limited_s / requests, then.limited_s / requests);
        }
        self.last.push_back(now);
        if self.last.len() > RATE_REPORTS {
            self.last.pop_front();
        }
    }
}
