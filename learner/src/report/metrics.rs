//! A learner's numbers for Prometheus; docs/metrics.md says what each means.

use proto::transport::metrics::{Page, Source, Unit, number};
use tokio::sync::watch;

use crate::report::progress::Progress;

/// Tells the newest progress of a run.
#[derive(Debug)]
pub struct LearnerMetrics {
    progress: watch::Receiver<Progress>,
}

impl LearnerMetrics {
    /// Of the learner that reports to the other end of `progress`.
    #[must_use]
    pub fn new(progress: watch::Receiver<Progress>) -> Self {
        Self { progress }
    }
}

impl Source for LearnerMetrics {
    fn tell(&self, page: &mut Page) {
        let progress = self.progress.borrow().clone();
        training(page, &progress);
        acting(page, &progress);
        replay(page, &progress);
        waits(page, &progress);
    }
}

fn training(page: &mut Page, p: &Progress) {
    page.counter(
        "landmarl_learner_updates",
        "Updates done, those before a resume included",
        number(p.updates),
    );
    page.gauge(
        "landmarl_learner_updates_goal",
        "Updates to do",
        number(p.updates_total),
    );
    page.gauge("landmarl_learner_loss", "Loss of the last update", p.loss);
    page.gauge(
        "landmarl_learner_td_error_mean",
        "Mean TD error of the rows of the last batch",
        p.td_mean,
    );
    page.gauge(
        "landmarl_learner_q_mean",
        "Mean Q-value of the actions of the last batch",
        p.q_mean,
    );
    page.gauge(
        "landmarl_learner_gradient_norm",
        "Norm of all gradients before clipping",
        p.grad_norm,
    );
    page.gauge(
        "landmarl_learner_learning_rate",
        "Learning rate of the last update",
        p.lr,
    );
    page.gauge(
        "landmarl_learner_importance_exponent",
        "Exponent of the importance weights",
        p.beta,
    );
    page.gauge(
        "landmarl_learner_weights_version",
        "Version of the newest weights",
        number(p.weights_version),
    );
    page.counter(
        "landmarl_learner_checkpoints_failed",
        "Checkpoints that could not be written",
        number(p.failed_checkpoints),
    );
    page.gauge(
        "landmarl_learner_run_over",
        "1 once the run is over",
        flag(p.over),
    );
}

fn acting(page: &mut Page, p: &Progress) {
    page.gauges(
        "landmarl_learner_actors",
        "Actors by state",
        "state",
        &[
            ("joined", number(p.actors_alive as u64)),
            ("lost", number(p.actors_lost as u64)),
        ],
    );
    page.gauge(
        "landmarl_learner_actors_expected",
        "Actors that there should be",
        number(p.actors_expected as u64),
    );
    page.counter(
        "landmarl_learner_env_steps",
        "Environment steps of all actors and lives",
        number(p.env_steps),
    );
    page.counter(
        "landmarl_learner_episodes",
        "Walks that ended, of all actors and lives",
        number(p.episodes),
    );
    if let Some(error) = p.episode_error {
        page.gauge(
            "landmarl_learner_episode_error_finest_steps",
            "Mean distance of answer and landmark of the training walks that ended lately",
            error,
        );
    }
}

fn replay(page: &mut Page, p: &Progress) {
    page.gauge(
        "landmarl_learner_shards_expected",
        "Shards of the run",
        number(p.shards as u64),
    );
    for (shard, up) in p.shards_up.iter().enumerate() {
        page.labelled("shard", &shard.to_string(), |page| {
            page.gauge(
                "landmarl_learner_shard_up",
                "1 while the shard answers the learner",
                flag(*up),
            );
        });
    }
    page.gauge(
        "landmarl_learner_rows",
        "Rows in the living shards",
        number(p.rows),
    );
    page.counter(
        "landmarl_learner_rows_inserted",
        "Rows into all shards",
        number(p.inserted),
    );
    page.counter(
        "landmarl_learner_rows_sampled",
        "Rows out of all shards",
        number(p.sampled),
    );
    page.gauge(
        "landmarl_learner_samples_per_insert",
        "Rows sampled per row inserted so far",
        p.samples_per_insert,
    );
    let (sampling, inserting) = p.blocked;
    page.gauges(
        "landmarl_learner_limiter_blocked",
        "1 while the limiter, or missing rows, hold a side back",
        "side",
        &[("sampling", flag(sampling)), ("inserting", flag(inserting))],
    );
    page.counters(
        "landmarl_learner_priorities",
        "New priorities of rows, by what became of them",
        "outcome",
        &[
            ("applied", number(p.applied_priorities)),
            ("stale", number(p.stale_priorities)),
            ("dropped", number(p.dropped_priorities)),
        ],
    );
    page.counter(
        "landmarl_learner_rows_refused",
        "Rows that no actor of this run can have made",
        number(p.refused_rows),
    );
    page.counter(
        "landmarl_learner_rows_dropped",
        "Rows that actors gave up because a shard was away",
        number(p.dropped_rows),
    );
}

fn waits(page: &mut Page, p: &Progress) {
    page.counter_in(
        Unit::Seconds,
        "landmarl_learner_train_wait",
        "Time that the train thread waited for batches",
        p.train_wait_s,
    );
    page.counter_in(
        Unit::Seconds,
        "landmarl_learner_limited",
        "Time that the limiter held batches back, summed over batches",
        p.limited_s,
    );
    page.counter_in(
        Unit::Seconds,
        "landmarl_learner_collate_busy",
        "Time of decoding and rendering batches",
        p.collate_busy_s,
    );
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[cfg(test)]
mod tests {
    use proto::transport::metrics::Metrics;

    use super::*;

    #[test]
    fn progress_becomes_samples() {
        let progress = Progress {
            updates: 70,
            loss: 0.25,
            actors_alive: 2,
            actors_lost: 1,
            actors_expected: 4,
            shards_up: vec![true, false],
            blocked: (true, false),
            episode_error: None,
            ..Progress::default()
        };
        let metrics = Metrics::default();
        let (_tell, seen) = watch::channel(progress);
        metrics.add(LearnerMetrics::new(seen));
        let text = metrics.text().unwrap();
        for line in [
            "landmarl_learner_updates_total 70.0\n",
            "landmarl_learner_loss 0.25\n",
            "landmarl_learner_actors{state=\"lost\"} 1.0\n",
            "landmarl_learner_actors_expected 4.0\n",
            "landmarl_learner_shard_up{shard=\"1\"} 0.0\n",
            "landmarl_learner_limiter_blocked{side=\"sampling\"} 1.0\n",
            "landmarl_learner_limiter_blocked{side=\"inserting\"} 0.0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("episode_error"), "{text}");
    }
}
