//! Measures the progress every second, and writes a line of metrics to the
//! run folder every few seconds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tracing::Instrument as _;

use crate::batch::collate::CollateCounts;
use crate::error::LearnerError;
use crate::replay::priorities::PriorityCounts;
use crate::replay::watchdog::StallWatchdog;
use crate::report::progress::Progress;
use crate::report::rates::Rates;
use crate::report::recorder::Recorder;
use crate::shared::Shared;
use crate::training::stats::TrainStats;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A line of metrics is written every this many progress reports.
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
    watchdog: StallWatchdog,
    began: Instant,
    rates: Rates,
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
            rates: Rates::new(now, &begin, prefetch),
            watchdog: StallWatchdog::new(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sources.report_until(stopped).in_current_span());
        Ok(Self { stop, task })
    }

    /// Writes the last report, marked as over.
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
            trained: shared.over.load(Relaxed),
            collate: self.collate.totals(),
            priorities: self.priorities.totals(),
            actors,
            rows: shared.replay.with_limiter(|l| l.totals()),
            shards: shared.replay.totals(),
            ..Progress::of_training(&train, &shared.stop_rules, self.began)
        };
        progress.complete(Instant::now(), &mut self.rates, &shared.stop_rules);
        self.warn(&progress);
        progress
    }

    /// Warns of a stall, with the limiter's numbers.
    fn warn(&mut self, progress: &Progress) {
        let rows = &progress.rows;
        let elapsed = self.began.elapsed();
        let stalled = self.watchdog.see(rows.inserted, rows.sampled, elapsed);
        if let Some(stalled) = stalled.filter(|&stalled| may_be_stuck(progress, stalled)) {
            tracing::warn!(
                seconds = stalled.as_secs(),
                inserted = rows.inserted,
                sampled = rows.sampled,
                rows = rows.rows,
                actors_alive = progress.actors.actors_alive,
                shards_alive = progress.shards.shards_alive,
                limiter = rows.limiter,
                "no row was inserted or sampled: check the actors if sampling waits, \
                 the shards (`replay-server status`) if inserting waits; if neither waits, \
                 the learner's own threads or its device hang"
            );
        }
    }
}

/// Longest time that one update is expected to take.
const SLOW_UPDATE: Duration = Duration::from_secs(600);

/// Whether rows that do not move mean trouble. Where they could be sampled from all shards, the
/// learner probably computes an update that takes long, and actors wait for it; and nothing
/// moves while the last weights are evaluated.
fn may_be_stuck(p: &Progress, stalled: Duration) -> bool {
    let (sampling_blocked, _) = p.rows.blocked;
    let shard_lost = p.shards.shards_alive < p.shards.shards;
    !p.trained && (sampling_blocked || shard_lost || stalled >= SLOW_UPDATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_updates_and_the_last_evaluation_are_no_stall() {
        let mut p = Progress::default();
        (p.shards.shards, p.shards.shards_alive) = (2, 2);
        p.rows.blocked = (false, true);
        let minute = Duration::from_secs(60);
        assert!(!may_be_stuck(&p, minute), "actors wait for a slow update");
        assert!(may_be_stuck(&p, 10 * minute), "a thread hangs");
        p.rows.blocked = (true, false);
        assert!(may_be_stuck(&p, minute), "no actor inserts");
        p.trained = true;
        assert!(!may_be_stuck(&p, 10 * minute), "the run is over");
        (p.trained, p.rows.blocked) = (false, (false, false));
        p.shards.shards_alive = 1;
        assert!(may_be_stuck(&p, minute), "a shard is lost");
    }
}
